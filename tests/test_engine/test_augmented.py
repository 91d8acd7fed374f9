"""Test-time augmentation of every subnet, against a merge by hand."""

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseTTAModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mutualnet_mm import ConfigError, Subnet
from mutualnet_mm.engine import calibrate
from mutualnet_mm.engine.augmented import merge_predictions

NUMBER, SUBNETS = 4, ['1.0x-32', '0.5x-24']


@DATASETS.register_module(force=True)
class OneView(Dataset):
    """Images of noise."""

    def __len__(self):
        return NUMBER

    def __getitem__(self, index):
        from mmpretrain.structures import DataSample

        return dict(inputs=images()[index], data_samples=DataSample())


@DATASETS.register_module(force=True)
class SeveralViews(OneView):
    """Each image in several views, as ``TestTimeAug`` packs it."""

    def __getitem__(self, index):
        one = super().__getitem__(index)
        inputs = views(one['inputs'])
        samples = [one['data_samples'].clone() for _ in inputs]
        return dict(inputs=inputs, data_samples=samples)


@METRICS.register_module(force=True)
class AllScores(BaseMetric):
    """Hands on what was predicted."""

    def process(self, data_batch, data_samples):
        self.results += [s['pred_score'] for s in data_samples]

    def compute_metrics(self, results):
        return {f'{i}/{j}': x for i, r in enumerate(results)
                for j, x in enumerate(r.tolist())}  # fmt: skip


@MODELS.register_module(force=True)
class Merges(BaseTTAModel):
    """Mean of the scores, as ``AverageClsScoreTTA``; or refuses."""

    def __init__(self, refuses=False, **kwargs):
        super().__init__(**kwargs)
        self.refuses = refuses

    def merge_preds(self, data_samples_list):
        assert not self.refuses, 'masks are not supported'
        merged = []
        for views in data_samples_list:
            scores = torch.stack([view.pred_score for view in views]).mean(0)
            merged.append(views[0].new().set_pred_score(scores))
        return merged


def images():
    torch.manual_seed(0)
    return torch.randn(NUMBER, 3, 32, 32)


def views(image):
    """Flipped, and larger."""
    larger = torch.nn.functional.interpolate(image[None], (40, 40))[0]
    return [image, image.flip(-1), larger]


@pytest.fixture
def run(enter_scope, classifier_config, tmp_path):
    """Test a classifier in a merging model."""
    enter_scope('mmpretrain')

    def loader(kind):
        return dict(
            batch_size=2,
            num_workers=0,
            dataset=dict(type=kind),
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='pseudo_collate'),
        )

    def make(**merger):
        torch.manual_seed(0)
        model = MODELS.build(classifier_config(dict(resolution=(32, 24))))
        torch.nn.init.normal_(model.head.fc.weight, std=0.5)
        hook = dict(type='mutualnet_mm.BNCalibrationHook', num_batches=2)
        runner = Runner(
            model=Merges(module=model, **merger),
            work_dir=str(tmp_path),
            test_dataloader=loader('SeveralViews'),
            test_evaluator=dict(type='AllScores'),
            test_cfg=dict(type='mutualnet_mm.SubnetTestLoop', subnets=SUBNETS),
            custom_hooks=[dict(hook, dataloader=loader('OneView'))],
            default_scope='mmpretrain',
            experiment_name='augmented',
            log_level='ERROR',
            cfg=Config(dict()),
        )
        return model, runner

    return make


def test_every_subnet_merges_its_own_views(run):
    model, runner = run()
    found = runner.test()
    assert isinstance(runner.model, Merges) and runner.model.module is model
    model.eval()
    plain = OneView()
    batches = [pseudo_collate([plain[i], plain[i + 1]]) for i in (0, 2)]
    bank = calibrate(model, SUBNETS[1:], batches)
    for subnet in SUBNETS:
        prefix = '' if subnet == SUBNETS[0] else f'{subnet}/'
        for i, image in enumerate(images()):
            scores = []
            for view in views(image):
                side = view.shape[-1] * Subnet.parse(subnet).resolution // 32
                small = torch.nn.functional.interpolate(
                    view[None], (side, side), mode='bilinear', antialias=True
                )
                with torch.no_grad(), model.activate(subnet, bank.get(subnet)):
                    logits = model(small, mode='tensor')[0]
                scores.append(logits.softmax(0))
            for j, x in enumerate(torch.stack(scores).mean(0).tolist()):
                key = f'{prefix}{i}/{j}'
                assert found[key] == pytest.approx(x, abs=1e-4), key


def test_predictions_that_are_not_merged(run):
    """As stock models refuse masks."""
    _, runner = run(refuses=True)
    with pytest.raises(ConfigError) as error:
        runner.test()
    message = str(error.value)
    assert 'Merges cannot merge' in message and 'are not supp' in message
    assert 'without test-time augmentation' in message
    assert '\n' not in message


def test_what_fails_before_anything_is_merged():
    """It is no fault of the merging, and says so itself."""

    def predict(view):
        raise AssertionError('33 pixels are no multiple of 32')

    net = torch.nn.Identity()
    net.test_step = predict  # which is asked for, and not called
    merger = Merges(module=net)
    batch = dict(inputs=[[torch.zeros(3, 33, 33)]], data_samples=[[None]])
    with pytest.raises(AssertionError, match='33 pixels are no multiple'):
        merge_predictions(merger, batch, predict)
