"""AVA's detector of actions: every subnet a network of plain PyTorch."""

import copy

import person_networks as nets
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import nn

from mutualnet_mm import ConfigError, Subnet
from mutualnet_mm.apis import count_heads, count_macs, count_params
from mutualnet_mm.engine import calibrate
from mutualnet_mm.models import static_model

pytest.importorskip('mmaction')
pytest.importorskip('mmdet')

CLASSES, SIZES, FRAMES = nets.CLASSES, nets.SIZES, nets.FRAMES
CHANNELS = dict(slow=512, slowfast=512 + 64)
LENGTH = dict(slow=4, slowfast=16)
# Of the Fast branch, what it hands over, and the step between slow frames.
LATERALS = [(2, 4, 4), (8, 16, 4), (16, 32, 4), (32, 64, 4)]
TAILS = {
    f'backbone.slow_path.layer{i + 1}.0.{conv}.conv.weight': lateral[1]
    for i, lateral in enumerate(LATERALS)
    for conv in ('conv1', 'downsample')
}
# Behind the maps of the Slow branch come those of the Fast one.
CLASSIFIER = {'roi_head.bbox_head.fc_cls.weight': 64}


@pytest.fixture(autouse=True)
def scope(enter_scope):
    enter_scope('mmdet')
    enter_scope('mmaction')


@pytest.fixture
def config(video_backbone):
    def make(kind='slow', slimmable=True, **settings):
        backbone = video_backbone(kind, slimmable)
        if not slimmable:
            backbone['type'] = f'mmaction.{backbone["type"]}'
        return nets.config(backbone, CHANNELS[kind], slimmable, **settings)

    return make


@pytest.fixture
def build(video_backbone):
    def make(kind='slow', **settings):
        return nets.build(video_backbone(kind), CHANNELS[kind], **settings)

    return make


class PersonClassifier(nn.Module):
    """A narrow network that reduces whole clips, and boxes, itself."""

    def __init__(self, plain, kind, width, pixels, frames):
        super().__init__()
        self.scale, self.frames = pixels / SIZES[0], frames
        self.plain, self.kind = plain, kind

        def narrow(channels):
            return plain.rounded(channels * width)

        inputs = narrow(512)
        if kind == 'slow':
            self.backbone = plain.resnet3d(narrow)
        else:
            slow = plain.resnet3d(narrow, tails=[t for _, t, _ in LATERALS])
            fast = plain.resnet3d(
                lambda channels: channels,
                base=2,
                inflate=(1, 1, 1, 1),
                stem=(5, 7, 7),
            )
            self.backbone = plain.TwoBranches(
                slow, fast, LATERALS, self.scale, frames, (4, 1)
            )
            inputs += 64
        head = nn.ModuleDict(dict(fc_cls=nn.Linear(inputs, CLASSES + 1)))
        self.roi_head = nn.ModuleDict(dict(bbox_head=head))

    def forward(self, clips, boxes):
        """Scores of all boxes, listed for each clip in its full size."""
        from mmcv.ops import roi_align

        size = [round(side * self.scale) for side in clips.shape[-2:]]
        if self.kind == 'slow':
            clips = self.plain.shrink(clips, size, self.frames)
            maps = self.backbone(clips)[-1:]
        else:
            maps = self.backbone(clips)
        # Nearest, also in time: 3 of 16 frames count 6, 5 and 5 times.
        shape = max(x.shape[2] for x in maps), *maps[0].shape[-2:]
        pooled = [F.interpolate(x, shape).mean(2) for x in maps]
        height, width = torch.tensor(size) / torch.tensor([64, 64])
        factor = torch.stack([width, height] * 2)
        rois = torch.cat(
            [
                F.pad(own * factor, (1, 0), value=float(i))
                for i, own in enumerate(boxes)
            ]
        )
        rois = rois.to(clips)
        places = roi_align(torch.cat(pooled, 1), rois, 4, 1 / 16, 0, 'avg')
        return self.roi_head['bbox_head']['fc_cls'](places.amax((2, 3)))


def plain_net(plain, kind, state, subnet):
    """The plain network of a subnet, with its part of the weights."""
    net = PersonClassifier(
        plain, kind, subnet.width, subnet.resolution, subnet.frames
    )
    tails = {} if kind == 'slow' else {**TAILS, **CLASSIFIER}
    return plain.fill_fused(net.to(next(iter(state.values()))), state, tails)


def exact(samples):
    """Let the proposals be the true boxes, so that all are taken."""
    for sample in samples:
        sample.proposals.bboxes = sample.gt_instances.bboxes.clone()
    return samples


@pytest.mark.parametrize('kind', CHANNELS)
def test_the_full_network_is_the_stock_one(build, config, kind):
    model = build(kind)
    stock = MODELS.build(config(kind, slimmable=False))
    assert isinstance(model, type(stock))
    stock.load_state_dict(model.state_dict(), strict=True)
    model.load_state_dict(stock.state_dict(), strict=True)
    clips, samples = nets.batch(1, LENGTH[kind], size=(64, 80))
    found, wanted = (
        net.eval()(clips, copy.deepcopy(samples), mode='predict')[0]
        for net in (model, stock)
    )
    for name in ('bboxes', 'scores'):
        assert torch.equal(
            found.pred_instances[name], wanted.pred_instances[name]
        )
    clips, samples = nets.batch(2, LENGTH[kind])
    losses = []
    for network in (model, stock):
        with torch.no_grad():
            loss = network.train().loss(clips, copy.deepcopy(samples))
        losses.append(loss)
    assert losses[0].keys() == losses[1].keys()
    for name, value in losses[0].items():
        assert torch.equal(value, losses[1][name]), name


@pytest.mark.parametrize('kind', CHANNELS)
def test_one_step(build, plain, kind):
    """The losses, every gradient and the statistics."""
    model = build(kind).double().train()
    clips, samples = nets.batch(2, LENGTH[kind], dtype=torch.double)
    exact(samples)
    subnets = dict(
        full=Subnet(1.0, 64, 4),
        min=Subnet(0.63, 40, 2),
        rand1=Subnet(0.8, 48, 4),
        rand2=Subnet(0.71, 64, 3),
    )
    model.sampler.sample = lambda step: subnets
    state = {k: v.clone() for k, v in model.state_dict().items()}
    boxes = [sample.gt_instances.bboxes.clone() for sample in samples]
    labels = torch.cat([s.gt_instances.labels[:, 1:] for s in samples])
    tails = {} if kind == 'slow' else {**TAILS, **CLASSIFIER}
    gradients = {name: torch.zeros_like(v) for name, v in state.items()}
    losses = {}
    for tag, subnet in subnets.items():
        net = plain_net(plain, kind, state, subnet).train()
        scores = net(clips, boxes)[:, 1:]
        losses[tag] = F.binary_cross_entropy_with_logits(
            scores, labels.double()
        )
        losses[tag].backward()
        for name, parameter in net.named_parameters():
            where = plain.place(gradients[name], parameter, tails.get(name, 0))
            gradients[name][where] += parameter.grad
        if tag == 'full':
            buffers = dict(net.named_buffers())
    logged = model.loss(clips, samples)
    for tag, loss in losses.items():
        key = 'loss_action_cls' if tag == 'full' else f'{tag}/total'
        # The stock loss takes labels, and is, of single precision.
        assert logged[key].item() == pytest.approx(loss.item(), rel=1e-6)
    total, _ = model.parse_losses(logged)
    total.backward()
    for name, parameter in model.named_parameters():
        wanted = gradients[name]
        error = (parameter.grad - wanted).norm()
        assert error <= 1e-5 * wanted.norm() + 1e-9, name
    state.update(buffers)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, state[name], msg=name)
    assert [s.gt_instances.bboxes.tolist() for s in samples] == [
        own.tolist() for own in boxes
    ]
    assert all('bboxes' in sample.proposals for sample in samples)


@pytest.mark.parametrize('kind', CHANNELS)
def test_predictions_and_static_forms(build, plain, kind):
    """With the subnet's statistics; boxes stay where they are."""
    model = build(kind).double().eval()
    model.data_preprocessor = MODELS.build(
        dict(type='mmaction.ActionDataPreprocessor', to_float32=False)
    )
    clips, samples = nets.batch(2, LENGTH[kind], dtype=torch.double)
    subnet = Subnet(0.8, 48, 3)
    batch = dict(inputs=list(clips), data_samples=samples)
    statistics = calibrate(model, [subnet], [batch])[str(subnet)]
    net = plain_net(plain, kind, model.state_dict(), subnet).eval()
    for name, (mean, variance) in statistics.items():
        layer = net.get_submodule(name)
        layer.running_mean.copy_(mean), layer.running_var.copy_(variance)
    one, own = clips[:1], samples[:1]
    boxes = own[0].proposals.bboxes
    with torch.no_grad():
        expected = net(one, [boxes]).sigmoid()
        resized = model.task.resize(model, one, own, subnet)
        with model.activate(subnet, statistics):
            found = model(*resized, mode='predict')[0].pred_instances
    static = static_model(model, subnet, statistics)
    with torch.no_grad():
        alone = static(one, own, mode='predict')[0].pred_instances
    for predicted in (found, alone):
        torch.testing.assert_close(predicted.scores, expected)
        torch.testing.assert_close(predicted.bboxes, boxes / 64)
    assert torch.equal(own[0].proposals.bboxes, boxes)


@pytest.mark.parametrize('kind', CHANNELS)
def test_costs(build, plain, kind):
    model = build(kind)
    assert model.task.name == 'action detection'
    for name in ('1.0x-64-4', '0.63x-40-2'):
        subnet = Subnet.parse(name)
        net = PersonClassifier(
            plain, kind, subnet.width, subnet.resolution, subnet.frames
        )
        number = sum(p.numel() for p in net.parameters())
        assert count_params(model, subnet) == number
        macs = []
        for layer in net.backbone.modules():
            if isinstance(layer, nn.Conv3d):
                layer.register_forward_hook(
                    lambda layer, args, out, macs=macs: macs.append(
                        out.numel() * layer.weight[0].numel()
                    )
                )
        clip = torch.zeros(1, 3, LENGTH[kind], 64, 80)
        with torch.no_grad():
            net.eval()(clip, [torch.tensor([[0.0, 0, 8, 8]])])
        assert count_macs(model, subnet, (64, 80)) == sum(macs)
        assert count_heads(model, subnet).macs is None


@pytest.mark.parametrize('kind', CHANNELS)
def test_batches_that_are_refused(build, kind):
    model = build(kind).train()
    clips, samples = nets.batch(2, LENGTH[kind])
    for inputs, text in (
        (clips[:, None], r'collapse=True\)'),
        (clips[:, :, 1:], f'takes {LENGTH[kind]}: set clip_len'),
        (clips[:, :1], '1 channels'),
    ):
        for check in (
            lambda inputs: model.task.check_test(model, inputs, samples),
            lambda inputs: model.loss(inputs, samples),
        ):
            with pytest.raises(ConfigError, match=text):
                check(inputs)
    del samples[1].proposals
    with pytest.raises(ConfigError, match='no boxes .proposals.'):
        model.loss(clips, samples)


def refusal(settings):
    with pytest.raises(ConfigError) as caught:
        MODELS.build(settings)
    text = str(caught.value)
    assert '\n' not in text
    return text


def test_models_that_are_refused(config):
    settings = config()
    head = settings.roi_head
    shared = dict(type='ACRNHead', in_channels=1024, out_channels=512)
    settings.roi_head = dict(head, shared_head=shared)
    assert '(shared_head, or with_global' in refusal(settings)

    settings = config()
    settings.roi_head.bbox_roi_extractor.with_global = True
    settings.roi_head.bbox_head.in_channels = 2 * 512
    assert '(shared_head, or with_global' in refusal(settings)

    settings = config()
    del settings.mutual['frames']
    assert 'mutual.frames is missing' in refusal(settings)

    settings = config(mutual=dict(supervision='kl'))
    assert "takes 'label'" in refusal(settings)
