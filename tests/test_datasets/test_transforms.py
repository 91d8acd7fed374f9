import copy

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import TRANSFORMS
from passes import stock_loss

from mutualnet_mm import ConfigError, Subnet

SCALE = (107, 64)


@pytest.fixture
def multi_steps(detection_pipeline):
    """The paper's path, made from the stock pipeline."""

    def make(resolution=(64, 48), scale=SCALE):
        load_image, load_truth, resize, pack = detection_pipeline(scale=scale)
        return [
            load_image,
            load_truth,
            dict(
                type='mutualnet_mm.MultiResolution',
                resolution=resolution,
                resize=resize,
                transforms=[pack],
            ),
        ]

    return make


def assert_same_data(ours, theirs):
    assert torch.equal(ours['inputs'], theirs['inputs'])
    for a, b in zip(ours['data_samples'], theirs['data_samples']):
        for key in ('img_shape', 'scale_factor', 'pad_shape', 'ori_shape'):
            assert a.get(key) == b.get(key), key
        assert torch.equal(a.gt_instances.bboxes, b.gt_instances.bboxes)
        assert (a.gt_instances.masks.masks == b.gt_instances.masks.masks).all()


def test_sizes_equal_separate_stock_pipelines(
    build_detector, load_batch, detection_pipeline, multi_steps
):
    model = build_detector()
    data = model.data_preprocessor(
        load_batch((0, 1, 3, 5), multi_steps()), True
    )
    for resolution in (64, 48):
        steps = detection_pipeline(scale=(SCALE[0], resolution))
        stock = model.data_preprocessor(load_batch((0, 1, 3, 5), steps), True)
        inputs, samples = model.task.resize(
            model, *data.values(), Subnet(0.5, resolution), with_truth=True
        )
        assert_same_data(dict(inputs=inputs, data_samples=samples), stock)


def totals(model, data):
    torch.manual_seed(1)
    logged = model.loss(**copy.deepcopy(data))
    total, _ = model.parse_losses(logged)
    return {
        'full': total.item() - logged['loss_mutual'].item(),
        **{k: v.item() for k, v in logged.items() if k.endswith('/total')},
    }


def test_loss_is_the_stock_one_on_that_size(
    build_detector, load_batch, detection_pipeline, multi_steps
):
    model = build_detector(dict(widths=(0.5, 0.7, 1.0))).train()
    data = model.data_preprocessor(load_batch((0, 3), multi_steps()), True)
    found = totals(model, data)
    steps = detection_pipeline(scale=(SCALE[0], 48))
    small = model.data_preprocessor(load_batch((0, 3), steps), True)
    drawn = model.sampler.sample(0)
    torch.manual_seed(1)
    for tag, subnet in drawn.items():
        batch = data if subnet.resolution == 64 else small
        with model.activate(subnet):
            losses = stock_loss(model, *copy.deepcopy(tuple(batch.values())))
        total = model.parse_losses(losses)[0].item()
        key = tag if tag == 'full' else f'{tag}/total'
        assert found[key] == pytest.approx(total, rel=1e-5), tag
    assert any(s.resolution == 48 for s in drawn.values())


def test_loss_is_close_to_the_on_device_path(
    build_detector, load_batch, detection_pipeline, multi_steps
):
    model = build_detector(dict(resolution=(192, 144))).train()
    scale = (320, 192)
    found = [
        totals(model, model.data_preprocessor(load_batch((0, 3), s), True))
        for s in (
            multi_steps((192, 144), scale),
            detection_pipeline(scale=scale),
        )
    ]
    assert set(found[0]) == set(found[1])
    for key, value in found[0].items():
        assert found[1][key] == pytest.approx(value, rel=0.1), key


def test_flip_before_it_shows_in_all_sizes(
    build_detector, load_batch, multi_steps
):
    flip = dict(type='RandomFlip', prob=1.0)
    steps = multi_steps()
    plain = load_batch((0,), steps)['data_samples'][0]
    steps = multi_steps()
    steps.insert(2, flip)
    flipped = load_batch((0,), steps)['data_samples'][0]
    small = 'multi_resolution', 48
    for a, b in (
        (plain, flipped),
        (
            plain.get(small[0])[48]['data_samples'],
            flipped.get(small[0])[48]['data_samples'],
        ),
    ):
        width = a.img_shape[1]
        boxes = a.gt_instances.bboxes.tensor
        mirrored = boxes.clone()
        mirrored[:, [0, 2]] = width - boxes[:, [2, 0]]
        torch.testing.assert_close(
            b.gt_instances.bboxes.tensor, mirrored, rtol=0, atol=1e-3
        )


def test_a_step_that_wants_another_sample(enter_scope):
    """It gives None, at one size already: the data set draws another."""
    enter_scope('mmdet')
    import numpy as np
    from mmdet.datasets.transforms import FilterAnnotations  # noqa: F401

    def run(side):
        transform = TRANSFORMS.build(
            dict(
                type='mutualnet_mm.MultiResolution',
                resolution=(64, 32),
                resize=dict(type='Resize', scale=64, keep_ratio=True),
                transforms=[
                    dict(type='FilterAnnotations', min_gt_bbox_wh=(8, 8)),
                    dict(type='PackDetInputs', meta_keys=()),
                ],
            )
        )
        box = np.array([[4, 4, 4 + side, 4 + side]], dtype=np.float32)
        return transform(
            dict(
                img=np.zeros((64, 64, 3), np.uint8),
                img_shape=(64, 64),
                gt_bboxes=HorizontalBoxes(box),
                gt_bboxes_labels=np.zeros(1, int),
                gt_ignore_flags=np.zeros(1, bool),
            )
        )

    from mmdet.structures.bbox import HorizontalBoxes

    assert run(40) is not None
    assert run(12) is None  # 6 pixels at the lower resolution
    assert run(5) is None


def test_random_steps_inside(enter_scope):
    """All sizes show the same part of the image, and draw once for all."""
    enter_scope('mmpretrain')
    import numpy as np
    from mmpretrain.datasets.transforms import PackInputs  # noqa: F401

    ramp = np.linspace(0, 255, 90).astype(np.uint8)
    image = np.stack([*np.broadcast_arrays(ramp[None], ramp[:, None])] * 2)
    image = image[:3].transpose(1, 2, 0).copy()
    transform, alone = (
        TRANSFORMS.build(
            dict(
                type='mutualnet_mm.MultiResolution',
                resolution=sizes,
                resize=dict(type='RandomResizedCrop', scale=64),
                transforms=[
                    dict(type='RandomFlip', prob=0.5),
                    dict(type='PackInputs'),
                ],
            )
        )
        for sizes in ((64, 32), (64,))
    )
    seen = set()
    for seed in range(6):
        np.random.seed(seed)
        results = dict(img=image, img_shape=(90, 90), sample_idx=0)
        packed = transform(results)
        drawn = np.random.get_state()[2]
        small = packed['data_samples'].get('multi_resolution')[32]['inputs']
        shrunk = packed['inputs'].float().unflatten(1, (32, 2)).mean(2)
        shrunk = shrunk.unflatten(2, (32, 2)).mean(3)
        assert (small.float() - shrunk).abs().max() < 8
        seen.add(int(packed['inputs'][0, 0, 0]))
        # What comes after draws as if there were one size.
        np.random.seed(seed)
        assert torch.equal(alone(results)['inputs'], packed['inputs'])
        assert np.random.get_state()[2] == drawn
    assert len(seen) > 2


def test_classification(build_classifier, enter_scope):
    """Same in a classifier, whose resize takes one number."""
    import numpy as np
    from mmpretrain.datasets.transforms import PackInputs  # noqa: F401

    image = np.random.default_rng(0).integers(
        0, 255, (80, 80, 3), dtype=np.uint8
    )
    results = dict(img=image, gt_label=1, img_shape=(80, 80))
    results.update(ori_shape=(80, 80), sample_idx=0)
    model = build_classifier(dict(resolution=(64, 32)))
    pack = dict(type='PackInputs')
    transform = TRANSFORMS.build(
        dict(
            type='mutualnet_mm.MultiResolution',
            resolution=(64, 32),
            resize=dict(type='Resize', scale=64),
            transforms=[pack],
        )
    )
    before = copy.deepcopy(results)
    packed = transform(results)
    assert results.keys() == before.keys()
    batch = dict(
        inputs=[packed['inputs']], data_samples=[packed['data_samples']]
    )
    data = model.data_preprocessor(batch, True)
    assert data['inputs'].shape == (1, 3, 64, 64)
    inputs, samples = model.task.resize(
        model, *data.values(), Subnet(0.5, 32), with_truth=True
    )
    stock = TRANSFORMS.build(dict(type='Resize', scale=32))(before)['img']
    expected = torch.from_numpy(stock.transpose(2, 0, 1).copy()).float()
    assert torch.equal(inputs[0], expected)
    assert samples[0].gt_label.item() == 1


def test_batch_augmentation_is_the_same_at_all_sizes(
    classifier_config, enter_scope
):
    """The teacher's image and the subnet's are mixed alike (or refused)."""
    from mmengine.registry import MODELS
    from mmpretrain.structures import DataSample

    config = classifier_config(dict(resolution=(64, 32)))
    config['train_cfg'] = dict(augments=[dict(type='Mixup', alpha=0.8)])
    config['data_preprocessor'] = dict(num_classes=4)
    batch = dict(inputs=[], data_samples=[])
    for i in range(4):
        small = dict(
            inputs=torch.full((3, 32, 32), 60.0 * i),
            data_samples=DataSample().set_gt_label(i),
        )
        sample = DataSample().set_gt_label(i)
        sample.set_field({32: small}, 'multi_resolution', dtype=dict)
        batch['inputs'].append(torch.full((3, 64, 64), 60.0 * i))
        batch['data_samples'].append(sample)
    try:
        model = MODELS.build(config).train()
        data = model.data_preprocessor(batch, True)
        inputs, _ = model.task.resize(
            model, *data.values(), Subnet(0.5, 32), with_truth=True
        )
    except ConfigError:
        return
    torch.testing.assert_close(inputs, data['inputs'][:, :, :32, :32])


@pytest.mark.parametrize(
    'scale, keep_ratio, expected',
    [
        ((1000, 600), True, [(1000, 600), (1000, 480), (1000, 240)]),
        ((600, 1000), True, [(1000, 600), (1000, 480), (1000, 240)]),
        ((600, 600), True, [(600, 600), (480, 480), (240, 240)]),
        ((600, 600), False, [(600, 600), (480, 480), (240, 240)]),
        ((1001, 600), False, [(1001, 600), (801, 480), (400, 240)]),
        (600, True, [600, 480, 240]),
        (600, False, [600, 480, 240]),
    ],
)
def test_scales_of_all_sizes(enter_scope, scale, keep_ratio, expected):
    """A square stays one: two sizes must not be the same one in disguise."""
    pytest.importorskip('mmdet')
    enter_scope('mmdet')
    transform = TRANSFORMS.build(
        dict(
            type='mutualnet_mm.MultiResolution',
            resolution=(600, 480, 240),
            resize=dict(type='Resize', scale=scale, keep_ratio=keep_ratio),
            transforms=[],
        )
    )
    found = [p.transforms[0].scale for p in transform.pipelines.values()]
    plain = [(s, s) if isinstance(s, int) else s for s in expected]
    assert found == plain


def test_the_paper_s_sizes(enter_scope, monkeypatch):
    """1000 x {600, 480, 360, 240}, at any ratio: exactly."""
    import numpy as np

    pytest.importorskip('mmdet')
    enter_scope('mmdet')
    sizes = (600, 480, 360, 240)
    transform = TRANSFORMS.build(
        dict(
            type='mutualnet_mm.MultiResolution',
            resolution=sizes,
            resize=dict(type='Resize', scale=(1000, 600), keep_ratio=True),
            transforms=[dict(type='PackDetInputs')],
        )
    )
    # Without resampling: an image of zeros has the shape alone.
    monkeypatch.setattr(
        'mmcv.image.geometric.imresize',
        lambda img, size, **kwargs: np.broadcast_to(
            np.zeros((), np.uint8), (size[1], size[0], 3)
        ),
    )
    rng = np.random.default_rng(0)
    for h, w in np.exp(rng.uniform(4, 7.5, (40, 2))).astype(int).tolist():
        image = np.broadcast_to(np.zeros((), np.uint8), (h, w, 3))
        results = dict(img=image, img_shape=(h, w), ori_shape=(h, w))
        packed = transform(results)
        smaller = packed['data_samples'].get('multi_resolution')
        for r in sizes:
            made = packed if r == 600 else smaller[r]
            factor = min(1000 / max(h, w), r / min(h, w))
            assert tuple(made['inputs'].shape) == (
                3,
                int(h * factor + 0.5),
                int(w * factor + 0.5),
            )


def test_padding_that_makes_one_size_of_all(enter_scope):
    enter_scope('mmpretrain')
    config = dict(
        type='mutualnet_mm.MultiResolution',
        resolution=(64, 32),
        resize=dict(type='Resize', scale=(64, 64), keep_ratio=True),
        transforms=[dict(type='mmdet.Pad', size=(64, 64))],
    )
    with pytest.raises(ConfigError, match=r'Pad of size=\(64, 64\)'):
        TRANSFORMS.build(config)


@pytest.mark.parametrize(
    'resolution, scale',
    [
        ((64, 48), (107, 56)),
        ((64, 48), 80),
        ((), (107, 64)),
        ((48, 64), (107, 64)),
        ((64, 48), None),
    ],
)
def test_scale_that_is_not_the_full_resolution(enter_scope, resolution, scale):
    enter_scope('mmpretrain')
    resize = dict(type='Resize')
    if scale is not None:
        resize['scale'] = scale
    config = ConfigDict(
        type='mutualnet_mm.MultiResolution',
        resolution=resolution,
        resize=resize,
        transforms=[],
    )
    with pytest.raises(ConfigError) as error:
        TRANSFORMS.build(config)
    assert str(scale) in str(error.value)
    assert '\n' not in str(error.value)


def test_resolution_that_was_not_made(build_detector, load_batch, multi_steps):
    model = build_detector(dict(resolution=(64, 56, 48))).train()
    data = model.data_preprocessor(load_batch((0,), multi_steps()), True)
    with pytest.raises(ConfigError) as error:
        for _ in range(10):  # until it is drawn
            model.loss(**data)
    assert 'resolution 56' in str(error.value)
    assert 'MultiResolution' in str(error.value)


@pytest.mark.parametrize('kind', ['RandomErasing', 'RandomCrop', 'CutOut'])
def test_random_steps_that_draw_pixels(enter_scope, kind):
    """Each size would show another part."""
    enter_scope('mmpretrain')
    with pytest.raises(ConfigError, match=f'{kind}, .* put it before'):
        TRANSFORMS.build(
            dict(
                type='mutualnet_mm.MultiResolution',
                resolution=(64, 32),
                resize=dict(type='Resize', scale=64),
                transforms=[dict(type=kind), dict(type='PackInputs')],
            )
        )
