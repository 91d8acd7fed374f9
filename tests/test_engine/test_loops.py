import itertools
from unittest.mock import patch

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.fileio import load
from mmengine.hooks import Hook
from mmengine.registry import METRICS
from mmengine.runner import Runner
from passes import leading_statistics

from mutualnet_mm import ConfigError, UsageError
from mutualnet_mm.engine import calibrate, loops

SUBNETS = ['0.5x-24', '1.0x-32', '0.25x-32']
DETECTORS = ['0.5x-48', '1.0x-64', '0.25x-64']
_numbers = itertools.count()


@METRICS.register_module(force=True)
class PredictionSums(BaseMetric):
    """Sums over all predictions: any change of the network shows in them."""

    default_prefix = 'sums'

    def process(self, data_batch, data_samples):
        for sample in data_samples:
            if 'pred_score' in sample:
                squares = sample['pred_score'].double().pow(2)
                self.results.append((squares.sum().item(), 0.0))
                continue
            found = sample['pred_instances']
            self.results.append(
                (found['scores'].sum().item(), found['bboxes'].sum().item())
            )

    def compute_metrics(self, results):
        scores, boxes = map(sum, zip(*results))
        return dict(images=len(results), scores=scores, boxes=boxes)


@pytest.fixture
def build_runner(tmp_path):
    """Return a runner of a model, on the data set of each split."""

    def build(scope, model, dataset, metrics, subnets, weights, **settings):
        def loader(split, sampler='DefaultSampler'):
            return dict(
                batch_size=2,
                num_workers=0,
                sampler=dict(type=sampler, shuffle=split == 'train'),
                dataset=dataset(split),
            )

        evaluator = [*metrics, dict(type='PredictionSums')]
        cfg = dict(
            default_scope=scope,
            experiment_name=f'loops{next(_numbers)}',
            work_dir=str(tmp_path / 'work'),
            model=model,
            train_dataloader=loader(
                'train', settings.pop('sampler', 'DefaultSampler')
            ),
            val_dataloader=loader('val'),
            test_dataloader=loader('val'),
            val_evaluator=evaluator,
            test_evaluator=evaluator,
            train_cfg=dict(by_epoch=True, max_epochs=1),
            val_cfg=dict(type='mutualnet_mm.SubnetValLoop', subnets=subnets),
            test_cfg=dict(type='mutualnet_mm.SubnetTestLoop', subnets=subnets),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
            default_hooks=dict(),
            log_level='ERROR',
            randomness=dict(seed=0),
        )
        cfg.update(settings)
        runner = Runner.from_cfg(Config(cfg))
        runner.model.init_weights()
        if weights is not None:
            runner.model.load_state_dict(weights)
        return runner

    return build


@pytest.fixture
def make_model(classifier_config):
    """Return the config of the classifier."""

    def make(**mutual):
        return classifier_config(dict(resolution=(32, 24), **mutual))

    return make


@pytest.fixture
def make_runner(build_runner, make_model, pictures):
    """Return a runner of a small classifier, on six images to evaluate."""

    def dataset(split):
        return dict(
            type='CustomDataset',
            data_root=str(
                pictures / ('train' if split == 'train' else 'test')
            ),
            indices=6,
            pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
        )

    def make(model=None, weights=None, **settings):
        return build_runner(
            'mmpretrain',
            model or make_model(),
            dataset,
            [dict(type='Accuracy')],
            SUBNETS,
            weights,
            **settings,
        )

    return make


@pytest.fixture
def make_detector(build_runner, detector_config, coco_dataset, tiny_coco):
    """Return a runner of a small Mask R-CNN."""

    def make(weights=None, **settings):
        coco = dict(
            type='CocoMetric', ann_file=f'{tiny_coco}/val.json', metric='bbox'
        )
        return build_runner(
            'mmdet',
            detector_config(),
            coco_dataset,
            [coco],
            DETECTORS,
            weights,
            **settings,
        )

    return make


@pytest.fixture
def detector_weights(build_detector):
    """Weights whose running statistics are not the initial ones."""
    model = build_detector().train()
    with torch.no_grad():
        for _ in range(8):
            model.backbone(torch.randn(2, 3, 64, 64) * 2)
    return model.state_dict()


@pytest.mark.parametrize('task', ['classification', 'detection'])
def test_full_network_equals_stock_loop(request, task):
    get = request.getfixturevalue
    if task == 'detection':
        make, weights = get('make_detector'), get('detector_weights')
    else:
        make, weights = get('make_runner'), get('weights')
    stock = make(weights=weights, val_cfg=dict(type='ValLoop')).val()
    assert stock['sums/images'] == 6 and stock['sums/scores'] > 0
    metrics = make(weights=weights).val()
    for key, value in stock.items():
        assert metrics.pop(key) == value, key
    narrow = [DETECTORS, SUBNETS][task == 'classification'][::2]
    assert set(metrics) == {
        f'{name}/{key}' for name in narrow for key in stock
    }
    scores = {metrics[f'{name}/sums/scores'] for name in narrow}
    assert len(scores | {stock['sums/scores']}) == 3
    assert metrics[f'{narrow[1]}/sums/images'] == 6


def count_loads(dataset):
    loaded, stock = [], dataset.prepare_data

    def prepare_data(index):
        loaded.append(index)
        return stock(index)

    dataset.prepare_data = prepare_data
    return loaded


@pytest.mark.parametrize('stage', ['val', 'test'])
def test_groups_give_the_same_and_load_once_each(make_runner, weights, stage):
    found = []
    for group_size, passes in ((8, 1), (1, 3), (2, 2)):
        kind = f'mutualnet_mm.Subnet{stage.title()}Loop'
        runner = make_runner(
            weights=weights,
            **{
                f'{stage}_cfg': dict(
                    type=kind, subnets=SUBNETS, group_size=group_size
                )
            },
        )
        dataset = getattr(runner, f'{stage}_loop').dataloader.dataset
        loaded = count_loads(dataset)
        found.append(getattr(runner, stage)())
        assert len(loaded) == 6 * passes
    assert found[0] == found[1] == found[2]


def test_statistics_are_the_subnets_own(make_runner, weights, monkeypatch):
    calibrated = make_runner(weights=weights).val()
    runner = make_runner(weights=weights)
    # The leading running statistics, which are what nobody should use.
    monkeypatch.setattr(
        loops,
        'calibrate',
        lambda model, subnets, *args: {
            str(subnet): leading_statistics(model, subnet)
            for subnet in subnets
        },
    )
    plain = runner.val()
    for key, value in plain.items():
        same = calibrated[key] == value
        if 'sums/scores' in key:
            assert same == (key == 'sums/scores'), key


def test_test_loop_needs_no_hook(make_runner, weights):
    """Without a hook the training data are used, as with a plain one."""
    found = [
        make_runner(weights=weights, custom_hooks=hooks).test()
        for hooks in ([], [dict(type='mutualnet_mm.BNCalibrationHook')])
    ]
    assert found[0] == found[1]
    hook = dict(type='mutualnet_mm.BNCalibrationHook', num_batches=1)
    other = make_runner(weights=weights, custom_hooks=[hook]).test()
    assert other['sums/scores'] == found[0]['sums/scores']
    assert other['0.5x-24/sums/scores'] != found[0]['0.5x-24/sums/scores']


def test_no_data_for_calibration(make_runner):
    runner = make_runner(
        train_dataloader=None, train_cfg=None, optim_wrapper=None
    )
    with pytest.raises(ConfigError, match='train_dataloader'):
        runner.test()


def test_training_saves_the_best(make_runner, tmp_path):
    runner = make_runner(
        default_hooks=dict(
            checkpoint=dict(
                type='CheckpointHook',
                save_best='sums/scores',
                rule='greater',
            ),
        ),
    )
    runner.train()
    files = {path.name for path in (tmp_path / 'work').glob('*.pth')}
    assert files == {'epoch_1.pth', 'best_sums_scores_epoch_1.pth'}


@pytest.mark.parametrize('sampler', ['DefaultSampler', 'InfiniteSampler'])
def test_several_validations_in_one_run(make_runner, sampler):
    runner = make_runner(
        sampler=sampler,
        custom_hooks=[dict(type='mutualnet_mm.BNCalibrationHook')],
        train_cfg=dict(by_epoch=False, max_iters=2, val_interval=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.0)),
    )
    seen = []
    original = runner.call_hook

    def call_hook(name, **kwargs):
        if name == 'after_val_epoch':
            seen.append(kwargs['metrics'])
        original(name, **kwargs)

    runner.call_hook = call_hook
    runner.train()
    assert len(seen) == 2


def test_averaged_weights_are_calibrated(make_runner, monkeypatch):
    stock, seen = loops.calibrate, []

    def calibrate(model, *args):
        seen.append({n: p.clone() for n, p in model.named_parameters()})
        return stock(model, *args)

    monkeypatch.setattr(loops, 'calibrate', calibrate)
    runner = make_runner(
        custom_hooks=[dict(type='EMAHook', momentum=0.5)],
    )
    runner.train()
    hook = next(h for h in runner.hooks if type(h).__name__ == 'EMAHook')
    averaged = dict(hook.ema_model.module.named_parameters())
    trained = dict(runner.model.named_parameters())
    assert len(seen) == 1
    for name, value in seen[0].items():
        assert torch.equal(value, averaged[name]), name
    assert any(not torch.equal(v, trained[n]) for n, v in seen[0].items())


def test_stock_models_are_refused(make_runner, make_model):
    model = make_model()
    model.pop('mutual')
    model['type'] = model.pop('wraps')
    with pytest.raises(ConfigError) as error:
        make_runner(model=model).val()
    assert 'ImageClassifier' in str(error.value)
    assert 'mutualnet_mm.MutualLearning' in str(error.value)


@pytest.mark.parametrize(
    'subnet', ['0.2x-24', '1.5x-32', '0.5x-40', '0.5x', '0.5x-24-8']
)
def test_subnets_outside_of_the_range(make_runner, subnet):
    runner = make_runner(
        val_cfg=dict(type='mutualnet_mm.SubnetValLoop', subnets=[subnet])
    )
    with pytest.raises(ConfigError, match=subnet.replace('.', r'\.')):
        runner.val()


def test_default_subnets(make_runner):
    runner = make_runner(val_cfg=dict(type='mutualnet_mm.SubnetValLoop'))
    keys = {k for k in runner.val() if k.endswith('images')}
    assert keys == {'sums/images', '0.25x-24/sums/images'}


def test_a_subnet_trained_alone_is_what_is_evaluated(make_runner, make_model):
    model = make_model(single_subnet='0.5x-32')
    loop = dict(type='mutualnet_mm.SubnetValLoop')
    metrics = make_runner(model=model, val_cfg=loop).val()
    assert {k for k in metrics if k.endswith('images')} == {'sums/images'}


def test_others_beside_a_subnet_trained_alone(
    make_runner, make_model, weights, monkeypatch
):
    """Its own statistics are the running ones; wider ones know nothing."""
    calibrated = []

    def record(model, subnets, *args):
        calibrated.extend(map(str, subnets))
        return calibrate(model, subnets, *args)

    monkeypatch.setattr(loops, 'calibrate', record)
    model = make_model(single_subnet='0.5x-32')

    def evaluate(*subnets):
        loop = dict(type='mutualnet_mm.SubnetValLoop', subnets=subnets)
        return make_runner(model=model, weights=weights, val_cfg=loop).val()

    metrics = evaluate('0.25x-24', '0.5x-32')
    assert calibrated == ['0.25x-24']
    keys = [k for k in metrics if k.endswith('images')]
    assert keys == ['sums/images', '0.25x-24/sums/images']
    with pytest.raises(ConfigError, match='0.75x-32 is wider than 0.5x-32'):
        evaluate('0.75x-32')


@pytest.mark.parametrize('training', [False, True])
def test_stock_loops_beside_a_subnet_trained_alone(
    make_runner, make_model, training
):
    """They, and hooks that collect statistics, would run the full network."""
    model = make_model(single_subnet='0.5x-24')
    runner = make_runner(model=model, val_cfg=dict(type='ValLoop'))
    with pytest.raises(UsageError, match=r'0\.5x-24 is trained alone.*would'):
        runner.val()
    images = torch.rand(2, 3, 32, 32)
    net = runner.model.train(training)
    with pytest.raises(UsageError, match='would run 1.0x-32'):
        net(images)
    with net.activate('0.5x-24'):
        net(images[..., :24, :24])


@pytest.mark.parametrize('group_size', [0, 1.5])
def test_group_size(make_runner, group_size):
    runner = make_runner(
        val_cfg=dict(type='mutualnet_mm.SubnetValLoop', group_size=group_size)
    )
    with pytest.raises(UsageError, match='group_size'):
        runner.val()


def test_wrappers_of_parts(make_runner):
    """By the stock tools, too, and before the training."""
    wrapper = dict(type='MMFullyShardedDataParallel')
    runner = make_runner(model_wrapper_cfg=wrapper)
    with pytest.raises(ConfigError, match='FullyShardedDataParallel'):
        runner.train()


def test_dumped_predictions_get_files_of_their_own(
    make_detector, tiny_coco, tmp_path
):
    out = tmp_path / 'found.pkl'
    runner = make_detector(
        test_evaluator=[
            dict(type='DumpResults', out_file_path=str(out)),
            dict(
                type='CocoMetric',
                metric='bbox',
                format_only=True,
                outfile_prefix=str(tmp_path / 'coco'),
                ann_file=f'{tiny_coco}/val.json',
            ),
        ]
    )
    runner.test()
    names = {p.name for p in tmp_path.iterdir() if p.is_file()}
    assert {
        'found.pkl',
        'found.0.5x-48.pkl',
        'found.0.25x-64.pkl',
        'coco.bbox.json',
        'coco.0.5x-48.bbox.json',
        'coco.0.25x-64.bbox.json',
    } <= names
    full, small = load(out), load(tmp_path / 'found.0.5x-48.pkl')
    assert len(full) == len(small) == 6
    assert not torch.equal(
        full[0]['pred_instances']['scores'],
        small[0]['pred_instances']['scores'],
    )


def test_pipeline_of_another_resolution(make_detector, coco_dataset):
    runner = make_detector()
    dataset = coco_dataset('val')
    dataset['pipeline'][1]['scale'] = (107, 72)
    runner.cfg.test_dataloader.dataset = dataset
    runner._test_dataloader['dataset'] = dataset
    with pytest.raises(ConfigError, match=r'\(107, 72\), but .* is 64'):
        runner.test()


def test_hooks_see_each_batch_once(make_detector, detector_weights):
    seen = []

    class Watcher(Hook):
        def after_test_iter(self, runner, batch_idx, data_batch, outputs):
            boxes = sum(len(o.pred_instances) for o in outputs)
            seen.append((batch_idx, outputs[0].img_shape, boxes))

    kind = 'mutualnet_mm.SubnetTestLoop'
    test_cfg = dict(type=kind, subnets=DETECTORS, group_size=1)
    runner = make_detector(detector_weights, test_cfg=test_cfg)
    runner.register_hook(Watcher())
    runner.test()
    assert [idx for idx, _, _ in seen] == [0, 1, 2]
    assert min(seen[0][1]) == 64  # the full network's, though listed second


def test_the_best_of_another_spelling(make_runner):
    """Keys of metrics are those that the loop writes."""
    key = '0.50x-48/sums/scores'
    hook = dict(type='CheckpointHook', save_best=key, rule='greater')
    runner = make_runner(default_hooks=dict(checkpoint=hook))
    with pytest.raises(ConfigError, match='begin with 0.5x-48/'):
        runner.train()


@pytest.mark.parametrize(
    'key, known',
    [
        ('sums/scores', True),
        ('0.5x-24/sums/scores', True),
        ('0.75x-24/sums/scores', False),
        ('1.0x-32/sums/scores', False),  # its metrics have no prefix
    ],
)
def test_the_best_of_what_is_not_validated(make_runner, key, known):
    """Said before the training, not at the first validation."""
    hook = dict(type='CheckpointHook', save_best=key, rule='greater')
    runner = make_runner(default_hooks=dict(checkpoint=hook))
    if known:
        assert runner.val_loop.subnets
        return
    with pytest.raises(ConfigError, match=f"save_best='{key}'"):
        runner.train()
    assert runner.iter == 0


def test_two_recipes(make_runner):
    """Neither wins silently; it is said before the training."""
    hook = dict(type='mutualnet_mm.BNCalibrationHook', num_batches=1)
    runner = make_runner(custom_hooks=[hook, dict(hook, num_batches=2)])
    for run in (runner.train, runner.test):
        with pytest.raises(ConfigError, match='2 hooks BNCalibrationHook'):
            run()
    assert runner.iter == 0


def test_colours_into_a_grey_network(make_runner, make_model):
    """In calibration, and in a test that needs none."""
    model = make_model()
    model['backbone']['in_channels'] = 1
    kind = 'mutualnet_mm.SubnetTestLoop'
    for subnet in ('0.5x-24', '1.0x-32'):
        test_cfg = dict(type=kind, subnets=[subnet])
        runner = make_runner(model, test_cfg=test_cfg)
        with pytest.raises(ConfigError, match='3 channels, .* takes 1: set'):
            runner.test()


@pytest.mark.parametrize('size, warns', [(8, True), (24, False)])
def test_sizes_below_the_trained_ones_are_named(make_config, size, warns):
    subnets = ['1.0x-32', f'0.5x-{size}']
    test_cfg = dict(type='mutualnet_mm.SubnetTestLoop', subnets=subnets)
    runner = Runner.from_cfg(make_config(test_cfg=test_cfg))
    with patch.object(runner.logger, 'warning') as warning:
        runner.build_test_loop(test_cfg)
    said = [call.args[0] for call in warning.call_args_list]
    expected = '0.5x-8: smaller than what is trained, whose smallest is 0.25x'
    assert any(text.startswith(expected) for text in said) == warns
