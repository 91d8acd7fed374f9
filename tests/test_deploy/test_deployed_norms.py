"""Networks with batch norms for each resolution, deployed and exported."""

import adaptive_networks as nets
import numpy as np
import pytest
from torch_versions import skip_without_export

from mutualnet_mm import ConfigError, Subnet
from mutualnet_mm.apis import AdaptiveModel, build_model
from mutualnet_mm.export.checkpoint_file import load_static
from mutualnet_mm.export.export import export_subnet


@pytest.fixture
def make_file(request):
    """Return an adaptive file and, by subnet, a network of its norms alone."""

    def make(kind):
        cfg = nets.config(kind, request)
        shared = build_model(cfg)
        cfg.model.mutual.norm = 'per-resolution'
        subnets = nets.KINDS[kind][1]
        file = nets.file_of(cfg, subnets)
        for name, tensor in file.weights.items():
            if '.at_' in name:
                tensor.uniform_(0.5, 1.5)

        def reference(subnet):
            names = shared.state_dict()
            part = f'at_{Subnet.parse(subnet).resolution}'
            state = {}
            for name in names:
                layer, _, last = name.rpartition('.')
                own = f'{layer}.{part}.{last}'
                state[name] = file.weights.get(own, file.weights[name])
            shared.load_state_dict(state)
            return shared.eval()

        return file, reference

    return make


@pytest.mark.parametrize('kind', sorted(nets.KINDS))
def test_deployed(make_file, kind, tmp_path):
    """Sliced and static, from a file."""
    file, reference = make_file(kind)
    file.save(tmp_path / 'adaptive.pth')
    net = AdaptiveModel.from_file(tmp_path / 'adaptive.pth')
    batch = nets.full_batch(net.model)
    subnets = nets.KINDS[kind][1]
    expected = {
        subnet: nets.loop_outputs(
            reference(subnet), subnet, file.statistics.get(subnet), *batch
        )
        for subnet in subnets
    }
    for static in (False, True):
        if static:
            net.make_static(subnets, fuse_bn=False)
        for subnet in (*subnets, *subnets[::-1]):
            net.use(subnet)
            found = nets.outputs(net.predict(*batch))
            assert nets.same(found, expected[subnet]), (static, subnet)
    width, _, others = subnets[1].partition('x-')
    with pytest.raises(ConfigError, match='and for no other'):
        net.use(f'{width}x-22{others[2:]}')


@pytest.mark.parametrize(
    'format, subnet',
    [
        ('onnx', '0.5x-24'),
        ('torch', '0.5x-24'),
        ('static', '0.25x-16'),
        ('stock', '0.5x-24'),
        ('stock', '1.0x-32'),
    ],
)
def test_exported(make_file, format, subnet, tmp_path):
    """Verified against the sliced network; under stock names."""
    pytest.importorskip('onnxruntime')
    skip_without_export(format)
    file, reference = make_file('classifier')
    net = AdaptiveModel(file)
    suffix = dict(onnx='.onnx', torch='.pt2').get(format, '.pth')
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    out = tmp_path / f'a{suffix}'
    export_subnet(net, subnet, format, out, [image, image[::-1]])
    if suffix == '.pth':
        names = load_static(out).state_dict().keys()
        assert names == reference(subnet).state_dict().keys()
