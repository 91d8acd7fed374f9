"""Every wrong setting ends in one line that names value and remedy."""

import copy

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.runner import load_checkpoint
from torch import nn

from mutualnet_mm import ConfigError, UsageError


def one_line(error):
    text = str(error.value)
    assert '\n' not in text
    return text


@pytest.mark.parametrize(
    'mutual, value, remedy',
    [
        (dict(width_range=(0.5, 2.0)), '2.0', 'max_width'),
        (dict(width_range=(0.0, 1.0)), '0.0', 'positive'),
        (dict(widths=()), '()', 'at least one'),
        (dict(resolution=()), 'resolution=()', 'at least one'),
        (dict(resolution=(48, 64)), '(48, 64)', 'full (largest) one first'),
        (dict(resolution=64), 'resolution=64', 'list'),
        (dict(witdh=(0.5, 1.0)), 'witdh', 'mutual'),
        (dict(supervision='mse'), "'mse'", "'label'"),
        (dict(rounding='nearest'), "'nearest'", "'paper'"),
        (dict(num_random=-1), 'num_random=-1', 'from 0'),
        (dict(resolution_mode='both'), "'both'", "'shared'"),
    ],
)
def test_settings(build_classifier, mutual, value, remedy):
    with pytest.raises(ConfigError) as error:
        build_classifier(mutual)
    assert value in one_line(error) and remedy in one_line(error)


def test_resolution_is_needed(classifier_config):
    config = classifier_config()
    del config['mutual']['resolution']
    with pytest.raises(ConfigError, match='list the resolutions to train'):
        MODELS.build(config)


@pytest.mark.parametrize(
    'written, meant', [('num_rand', 'num_random'), ('strat', 'stratified')]
)
def test_misspelt_setting(classifier_config, written, meant):
    config = classifier_config({written: 2})
    with pytest.raises(
        ConfigError, match=f'mutual.{written} is unknown, use .*{meant}'
    ):
        MODELS.build(config)


def test_neck_that_mixes_channels_up(detector_config):
    from mmdet.models.necks import FPN

    class Rolled(FPN):
        def forward(self, inputs):
            return super().forward([x.roll(1, 1) for x in inputs])

    config = detector_config()
    config.neck.type = Rolled
    with pytest.raises(ConfigError, match='Rolled .*neck.lateral_convs'):
        MODELS.build(config)


def test_joints_that_heads_would_not_see(detector_config):
    config = detector_config()
    config.neck = None
    config.backbone = dict(
        type='mutualnet_mm.Slimmable',
        wraps='mmpretrain.DenseNet',
        arch=dict(growth_rate=16, depths=[1, 1, 1, 1], init_channels=16),
        out_indices=(0, 1, 2, 3),
    )
    pytest.importorskip('mmpretrain')
    with pytest.raises(ConfigError, match='DenseNet hands on .* a neck'):
        MODELS.build(config)
    config.neck = dict(
        type='FPN', in_channels=[16, 16, 16, 32], out_channels=32, num_outs=5
    )
    MODELS.build(config)


@MODELS.register_module(force=True)
class Embedding(nn.Module):
    """A head that gives no scores of classes, of no project."""

    def __init__(self, in_channels):
        super().__init__()
        self.fc = nn.Linear(in_channels, 8)

    def forward(self, feats):
        return self.fc(feats[-1])

    def loss(self, feats, data_samples):
        return dict(loss=self(feats).square().mean())


def test_heads_that_are_not_known(classifier_config):
    """What they give need not be a distribution: labels, if not asked."""
    head = dict(type='Embedding', in_channels=128)
    assert MODELS.build(dict(classifier_config(), head=head)).supervision == (
        'label'
    )
    config = dict(classifier_config(dict(supervision='kl')), head=head)
    assert MODELS.build(config).supervision == 'kl'


def test_classes_that_do_not_exclude_each_other(classifier_config):
    head = dict(type='MultiLabelLinearClsHead', num_classes=4, in_channels=128)
    config = dict(classifier_config(), head=head)
    assert MODELS.build(config).supervision == 'label'
    config = dict(classifier_config(dict(supervision='kl')), head=head)
    with pytest.raises(ConfigError, match="supervision='kl'.*'label'"):
        MODELS.build(config)


def test_unsliced_backbone(classifier_config):
    config = classifier_config()
    config['backbone'] = dict(type='mmpretrain.ResNet', depth=18)
    with pytest.raises(ConfigError) as error:
        MODELS.build(config)
    assert "'mutualnet_mm.Slimmable', wraps='ResNet'" in one_line(error)


def test_wider_base_is_accepted(build_classifier, image_batch):
    model = build_classifier(
        dict(width_range=(1.0, 2.0)), max_width=2.0
    ).train()
    assert torch.isfinite(model.parse_losses(model.loss(*image_batch()))[0])
    with model.activate('1.0x-64'):
        assert model.backbone(torch.randn(1, 3, 64, 64))[0].shape[1] == 64


@pytest.mark.parametrize(
    'frozen', [dict(norm_eval=True), dict(frozen_stages=1)]
)
def test_frozen_batch_norm(build_detector, frozen):
    with pytest.raises(ConfigError) as error:
        build_detector(**frozen)
    for part in ('frozen', 'norm_eval=False', 'frozen_stages=-1'):
        assert part in one_line(error)


def test_detector_has_no_kl(build_detector):
    with pytest.raises(ConfigError) as error:
        build_detector(dict(supervision='kl'))
    assert "'kl'" in one_line(error) and "'label'" in one_line(error)


@pytest.mark.parametrize('takes, comes', [(1, 3), (3, 1)])
def test_channels_of_the_first_batch(
    build_classifier, image_batch, takes, comes
):
    model = build_classifier(in_channels=takes).train()
    images, samples = image_batch()
    with pytest.raises(ConfigError) as error:
        model.loss(images[:, :comes], samples)
    for part in (f'{comes} channels', f'takes {takes}', 'color_type'):
        assert part in one_line(error)


def test_wrapping_twice(build_classifier, classifier_config):
    config = classifier_config()
    config['wraps'] = type(build_classifier())
    with pytest.raises(ConfigError, match='already'):
        MODELS.build(config)


def test_no_ground_truth(build_detector, load_batch):
    model = build_detector().train()
    data = model.data_preprocessor(load_batch(), True)
    for sample in data['data_samples']:
        del sample.gt_instances
    with pytest.raises(ConfigError) as error:
        model.loss(**data)
    assert 'gt_instances' in one_line(error)
    assert 'LoadAnnotations' in one_line(error)


@pytest.mark.parametrize('where', ['state_dict', 'init_cfg'])
def test_rounding_of_checkpoint(build_classifier, tmp_path, where):
    file = str(tmp_path / 'hardware.pth')
    model = build_classifier(dict(rounding='hardware'))
    torch.save(dict(state_dict=model.state_dict()), file)
    with pytest.raises(ConfigError) as error:
        if where == 'init_cfg':
            init = dict(type='Pretrained', checkpoint=file)
            build_classifier(init_cfg=init)
        else:
            loaded = torch.load(file, weights_only=True)
            build_classifier().load_state_dict(loaded['state_dict'])
    assert "rounding='hardware'" in one_line(error)
    assert "'paper'" in one_line(error)


def test_a_failed_step_leaves_the_model_usable(build_classifier, image_batch):
    model = build_classifier().train()
    twin = copy.deepcopy(model)
    images, samples = image_batch()
    with pytest.raises(ConfigError):
        model.loss(images[:, :1], samples)
    assert torch.equal(
        model.loss(*image_batch())['full/loss'],
        twin.loss(*image_batch())['full/loss'],
    )


def test_frames_are_for_video(build_classifier):
    with pytest.raises(ConfigError, match=r'mutual.frames=\(8, 4\)'):
        build_classifier(dict(frames=(8, 4)))


def test_a_checkpoint_of_which_nothing_fits(build_classifier, tmp_path):
    """The stock loader only logs it, and random weights are trained."""
    path, model = str(tmp_path / 'other.pth'), build_classifier()
    torch.save(dict(state_dict={'net.weight': torch.ones(1)}), path)
    for prefix in ('', 'module.'):
        wrapped = torch.nn.Module()
        wrapped.module = model
        with pytest.raises(UsageError, match='none of .*random ones: give'):
            load_checkpoint(wrapped if prefix else model, path)
