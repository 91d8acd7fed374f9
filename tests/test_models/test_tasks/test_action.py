import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from passes import on_running_statistics

from mutualnet_mm import ConfigError, Subnet

pytest.importorskip('mmaction')

BCE = dict(loss_cls=dict(type='BCELossWithLogits'), multi_class=True)


def by_hand(clips, size, frames):
    """Frame by frame, the middle ones of equal parts."""
    total, kept = clips.shape[3], []
    for i in range(frames):
        frame = clips[:, :, :, (2 * i + 1) * total // (2 * frames)]
        flat = frame.flatten(0, 1).double()
        flat = F.interpolate(flat, size, mode='bilinear', antialias=True)
        kept.append(flat.view(*frame.shape[:3], *size))
    return torch.stack(kept, 3)


SUBNETS = [
    ('0.63x-21-2', 21, 2),
    ('0.8x-25-3', 25, 3),
    ('1.0x-32-3', 32, 3),
    ('0.7x-25-4', 25, 4),
    ('0.7x-27-3', 27, 3),  # between the trained ones
]


@pytest.mark.parametrize('views', [1, 3])
def test_resize(build_recognizer, clip_batch, views):
    model = build_recognizer()
    clips, samples = clip_batch(2, views=views)
    before = clips.clone()
    for subnet, size, frames in SUBNETS:
        inputs, found = model.task.resize(
            model, clips, samples, Subnet.parse(subnet)
        )
        assert inputs.shape == (2, views, 3, frames, size, size)
        expected = by_hand(clips, (size, size), frames)
        torch.testing.assert_close(
            inputs.double(), expected, rtol=0, atol=1e-5
        )
        labels = [s.gt_label for s in samples]
        assert [s.gt_label for s in found] == labels
        assert torch.equal(clips, before)
    inputs, _ = model.task.resize(model, clips, samples, model.space.full)
    assert inputs is clips


def test_larger_views(build_recognizer, clip_batch):
    """Of 36 x 48 pixels: scaled by 21 / 32 and 25 / 32 as the clips of 32."""
    model = build_recognizer()
    clips, samples = clip_batch(1, size=48, views=2)
    clips = clips[..., :36, :]
    model.task.check_test(model, clips, samples)
    for subnet, size in [
        ('0.63x-21-2', (24, 32)),
        ('0.8x-25-3', (28, 38)),
        ('1.0x-32-2', (36, 48)),
    ]:
        subnet = Subnet.parse(subnet)
        inputs, _ = model.task.resize(model, clips, samples, subnet)
        assert inputs.shape == (1, 2, 3, subnet.frames, *size)
        expected = by_hand(clips, size, subnet.frames)
        torch.testing.assert_close(
            inputs.double(), expected, rtol=0, atol=1e-5
        )


def test_two_branches_take_whole_clips(build_recognizer, clip_batch):
    model = build_recognizer('slowfast')
    clips, samples = clip_batch(2, frames=16, size=36)
    for subnet in model.space.grid(0.2):
        inputs, found = model.task.resize(model, clips, samples, subnet)
        assert inputs is clips
        labels = [s.gt_label for s in samples]
        assert [s.gt_label for s in found] == labels
        shape = model.task.input_shape(model, subnet, None)
        assert shape == (1, 1, 3, 16, 32, 32)


def test_input_shape(build_recognizer):
    """Of one view: of the trained size, or of the size that tests have."""
    model = build_recognizer()
    subnet, shape = Subnet(0.63, 21, 3), model.task.input_shape
    assert shape(model, subnet, None) == (1, 1, 3, 3, 21, 21)
    assert shape(model, subnet, (36, 48)) == (1, 1, 3, 3, 24, 32)
    full = model.space.full
    assert shape(model, full, None) == (1, 1, 3, 4, 32, 32)
    assert shape(model, full, (36, 36)) == (1, 1, 3, 4, 36, 36)


@pytest.mark.parametrize('kind, wanted', [('slow', 4), ('slowfast', 16)])
def test_another_number_of_frames(build_recognizer, clip_batch, kind, wanted):
    model = build_recognizer(kind)
    for check in (model.task.check_full, model.task.check_test):
        check(model, *clip_batch(1, frames=wanted))
        for frames in (wanted - 1, 2 * wanted):
            with pytest.raises(ConfigError) as caught:
                check(model, *clip_batch(1, frames=frames))
            text = str(caught.value)
            assert f'clips of {frames} frames' in text
            assert '1.0x-32-4' in text
            assert f'clip_len={wanted}' in text and 'mutual.frames' in text


@pytest.mark.parametrize('size', [(36, 36), (32, 24), (24, 40), (20, 20)])
def test_clips_of_another_size(build_recognizer, clip_batch, size):
    """Not squares, or of another size: scaled as clips of the full one."""
    model = build_recognizer()
    clips, samples = clip_batch(1, size=40)
    clips = clips[..., : size[0], : size[1]].contiguous()
    for check in (model.task.check_full, model.task.check_test):
        check(model, clips, samples)
    inputs, _ = model.task.resize(model, clips, samples, Subnet(0.63, 21, 3))
    expected = tuple(round(side * 21 / 32) for side in size)
    assert tuple(inputs.shape[-2:]) == expected
    total, _ = model.parse_losses(model.train().loss(clips, samples))
    assert torch.isfinite(total)


def test_inputs_that_are_no_clips(build_recognizer, clip_batch):
    """As `FormatShape` makes them for 2D recognizers, and without views."""
    model = build_recognizer()
    clips, samples = clip_batch(2)
    for wrong in (clips[:, 0], clips[:, 0, :, 0]):
        for check in (model.task.check_full, model.task.check_test):
            with pytest.raises(ConfigError) as caught:
                check(model, wrong, samples)
            assert str(tuple(wrong.shape)) in str(caught.value)
            assert "FormatShape(input_format='NCTHW')" in str(caught.value)


def test_supervision_of_one_label(build_recognizer):
    """KL by default."""
    assert build_recognizer('slowfast').supervision == 'kl'
    model = build_recognizer('slow', dict(supervision='label'))
    assert model.supervision == 'label'
    assert model.task.supervisions(model) == ('kl', 'label')


@pytest.mark.parametrize(
    'head',
    [
        BCE,
        dict(loss_cls=dict(type='BCELossWithLogits')),
        dict(multi_class=True),
        dict(
            loss_cls=dict(type='CBFocalLoss', samples_per_cls=[1] * 20),
        ),
    ],
    ids=['multi-label', 'bce', 'multi-class', 'focal'],
)
def test_supervision_of_several_labels(build_recognizer, head):
    """Classes that do not exclude each other make no distribution."""
    model = build_recognizer(head=head)
    assert model.supervision == 'label'
    with pytest.raises(ConfigError) as caught:
        model.task.check_supervision(model, 'kl')
    text = str(caught.value)
    assert "mutual.supervision='kl'" in text and "takes 'label'" in text


def test_supervision_is_checked(recognizer_config):
    with pytest.raises(ConfigError, match="mutual.supervision='kl'"):
        MODELS.build(recognizer_config('slow', dict(supervision='kl'), BCE))


def test_frames_are_missing(recognizer_config):
    config = recognizer_config()
    del config['mutual']['frames']
    with pytest.raises(
        ConfigError, match='mutual.frames is missing'
    ) as caught:
        MODELS.build(config)
    assert 'frames=(8, 5, 3)' in str(caught.value)


def test_neck_and_missing_head(recognizer_config):
    config = recognizer_config()
    neck = dict(
        type='TPN',
        in_channels=(256, 512),
        out_channels=64,
        spatial_modulation_cfg=dict(in_channels=(256, 512), out_channels=512),
        temporal_modulation_cfg=dict(downsample_scales=(8, 8)),
        upsample_cfg=dict(scale_factor=(1, 1, 1)),
        downsample_cfg=dict(downsample_scale=(1, 1, 1)),
        level_fusion_cfg=dict(
            in_channels=(64, 64),
            mid_channels=(64, 64),
            out_channels=128,
            downsample_scales=((1, 1, 1), (1, 1, 1)),
        ),
    )
    with pytest.raises(ConfigError, match='model.neck is a TPN'):
        MODELS.build(dict(copy.deepcopy(config), neck=neck))
    del config['cls_head']
    with pytest.raises(ConfigError, match='model.cls_head is missing'):
        MODELS.build(config)


def test_predict_at_every_size(build_recognizer, clip_batch):
    model = build_recognizer().eval()
    clips, samples = clip_batch()
    scores = []
    with torch.no_grad():
        for subnet in ('1.0x-32-4', '0.8x-25-3', '0.63x-21-2'):
            inputs, found = model.task.resize(
                model, clips, samples, Subnet.parse(subnet)
            )
            with on_running_statistics(model, subnet):
                result = model(inputs, found, mode='predict')
            scores.append(torch.stack([s.pred_score for s in result]))
            assert [s.gt_label.item() for s in result] == [0, 1, 2, 3]
        full = type(model).stock_class.predict(model, clips, samples)
    assert torch.equal(scores[0], torch.stack([s.pred_score for s in full]))
    for score in scores:
        torch.testing.assert_close(score.sum(1), torch.ones(4))
    assert not torch.allclose(scores[0], scores[1])
    assert not torch.allclose(scores[1], scores[2])


def test_sizes_made_in_the_pipeline_are_refused(build_recognizer, clip_batch):
    model = build_recognizer()
    clips, samples = clip_batch(2)
    samples[0].set_field({25: {}}, 'multi_resolution', dtype=dict)
    for check in (model.task.check_full, model.task.check_test):
        with pytest.raises(ConfigError, match='MultiResolution .* leave it'):
            check(model, clips, samples)


def test_a_loss_that_was_changed_after_the_build(build_recognizer, clip_batch):
    """As a hook may: its classes no longer exclude each other."""
    model = build_recognizer().train()
    model.cls_head.loss_cls = build_recognizer(head=BCE).cls_head.loss_cls
    assert model.supervision == 'kl'
    with pytest.raises(ConfigError, match='BCELossWithLogits.*was changed'):
        model.loss(*clip_batch(2))
