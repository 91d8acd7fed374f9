"""A trained network as teacher, against its own plain form."""

import copy
import importlib
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mutualnet_mm import ConfigError, UsageError
from mutualnet_mm.config.stock import find_config
from mutualnet_mm.cost import count_macs, teacher_macs
from mutualnet_mm.models.static import static_model

CLASSES, FEATURES = 4, 64
LINEAR = dict(type='LinearClsHead')
LENET = 'mmpretrain::lenet/lenet5_mnist.py'


@pytest.fixture
def store(configure, plain, tmp_path):
    """Return files of a classifier with random weights, and its state."""

    def make(head=LINEAR, stock=True, scope='mmpretrain', model=None, **more):
        config = model or configure(head, stock=stock, **more)
        torch.manual_seed(5)
        with DefaultScope.overwrite_default_scope(scope):
            net = plain.randomise(MODELS.build(copy.deepcopy(config)))
        files = SimpleNamespace(
            config=str(tmp_path / 'teacher.py'),
            checkpoint=str(tmp_path / 'teacher.pth'),
            state=net.state_dict(),
        )
        Config(dict(model=config, default_scope=scope)).dump(files.config)
        torch.save(dict(state_dict=files.state), files.checkpoint)
        files.named = dict(config=files.config, checkpoint=files.checkpoint)
        return files

    return make


@pytest.fixture
def build(configure, plain):
    def make(teacher, head=LINEAR, model=None, **options):
        mutual = dict(options, teacher=teacher, seed=2)
        config = configure(head, mutual, **(model or {}))
        return plain.randomise(MODELS.build(config)).train()

    return make


def lenet(folder):
    """A file of mmpretrain's LeNet."""
    model = Config.fromfile(find_config(LENET)[0]).model
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        state = MODELS.build(model).state_dict()
    torch.save(dict(state_dict=state), folder / 'lenet.pth')
    return str(folder / 'lenet.pth')


def batch(number=6):
    from mmpretrain.structures import DataSample

    generator = torch.Generator().manual_seed(0)
    images = torch.randn(number, 3, 32, 32, generator=generator)
    samples = [DataSample().set_gt_label(i % CLASSES) for i in range(number)]
    return images, samples


@pytest.mark.parametrize('stock', [True, False], ids=['stock', 'adaptive'])
def test_step_equals_separate_networks(build, store, plain, stock):
    files = store(stock=stock)
    model = build(files.named, label_weight=0.5).double()
    images, samples = batch()
    images = images.double()
    head = plain.linear_head(FEATURES, CLASSES)
    net = plain.classifier(plain.wide_resnet(plain.rounded, widen=1), head)
    with torch.no_grad():
        teacher = plain.fill(net.double(), files.state).eval()(images)

    def narrow(width):
        net = plain.wide_resnet(lambda c: plain.rounded(c * width), widen=1)
        head = plain.linear_head(plain.rounded(FEATURES * width), CLASSES)
        return plain.classifier(net, head)

    def label_loss(logits):
        return F.cross_entropy(logits, torch.arange(6) % CLASSES)

    state = {k: v.clone() for k, v in model.state_dict().items()}
    losses, gradients, buffers = plain.one_step(
        narrow,
        state,
        images,
        plain.drawn(0, (0.25, 1.0), (32, 24, 16), seed=2),
        label_loss,
        lambda s, t: plain.divergence(s, t) + 0.5 * label_loss(s),
        teacher=teacher,
    )
    DefaultScope.get_instance('another', scope_name='mmengine')
    total, _ = model.parse_losses(model.loss(images, samples))
    # It was built in its own.
    assert DefaultScope.get_current_instance().scope_name == 'mmengine'
    assert total.item() == pytest.approx(sum(losses.values()).item(), rel=1e-6)
    total.backward()
    floor = 1e-9 * max(g.norm() for g in gradients.values())
    for key, parameter in model.named_parameters():
        error = (parameter.grad - gradients[key]).norm()
        assert error <= 1e-6 * gradients[key].norm() + floor, key
    for key, value in model.named_buffers():
        torch.testing.assert_close(value, buffers[key], msg=key)
    # It is no part of its pupil, and does not learn.
    assert model.state_dict().keys() == state.keys()
    DefaultScope.get_instance('again', scope_name='mmpretrain')
    assert [*model.parameters()] and len([*model.modules()]) == len(
        [*build('full').modules()]
    )
    for key, value in model._teacher.network().state_dict().items():
        assert torch.equal(value.float(), files.state[key].float()), key
    assert teacher_macs(model) == pytest.approx(
        count_macs(model, '1.0x-32') / 3
    )


def test_networks_are_run_without_the_files_of_their_teacher(build):
    model = build(dict(config='gone.py', checkpoint='gone.pth')).eval()
    images, samples = batch()
    assert model(images, samples, mode='predict')
    assert static_model(model, '0.5x-24')(images[..., :24, :24]) is not None
    copy.deepcopy(model)
    with pytest.raises(UsageError, match="checkpoint 'gone.pth' does not"):
        model.train().loss(images, samples)


def test_a_teacher_of_clips(
    build_recognizer, recognizer_config, clip_batch, store
):
    config = recognizer_config('slow', slimmable=False)
    files = store(model=config, scope='mmaction')
    DefaultScope.get_instance('again', scope_name='mmaction')
    for kind, frames in (('slow', 4), ('slowfast', 16)):
        model = build_recognizer(kind, dict(teacher=files.named)).train()
        clips, samples = clip_batch(frames=frames)
        with torch.no_grad():
            teacher = model._teacher.network()
            expected = teacher(clips, mode='tensor', stage='head')
            found = model._teacher.scores(model, None, clips, samples)
        assert len(found) == 1 and torch.equal(found[0], expected)
        logged = model.loss(clips, samples)
        model.parse_losses(logged)[0].backward()


@pytest.mark.parametrize('length', [4, 16])
def test_a_teacher_of_longer_clips(
    build_recognizer, recognizer_config, store, length
):
    files = store(
        model=recognizer_config('slow', slimmable=False), scope='mmaction'
    )
    cfg = Config.fromfile(files.config)
    sampling = dict(type='SampleFrames', clip_len=length)
    cfg.train_dataloader = dict(dataset=dict(pipeline=[sampling]))
    cfg.dump(files.config)
    DefaultScope.get_instance('again', scope_name='mmaction')
    model = build_recognizer('slow', dict(teacher=files.named))
    if length == 4:
        model.check_teacher()
        return
    with pytest.raises(ConfigError) as error:
        model.check_teacher()
    assert_refused(error, 'clips of 16 frames', 'the model takes 4')


@pytest.mark.parametrize('kind, refused', [('tsn', False), ('tsm', True)])
def test_a_teacher_of_more_segments(store, kind, refused):
    """TSN averages over any number, shifts in time are of one."""
    pytest.importorskip('mmaction')
    nets = importlib.import_module('segment_networks')
    files = store(model=nets.config(kind, slimmable=False), scope='mmaction')
    cfg = Config.fromfile(files.config)
    steps = [
        dict(type='SampleFrames', clip_len=1, num_clips=16),
        dict(type='FormatShape', input_format='NCHW'),
    ]
    cfg.train_dataloader = dict(dataset=dict(pipeline=steps))
    cfg.dump(files.config)
    DefaultScope.get_instance('again', scope_name='mmaction')
    model = nets.build(kind, mutual=dict(teacher=files.named))
    if refused:
        with pytest.raises(ConfigError, match='clips of 16 frames'):
            model.check_teacher()
    else:
        model.check_teacher()


def assert_refused(error, *parts):
    text = str(error.value)
    assert '\n' not in text
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    'teacher',
    [
        dict(config='a.py'),
        dict(config='a.py', checkpoint=None),
        dict(config='a.py', checkpoint='a.pth', resolution=32),
        dict(),
        'best',
        7,
    ],
    ids=str,
)
def test_what_names_no_teacher(build, teacher):
    with pytest.raises(ConfigError) as error:
        build(teacher)
    assert_refused(error, f'mutual.teacher={teacher!r}', "checkpoint='teacher")


def test_a_teacher_that_does_not_fit(build, store, tmp_path):
    images, samples = batch()
    files = store()

    def refused(teacher, kind, *parts, **settings):
        """Before any data is loaded, and whatever trains it."""
        model = build(teacher, **settings)
        with pytest.raises(kind) as error:
            model.check_teacher()
        assert_refused(error, 'mutual.teacher: ', *parts)
        with pytest.raises(kind) as later:
            model.loss(images, samples)
        assert str(later.value) == str(error.value)

    build(files.named).check_teacher()
    missing = dict(files.named, checkpoint=str(tmp_path / 'no.pth'))
    refused(missing, UsageError, 'no.pth', 'does not exist')
    missing = dict(files.named, config=str(tmp_path / 'no.py'))
    refused(missing, ConfigError, 'no.py', 'does not exist')
    # A config may be named as stock ones are; it knows ten digits.
    others = dict(config=LENET, checkpoint=lenet(tmp_path))
    refused(others, ConfigError, LENET, 'data_preprocessor.mean')
    (tmp_path / 'bad.pth').write_text('<html>')
    broken = dict(files.named, checkpoint=str(tmp_path / 'bad.pth'))
    refused(broken, UsageError, 'bad.pth', 'cannot be read')
    (tmp_path / 'bad.py').write_text('model = dict(')
    broken = dict(files.named, config=str(tmp_path / 'bad.py'))
    refused(broken, ConfigError, 'bad.py', 'cannot be read')
    # Weights of another network.
    path = str(tmp_path / 'x.pth')
    torch.save(dict(state_dict={'head.fc.bias': torch.ones(4)}), path)
    wrong = dict(files.named, checkpoint=path)
    refused(wrong, UsageError, 'x.pth', 'does not fit')
    other = dict(mean=[10.0] * 3, std=[5.0] * 3)
    refused(
        files.named,
        ConfigError,
        'data_preprocessor.mean=None',
        '[10.0, 10.0, 10.0]',
        model=dict(data_preprocessor=other),
    )
    refused(
        files.named,
        ConfigError,
        'teacher.py predicts 4 classes, and the model 7',
        head=dict(LINEAR, num_classes=7),
        start=0.9,  # it is not asked before
    )


def test_teachers_of_which_the_full_network_was_not_trained(
    build, store, configure
):
    """Their weights at the full width say nothing, and are very sure of it."""
    alone = configure(LINEAR, dict(single_subnet='0.5x-24'))
    model = build(store(model=alone).named)
    with pytest.raises(ConfigError) as error:
        model.check_teacher()
    assert_refused(error, 'mutual.teacher: ', 'trains 0.5x-24 alone')
    narrow = configure(LINEAR, dict(width_range=(0.25, 0.5)))
    files = store(model=narrow)
    wide = configure(LINEAR, dict(width_range=(0.25, 1.0)))
    wider = Config(dict(model=wide, default_scope='mmpretrain'))
    wider.dump(files.config)
    model = build(files.named)
    with pytest.raises(UsageError) as error:
        model.check_teacher()
    assert_refused(error, 'mutual.teacher: ', 'trained at widths from 0.25 to')


@pytest.mark.parametrize(
    'head',
    [
        dict(type='MultiLabelLinearClsHead'),
        dict(
            LINEAR,
            loss=dict(
                type='LabelSmoothLoss',
                label_smooth_val=0.1,
                mode='multi_label',
                use_sigmoid=True,
            ),
        ),
    ],
    ids=['multi-label', 'by sigmoids'],
)
def test_teachers_without_a_distribution(build, store, head):
    model = build(store(head=head).named)
    with pytest.raises(ConfigError) as error:
        model.check_teacher()
    assert_refused(error, 'trained for no distribution', 'ClsHead')


def test_a_teacher_that_cannot_take_the_batch(build, store):
    files = store()
    model = build(files.named)
    model._teacher.network().backbone.conv1 = torch.nn.Conv2d(5, 16, 3)
    with pytest.raises(UsageError) as error:
        model.loss(*batch())
    assert_refused(error, 'cannot predict on a batch of shape (6, 3, 32, 32)')
