import pytest
from mmengine.config import Config


@pytest.fixture
def box_detector(detector_config, coco_dataset, tmp_path):
    """Return the config of a Faster R-CNN that dumps its predictions."""

    def make(**settings):
        model = detector_config()
        model.wraps = 'FasterRCNN'
        for part in ('mask_head', 'mask_roi_extractor'):
            model.roi_head.pop(part)
        model.test_cfg.rcnn.score_thr = 0.0

        def loader(split):
            return dict(
                batch_size=2,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=False),
                dataset=coco_dataset(split),
            )

        out = str(tmp_path / 'found.pkl')
        cfg = dict(
            default_scope='mmdet',
            experiment_name=f'views{len(settings)}',
            work_dir=str(tmp_path / 'work'),
            model=model,
            train_dataloader=loader('train'),
            test_dataloader=loader('val'),
            test_evaluator=[dict(type='DumpResults', out_file_path=out)],
            train_cfg=dict(by_epoch=True, max_epochs=1),
            test_cfg=dict(
                type='mutualnet_mm.SubnetTestLoop',
                subnets=['1.0x-64', '0.25x-48'],
            ),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
            default_hooks=dict(),
            log_level='ERROR',
            randomness=dict(seed=0),
        )
        cfg.update(settings)
        return Config(cfg)

    return make
