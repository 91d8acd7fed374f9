"""Files that are proven, or not left."""

import importlib.util

import adaptive_networks as nets
import numpy as np
import pytest
import segment_networks
import torch
from torch_versions import needs_export, skip_without_export

from mutualnet_mm import UsageError
from mutualnet_mm.apis import AdaptiveModel, count_heads, count_params
from mutualnet_mm.export import checkpoint_file as static_file
from mutualnet_mm.export import export as module
from mutualnet_mm.export import program_file
from mutualnet_mm.export.checkpoint_file import load_static
from mutualnet_mm.export.export import TOLERANCE, export_subnet
from mutualnet_mm.export.onnx_file import load_onnx

pytest.importorskip('onnxscript')
pytest.importorskip('onnxruntime')
onnx = pytest.importorskip('onnx')
SCOPES = dict(classifier='mmpretrain', detector='mmdet', slowfast='mmaction')
HALF = dict(classifier='0.5x-24', detector='0.5x-48', slowfast='0.63x-25-3')
SIZES = dict(
    classifier=[(32, 32, 3)] * 3,
    detector=[(60, 80, 3), (80, 60, 3)],
    slowfast=[(16, 32, 32, 3)],
)
NAMES = dict(onnx='a.onnx', torch='a.pt2', static='a.pth', stock='a.pth')


@pytest.fixture(scope='module')
def networks():
    """Networks that were made; no export changes one."""
    return {}


@pytest.fixture
def make_net(request, networks):
    def make(kind):
        pytest.importorskip(SCOPES[kind])
        if kind not in networks:
            file = nets.adaptive_file(kind, request)
            networks[kind] = AdaptiveModel(file)
        request.getfixturevalue('enter_scope')(SCOPES[kind])
        net = networks[kind]
        net.use(net.model.space.full)
        return net

    return make


def arrays(kind):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, size, np.uint8) for size in SIZES[kind]]


def expected(net, subnet, images):
    net.use(subnet)
    return nets.outputs(net.predict(*net.prepare(images)))


def parameters(net, subnet, format):
    """As they are counted without a narrow network."""
    number = count_params(net.model, subnet)
    if format in ('onnx', 'torch') and not net.model.task.cost_includes_head:
        number -= count_heads(net.model, subnet).params
    return number


@pytest.mark.sweep(5)
@pytest.mark.parametrize(
    'kind, format, subnet, fuse_bn',
    [
        ('classifier', 'onnx', 'half', False),
        ('classifier', 'torch', 'half', False),
        ('classifier', 'static', 'half', False),
        ('classifier', 'stock', 'half', False),
        ('classifier', 'stock', 'full', False),
        ('detector', 'torch', 'half', True),
        ('detector', 'static', 'half', False),
        ('detector', 'static', 'half', True),
        ('detector', 'stock', 'full', False),
        ('slowfast', 'torch', 'half', True),
        ('slowfast', 'static', 'half', True),
    ],
)
def test_proven(kind, format, subnet, fuse_bn, make_net, tmp_path, recwarn):
    skip_without_export(format)
    net, images = make_net(kind), arrays(kind)
    before = expected(net, net.current, images)
    subnet = HALF[kind] if subnet == 'half' else nets.KINDS[kind][1][0]
    proof = export_subnet(
        net, subnet, format, tmp_path / NAMES[format], images, fuse_bn
    )
    assert not any('LeafSpec' in str(warning.message) for warning in recwarn)
    # Rounding, where anything is computed in another way.
    folded = fuse_bn or format == 'onnx'
    assert proof.difference.relative <= folded * TOLERANCE / 100
    assert not folded or proof.difference.relative > 0
    assert proof.batch_sizes == (1, max(2, len(images)))
    number = parameters(net, subnet, format)
    assert 0.9 * number < proof.params < number or not folded
    assert folded or proof.params == number
    assert proof.files == {
        file: file.stat().st_size for file in sorted(tmp_path.iterdir())
    }
    assert len(proof.files) == (2 if NAMES[format] == 'a.pth' else 1)
    assert 'predictions' in proof.compared or format in ('onnx', 'torch')
    # The network goes on as before.
    assert net.current == net.model.space.full
    assert nets.same(expected(net, net.current, images), before)


@pytest.mark.parametrize('kind', ['classifier', 'slowfast'])
def test_static_files_predict_the_same(kind, make_net, tmp_path):
    net, images = make_net(kind), arrays(kind)
    path = tmp_path / 'a.pth'
    export_subnet(net, HALF[kind], 'static', path, images)
    batch = net.prepare(images)
    with torch.no_grad():
        found = nets.outputs(load_static(path)(*batch, mode='predict'))
    assert nets.same(found, expected(net, HALF[kind], images))


@needs_export
@pytest.mark.nightly
def test_heads_on_the_maps_of_a_file(make_net, tmp_path):
    """ONNX makes the maps, the static form's heads the detections."""
    net, images = make_net('detector'), arrays('detector')
    subnet = HALF['detector']
    proof = export_subnet(net, subnet, 'onnx', tmp_path / 'a.onnx', images)
    assert 0 < proof.difference.relative < TOLERANCE / 100
    export_subnet(net, subnet, 'static', tmp_path / 'a.pth', images)
    run = load_onnx(tmp_path / 'a.onnx')
    static = load_static(tmp_path / 'a.pth')
    sizes = []

    def extract_feat(inputs):
        sizes.append(tuple(inputs.shape))
        return tuple(run(inputs))

    static.extract_feat = extract_feat
    batch = net.prepare(images)
    with torch.no_grad():
        found = nets.outputs(static(*batch, mode='predict'))
    assert sizes == [(2, 3, 64, 64)]  # 48 x 64 and 64 x 48, padded
    wanted = expected(net, subnet, images)
    assert wanted.keys() == found.keys()
    assert len(wanted['0/scores']) == 5
    for name, tensor in wanted.items():
        if tensor.dtype == torch.bool:
            assert (found[name] != tensor).float().mean() < 1e-3, name
        else:
            torch.testing.assert_close(
                found[name], tensor, rtol=1e-4, atol=1e-4
            )


def damage_weight(net):
    next(net.backbone.parameters())[0] += 0.5


def damage_statistics(net):
    for layer in net.modules():
        if hasattr(layer, 'running_var') and layer.running_var is not None:
            layer.running_var *= 1.2


def damage_head(net):
    net.head.fc.weight[0] *= 1.2


def damage_boxes(net):
    net.roi_head.bbox_head.fc_reg.weight[0] *= 1.2


@pytest.mark.sweep(3)
@pytest.mark.parametrize(
    'kind, format, damage',
    [
        ('classifier', 'torch', damage_statistics),
        ('classifier', 'static', damage_weight),
        ('classifier', 'static', damage_head),
        ('classifier', 'stock', damage_statistics),
        ('detector', 'torch', damage_weight),
        ('detector', 'static', damage_boxes),
    ],
)
def test_damaged_networks_leave_no_file(
    kind, format, damage, make_net, tmp_path, monkeypatch
):
    skip_without_export(format)
    place = static_file if format in ('static', 'stock') else program_file
    static_model = place.static_model

    @torch.no_grad()
    def damaged(*args):
        net = static_model(*args)
        for name, parameter in net.named_parameters():
            parent, _, name = name.rpartition('.')
            # Those that are not narrower are the adaptive network's own.
            own = torch.nn.Parameter(parameter.clone())
            setattr(net.get_submodule(parent), name, own)
        damage(net)
        return net

    monkeypatch.setattr(place, 'static_model', damaged)
    old = tmp_path / NAMES[format]
    torch.save(dict(meta=dict(subnet='1.0x-32')), old)  # an earlier export
    before = old.read_bytes()
    with pytest.raises(UsageError, match='differs from the adaptive netw'):
        export_subnet(make_net(kind), HALF[kind], format, old, arrays(kind))
    assert [*tmp_path.iterdir()] == [old] and old.read_bytes() == before


@needs_export
def test_damaged_file(make_net, tmp_path, monkeypatch):
    """One number of 22 thousand, changed after the network was exported."""
    save_onnx = module.save_onnx

    def damaged(program, path, metadata):
        save_onnx(program, path, metadata)
        model = onnx.load(path)
        kernels = [t for t in model.graph.initializer if len(t.dims) == 4]
        kernel = onnx.numpy_helper.to_array(kernels[0]).copy()
        kernel.flat[0] += 1
        kernels[0].CopyFrom(
            onnx.numpy_helper.from_array(kernel, kernels[0].name)
        )
        onnx.save(model, path)

    monkeypatch.setattr(module, 'save_onnx', damaged)
    net, path = make_net('classifier'), tmp_path / 'a.onnx'
    export = [net, HALF['classifier'], 'onnx', path, arrays('classifier')]
    with pytest.raises(UsageError) as error:
        export_subnet(*export)
    assert '\n' not in str(error.value)
    assert 'but tolerance=0.001: nothing was written' in str(error.value)
    assert not [*tmp_path.iterdir()]


@needs_export
def test_tolerance(make_net, tmp_path):
    """Rounding does not pass where nothing does."""
    net, path = make_net('classifier'), tmp_path / 'a.pt2'
    export = [net, HALF['classifier'], 'torch', path, arrays('classifier')]
    with pytest.raises(UsageError, match='but tolerance=0: nothing was wr'):
        export_subnet(*export, fuse_bn=True, tolerance=0)
    proof = export_subnet(*export, tolerance=0)
    assert proof.difference == (0, 0) and path.is_file()


@needs_export
def test_batch_of_one_size_only(make_net, tmp_path, monkeypatch):
    net = make_net('classifier')
    monkeypatch.setattr(type(net.model.task), 'input_axes', {})
    with pytest.raises(UsageError, match=r'not run a batch of shape \(3, '):
        export_subnet(
            net,
            HALF['classifier'],
            'torch',
            tmp_path / 'a.pt2',
            arrays('classifier'),
        )
    assert not [*tmp_path.iterdir()]


def test_an_interruption_leaves_nothing(make_net, tmp_path, monkeypatch):
    export = [make_net('classifier'), HALF['classifier'], 'static']
    export += [tmp_path / 'a.pth', arrays('classifier')]
    export_subnet(*export)
    names = ['a.pth', 'a.py']
    assert sorted(file.name for file in tmp_path.iterdir()) == names

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, 'verify', interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_subnet(*export)
    assert sorted(file.name for file in tmp_path.iterdir()) == names


def test_makes_the_folder(make_net, tmp_path):
    export = [make_net('classifier'), HALF['classifier'], 'static']
    path = tmp_path / 'one/two/a.pth'
    assert path in export_subnet(*export, path, arrays('classifier')).files
    (tmp_path / 'file').touch()
    with pytest.raises(UsageError, match="a.pth' cannot be written: "):
        export_subnet(*export, tmp_path / 'file/a.pth', arrays('classifier'))


@pytest.mark.parametrize(
    'subnet, format, name, message',
    [
        ('half', 'pdf', 'a.pdf', "'pdf' is unknown: use one of onnx, torch,"),
        ('half', 'onnx', 'a.pth', "a.pth': name a .onnx file for format onnx"),
        ('half', 'torch', 'a.pth', 'name a .pt2 file for format torch'),
        ('half', 'static', 'a', 'name a .pth file for format static'),
        ('0.1x-24', 'static', 'a.pth', '0.1x-24'),
        ('0.6x-24', 'onnx', 'a.onnx', '0.6x-24 has no batch-norm'),
    ],
)
def test_refused(subnet, format, name, message, make_net, tmp_path):
    if 'batch-norm' in message:
        skip_without_export(format)
    net = make_net('classifier')
    subnet = HALF['classifier'] if subnet == 'half' else subnet
    with pytest.raises(UsageError, match=message):
        export_subnet(
            net, subnet, format, tmp_path / name, arrays('classifier')
        )
    assert not [*tmp_path.iterdir()]


def test_stock_keeps_batch_norms(make_net, tmp_path):
    net, path = make_net('classifier'), tmp_path / 'a.pth'
    with pytest.raises(UsageError, match='or use format static'):
        export_subnet(net, HALF['classifier'], 'stock', path, fuse_bn=True)


def test_device(make_net, tmp_path, monkeypatch):
    net, path = make_net('classifier'), tmp_path / 'a.pth'
    place = torch.device('cuda:0')
    monkeypatch.setattr(type(net), 'device', place)
    with pytest.raises(UsageError, match='is on cuda:0: load it on the CPU'):
        export_subnet(net, HALF['classifier'], 'static', path)


@needs_export
@pytest.mark.parametrize('package', ['onnx', 'onnxscript', 'onnxruntime'])
def test_packages_that_are_missing(package, make_net, tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        'mutualnet_mm.export.onnx_file.find_spec',
        lambda name: None if name == package else find_spec(name),
    )
    message = rf'format onnx needs {package}: pip install .*\[deploy\]'
    with pytest.raises(UsageError, match=message):
        export_subnet(
            make_net('classifier'), '0.5x-24', 'onnx', tmp_path / 'a.onnx'
        )


@pytest.mark.parametrize('name', ['a.pth', 'a.py'])
def test_files_of_the_user_stay(name, make_net, tmp_path):
    """Such as a checkpoint, an adaptive file or a config."""
    file = tmp_path / name
    if name == 'a.pth':
        torch.save(dict(meta=dict(epoch=1), state_dict={}), file)
    else:
        file.write_text('model = dict()')
    before = file.read_bytes()
    net = make_net('classifier')
    export = (net, HALF['classifier'], 'static', tmp_path / 'a.pth')
    with pytest.raises(UsageError, match=f'{name}. exists and is not an exp'):
        export_subnet(*export, arrays('classifier'))
    assert [*tmp_path.iterdir()] == [file] and file.read_bytes() == before


@pytest.mark.sweep(1)
@pytest.mark.parametrize('format', ['torch', 'static'])
def test_networks_that_draw(format, request, tmp_path):
    """TRN relates frames that it draws: both sides draw the same."""
    skip_without_export(format)
    request.getfixturevalue('enter_scope')('mmaction')
    head = dict(relation_type='TRNMultiScale')
    subnets = ['1.0x-32-4', '0.63x-25-4']
    model = segment_networks.config('trn', head=head)
    net = AdaptiveModel(
        nets.adaptive_file('tsn', request, subnets, model=model)
    )
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 255, (9, 32, 32, 3), np.uint8)
    batch = net.prepare(clip)
    found = [nets.outputs(net.predict(*batch)) for _ in range(4)]
    assert not all(nets.same(found[0], other) for other in found[1:])
    state = np.random.get_state()[1].tolist()
    proof = export_subnet(
        net, subnets[1], format, tmp_path / NAMES[format], clip
    )
    assert proof.difference.relative < TOLERANCE
    assert np.random.get_state()[1].tolist() == state


@pytest.mark.sweep(1)
@pytest.mark.parametrize('format', ['static', 'onnx'])
def test_networks_that_count_segments(format, request, tmp_path):
    """A program of TSM takes views of exactly the subnet's number."""
    skip_without_export(format)
    request.getfixturevalue('enter_scope')('mmaction')
    model = segment_networks.config('tsm')
    net = AdaptiveModel(nets.adaptive_file('tsn', request, model=model))
    subnet = nets.KINDS['tsn'][1][1]
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 255, (9, 32, 32, 3), np.uint8)
    path = tmp_path / NAMES[format]
    assert export_subnet(net, subnet, format, path, clip)
    net.use(subnet)
    frames = torch.randn(3, 3, 3, 25, 25)
    with torch.no_grad():
        expected = net.model(frames, stage='head')
    if format == 'static':
        with torch.no_grad():
            found = load_static(path)(frames, stage='head')
    else:
        (found,) = load_onnx(path)(frames)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
