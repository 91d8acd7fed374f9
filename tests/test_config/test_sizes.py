"""Sizes and steps of pipelines, checked before any work starts."""

import pytest
from mmengine.config import Config

from mutualnet_mm import ConfigError
from mutualnet_mm.apis import load_config
from mutualnet_mm.config import check_resolution


@pytest.fixture
def write(tmp_path):
    """Write a config file and return its path."""

    def make(text=''):
        file = tmp_path / 'small_config.py'
        file.write_text(f'model = dict(type="M")\n{text}')
        return str(file)

    return make


RESIZE = 'dict(type="Resize", scale={}, keep_ratio={})'


def pipeline_config(resolution, *steps, split='train'):
    return (
        f'model = dict(type="M", mutual=dict(resolution={resolution}))\n'
        f'{split}_dataloader = dict(dataset=dict('
        f'pipeline=[{", ".join(steps)}]))\n'
    )


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_pipeline_of_another_resolution(write, split):
    resize = RESIZE.format((1000, 480), True)
    path = write(pipeline_config((600, 480), resize, split=split))
    with pytest.raises(ConfigError) as error:
        load_config(path)
    message = str(error.value)
    assert '(1000, 480)' in message and '600' in message
    assert f'{split}_dataloader.dataset.pipeline.0' in message


@pytest.mark.parametrize(
    'resolution, steps',
    [
        ((600, 480), [RESIZE.format((1000, 600), True)]),
        ((224,), [RESIZE.format((256, 256), False), 'dict(type="XCrop")']),
        (
            (224,),
            [RESIZE.format((256, 256), True), 'dict(type="RandomCrop")'],
        ),
        ((224,), [RESIZE.format((-1, 224), True)]),
        (64, [RESIZE.format((1000, 600), True)]),
    ],
    ids=['agrees', 'cropped by others', 'crops', 'by height', 'no list'],
)
def test_pipelines_left_to_training(write, resolution, steps):
    load_config(write(pipeline_config(resolution, *steps)))


CLASSIFIER = (
    'model = dict(type="M", wraps="ImageClassifier", '
    'mutual=dict(resolution=(32, 16)))\n'
    '{}_dataloader = dict(dataset=dict(pipeline=[{}]))\n'
)
LAST_SIZES = [
    ('dict(type="RandomResizedCrop", scale={})', int),
    ('dict(type="ResizeEdge", scale=64), dict(type="CenterCrop", '
     'crop_size={})', int),
    ('dict(type="RandomCrop", crop_size=48), dict(type="Resize", scale={})',
     int),
    ('dict(type="mmpretrain.RandomCrop", crop_size={}, padding=4)',
     lambda side: (side, side)),
]  # fmt: skip


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
@pytest.mark.parametrize('steps, size', LAST_SIZES, ids=range(4))
def test_the_last_size_of_a_classifier(write, split, steps, size):
    load_config(write(CLASSIFIER.format(split, steps.format(size(32)))))
    path = write(CLASSIFIER.format(split, steps.format(size(28))))
    with pytest.raises(ConfigError) as error:
        load_config(path)
    message = str(error.value)
    assert '28' in message and '32' in message and '\n' not in message
    assert f'{split}_dataloader.dataset.pipeline.' in message


def test_sizes_that_nothing_names(write):
    load_config(write(CLASSIFIER.format('val', 'dict(type="PackInputs")')))
    step = 'dict(type="Resize", scale_factor=0.5)'
    load_config(write(CLASSIFIER.format('val', step)))


def test_pipelines_of_other_projects_are_left_to_their_task(write):
    """A segmentor trains on crops, and is tested on larger images."""
    steps = RESIZE.format((2048, 1024), True)
    for scope, refused in (('mmseg', False), ('mmdet', True)):
        text = pipeline_config((512, 256), steps, split='test')
        path = write(f'default_scope = {scope!r}\n{text}')
        if not refused:
            load_config(path)
            continue
        with pytest.raises(ConfigError, match='2048'):
            load_config(path)


class Detector:
    """As configs that import what they name have it."""


@pytest.mark.parametrize('wraps', [Detector, 'my_code.Detector', 'RetinaNet'])
@pytest.mark.parametrize('scope', ['mmdet', None])
def test_pipelines_are_read_whatever_the_model_is(wraps, scope):
    cfg = config(None, [resize(1333, 800)], (640, 480), default_scope=scope)
    cfg.model.wraps = wraps
    with pytest.raises(ConfigError, match='1333, 800'):
        check_resolution(cfg)


def test_a_square_is_compared_whatever_the_model(write):
    text = pipeline_config((32, 16), 'dict(type="CenterCrop", crop_size=28)')
    with pytest.raises(ConfigError, match='CenterCrop of 28'):
        load_config(write(text))


def step(kind, **settings):
    return dict(type=kind, **settings)


def resize(*scale, keep_ratio=True):
    return step('Resize', scale=scale, keep_ratio=keep_ratio)


def dataset(steps):
    return dict(dataset=dict(pipeline=steps))


def config(train, test, resolution=(640, 480), **settings):
    loaders = dict(train_dataloader=train, test_dataloader=test)
    loaders = {k: dataset(v) for k, v in loaders.items() if v is not None}
    mutual = dict(resolution=resolution)
    return Config(
        dict(
            settings,
            model=dict(type='M', mutual=mutual, **settings.get('model', {})),
            **loaders,
        )
    )


CROP = step('CenterCrop', crop_size=224)
MANY = step('RandomChoiceResize', scales=[(640, 640), (960, 960)])
PAD = step('Pad', size=(640, 640))
EXPAND = [step('Expand'), step('MinIoURandomCrop')]
# Training, testing, full resolution: of stock configs, and what stands for it.
STOCK = {
    'multi-scale': ([MANY], [resize(1333, 800)], 800),
    'large-scale jitter': (
        [step('RandomResize', scale=(1024, 1024), ratio_range=(0.1, 2)),
         step('RandomCrop', crop_size=(1024, 1024))],
        [resize(1333, 800)],
        800,
    ),
    'SSD': (
        [*EXPAND, resize(300, 300, keep_ratio=False)],
        [resize(300, 300, keep_ratio=False)],
        300,
    ),
    'YOLOX': (
        [step('Mosaic', img_scale=(640, 640)), step('MixUp')],
        [resize(640, 640), step('Pad', pad_to_square=True)],
        640,
    ),
    'DETR': (
        [step('RandomChoice', transforms=[[MANY], [MANY]])],
        [resize(1333, 800)],
        800,
    ),
    'RTMDet': (
        [step('CachedMosaic'), step('RandomCrop', crop_size=(640, 640)), PAD],
        [resize(640, 640), PAD],
        640,
    ),
    'CenterNet, tested at the original size': (
        [step('RandomCenterCropPad', crop_size=(512, 512)),
         resize(512, 512)],
        [step('RandomCenterCropPad', test_mode=True)],
        512,
    ),
    'square, then padded': (None, [resize(640, 640), PAD], 640),
    'by name of the sides': (
        [resize(640, 480)], [step('FixShapeResize', width=640, height=480)],
        480,
    ),
    'shortest edge': (
        None, [step('ResizeShortestEdge', scale=480, max_size=800)], 480,
    ),
    'RSB-A3': ([step('RandomResizedCrop', scale=160)], [CROP], 224),
    'RSB-A3, named by its training': (
        [step('RandomResizedCrop', scale=160)], [CROP], 160,
    ),
    'a rectangle': (
        [step('RandomResizedCrop', scale=(224, 160))],
        [step('CenterCrop', crop_size=(224, 160))],
        160,
    ),
}  # fmt: skip


@pytest.mark.parametrize('train, test, full', STOCK.values(), ids=STOCK)
def test_stock_pipelines(train, test, full):
    check_resolution(config(train, test, (full,)))
    with pytest.raises(ConfigError, match=f'is {full - 16}: they must agree'):
        check_resolution(config(train, test, (full - 16,)))


@pytest.mark.parametrize(
    'train, test',
    [
        # Smaller in testing than both the full resolution and the training.
        ([step('RandomResizedCrop', scale=256)], [CROP]),
        ([step('RandomResizedCrop', scale=192)], [CROP]),
        # Images of a detector that keep their ratio are compared in testing.
        ([resize(1000, 256)], [resize(1000, 320)]),
        ([MANY], [resize(1000, 224)]),
    ],
)
def test_tests_that_do_not_agree(train, test):
    with pytest.raises(ConfigError, match='test_dataloader.dataset.pipeline'):
        check_resolution(config(train, test, (256, 128)))


FIXED = resize(640, 640, keep_ratio=False)


@pytest.mark.parametrize(
    'train, test, scope, accepted',
    [
        # A larger canvas is no larger crop: the full subnet would run there.
        ([resize(320, 320)], [FIXED], 'mmdet', False),
        ([resize(320, 320)], [FIXED], 'mmpretrain', True),
        ([resize(320, 320)], [step('CenterCrop', crop_size=640)], None, True),
        # Nothing is of the full resolution.
        ([MANY], [FIXED], 'mmdet', False),
        ([MANY], [step('CenterCrop', crop_size=640)], 'mmpretrain', False),
        ([MANY], [resize(320, 320, keep_ratio=False)], 'mmdet', True),
        (None, [FIXED], 'mmpretrain', True),
    ],
)
def test_larger_tests(train, test, scope, accepted):
    cfg = config(train, test, (320, 160), default_scope=scope)
    if accepted:
        return check_resolution(cfg)
    with pytest.raises(ConfigError, match='test_dataloader.* 640.* is 320'):
        check_resolution(cfg)


def test_nothing_runs_nothing_is_checked():
    wrong = config([CROP], [CROP], (256,))
    check_resolution(wrong, stages=())
    with pytest.raises(ConfigError):
        check_resolution(wrong, ('test',))


MULTI = step(
    'mutualnet_mm.MultiResolution',
    resolution=(640, 480),
    resize=resize(1000, 640),
    transforms=[step('PackDetInputs')],
)


def switch(pipeline):
    return step('PipelineSwitchHook', switch_epoch=1, switch_pipeline=pipeline)


def recipe(**settings):
    return step('SwitchRecipeHook', schedule=[dict(settings, action_epoch=1)])


SYNC = step('BatchSyncRandomResize', random_size_range=(320, 480))
MIXUP = step('Mixup', alpha=0.8)
CONFLICTS = {
    'a step behind': (
        dict(train=[MULTI, step('RandomFlip')]),
        '1 is a RandomFlip behind a MultiResolution',
    ),
    'other sizes': (
        dict(train=[MULTI], resolution=(640, 512, 480)),
        r'makes sizes \[640, 480\], but mutual.resolution lists \[512\]',
    ),
    'batch augmentation': (
        dict(train=[MULTI], model=dict(train_cfg=dict(augments=[MIXUP]))),
        'model.train_cfg.augments would mix .*pipeline.0',
    ),
    'of the preprocessor': (
        dict(train=[MULTI], data_preprocessor=dict(batch_augments=[SYNC])),
        '^data_preprocessor.batch_augments would mix',
    ),
    'of a hook': (
        dict(train=[MULTI], custom_hooks=[recipe(batch_augments=MIXUP)]),
        'custom_hooks.0.schedule.0.batch_augments would mix',
    ),
    'switched off': (
        dict(train=[MULTI], custom_hooks=[switch([MANY])]),
        'custom_hooks.0.switch_pipeline .* in both, or in none',
    ),
    'switched on': (
        dict(train=[MANY], custom_hooks=[recipe(train_pipeline=[MULTI])]),
        'custom_hooks.0.schedule.0.train_pipeline .* in both, or in none',
    ),
    'masks that stay': (
        dict(
            train=[step('LoadAnnotations', with_mask=True), MANY],
            model=dict(data_preprocessor=dict(batch_augments=[SYNC])),
        ),
        'model.data_preprocessor.batch_augments has a BatchSyncRandomResize',
    ),
}


def load(write, train, **settings):
    cfg = config(train, None, **settings)
    return load_config(write(cfg.pretty_text))


@pytest.mark.parametrize('case', CONFLICTS)
def test_steps_of_the_training_that_do_not_fit(write, case):
    settings, match = CONFLICTS[case]
    with pytest.raises(ConfigError, match=match) as error:
        load(write, **settings)
    assert '\n' not in str(error.value)


FITS = {
    'switched': dict(train=[MULTI], custom_hooks=[switch([MULTI])]),
    'without': dict(train=[MANY], custom_hooks=[switch([MANY]), 3]),
    'augmented': dict(
        train=[MANY],
        model=dict(
            data_preprocessor=dict(batch_augments=[SYNC]),
            train_cfg=dict(augments=MIXUP),
        ),
        custom_hooks=[recipe(batch_augments=None, train_pipeline=[MANY])],
    ),
    'more sizes': dict(train=[MULTI], resolution=(640,)),
    'boxes': dict(
        train=[step('LoadAnnotations', with_bbox=True), MANY],
        data_preprocessor=dict(batch_augments=[SYNC]),
    ),
}


@pytest.mark.parametrize('case', FITS)
def test_steps_of_the_training_that_fit(write, case):
    load(write, **FITS[case])


def test_a_data_set_inside_another_makes_no_sizes(write):
    """As of Mosaic: the outer one packs."""
    cfg = config([MULTI], None, custom_hooks=[switch([MULTI])])
    inside = dict(type='CocoDataset', pipeline=[step('LoadImageFromFile')])
    cfg.train_dataloader.dataset.dataset = inside
    load_config(write(cfg.pretty_text))
