"""Pictures of every subnet's predictions, by the stock hooks."""

import cv2
import numpy as np
import pytest
from mmengine.fileio import load
from mmengine.runner import Runner

from mutualnet_mm.config import augment_tests, draw_predictions
from mutualnet_mm.engine.prediction_files import dump_predictions
from mutualnet_mm.models.build import unwrapped

SUBNETS = ['0.5x-16', '1.0x-32', '0.25x-32']


@pytest.fixture
def drawn(monkeypatch):
    """What the visualizers are told to draw: file, name and sample."""
    seen = []

    def record(visualizer, method):
        stock = getattr(visualizer, method)

        def draw(self, *args, **kwargs):
            name = args[0] if args else kwargs['name']
            sample = kwargs['data_sample']
            seen.append((kwargs.get('out_file'), name, sample))
            return stock(self, *args, **kwargs)

        monkeypatch.setattr(visualizer, method, draw)
        return seen

    return record


@pytest.mark.sweep(1)
@pytest.mark.parametrize(
    'group_size, interval, augmented',
    [(8, None, False), (1, 5, False), (8, None, True)],
)
def test_classifier(
    make_config, weights, drawn, tmp_path, group_size, interval, augmented
):
    from mmpretrain.visualization import UniversalVisualizer

    seen = drawn(UniversalVisualizer, 'visualize_cls')
    cfg = make_config(
        default_hooks=dict(visualization=dict(type='VisualizationHook')),
        visualizer=dict(type='UniversalVisualizer'),
    )
    cfg.test_cfg.update(subnets=SUBNETS, group_size=group_size)
    draw_predictions(cfg, str(tmp_path / 'shown'), interval=interval)
    if augmented:
        augment_tests(cfg)
    runner = Runner.from_cfg(cfg)
    unwrapped(runner.model).load_state_dict(weights)
    dump_predictions(runner, str(tmp_path / 'found.pkl'))
    runner.test()
    indices = range(0, 12, interval or 1)
    for subnet in SUBNETS:
        suffix = '' if subnet == '1.0x-32' else f'.{subnet}'
        predictions = load(tmp_path / f'found{suffix}.pkl')
        folder = tmp_path / 'shown' / subnet
        files = [(f, s) for f, _, s in seen if f.startswith(str(folder))]
        assert len(files) == len({f for f, _ in files}) == len(indices)
        for (file, sample), index in zip(files, indices):
            assert cv2.imread(file).shape == (32, 32, 3)
            expected = predictions[index]['pred_score']
            np.testing.assert_array_equal(sample.pred_score, expected)
    assert len(seen) == 3 * len(indices)
    assert {name.split('_')[0] for _, name, _ in seen} == set(SUBNETS)


@pytest.mark.sweep(1)
@pytest.mark.parametrize('augmented', [False, True])
def test_detector(box_detector, drawn, tmp_path, augmented):
    from mmdet.visualization import DetLocalVisualizer

    seen = drawn(DetLocalVisualizer, 'add_datasample')
    cfg = box_detector(
        default_hooks=dict(visualization=dict(type='DetVisualizationHook')),
        visualizer=dict(type='DetLocalVisualizer'),
    )
    draw_predictions(cfg, str(tmp_path / 'shown'))
    if augmented:
        augment_tests(cfg)
    runner = Runner.from_cfg(cfg)
    runner.model.init_weights()
    runner.test()
    for subnet, file in (
        ('1.0x-64', 'found.pkl'),
        ('0.25x-48', 'found.0.25x-48.pkl'),
    ):
        folder = tmp_path / 'shown' / subnet
        assert {path.name for path in folder.iterdir()} == {
            f'val{i}.png' for i in range(6)
        }
        samples = [s for f, _, s in seen if f.startswith(str(folder))]
        for sample, expected in zip(samples, load(tmp_path / file)):
            np.testing.assert_array_equal(
                sample.pred_instances.scores,
                expected['pred_instances']['scores'],
            )
    assert len(seen) == 12
    assert {name for _, name, _ in seen} == {
        '1.0x-64_test_img',
        '0.25x-48_test_img',
    }


def test_validation(make_config, weights, drawn, tmp_path):
    """Where the backends keep them: in one folder, by name."""
    from mmpretrain.visualization import UniversalVisualizer

    seen = drawn(UniversalVisualizer, 'visualize_cls')
    hook = dict(type='VisualizationHook', enable=True, interval=12)
    cfg = make_config(
        default_hooks=dict(visualization=hook),
        visualizer=dict(
            type='UniversalVisualizer',
            vis_backends=[dict(type='LocalVisBackend')],
        ),
        val_cfg=dict(type='mutualnet_mm.SubnetValLoop', subnets=SUBNETS),
    )
    cfg.val_dataloader, cfg.val_evaluator = (
        cfg.test_dataloader,
        cfg.test_evaluator,
    )
    Runner.from_cfg(cfg).val()
    assert [file for file, _, _ in seen] == [None] * 3
    pictures = {path.name for path in tmp_path.rglob('*.png')}
    assert pictures == {f'{subnet}_0.png_0.png' for subnet in SUBNETS}
