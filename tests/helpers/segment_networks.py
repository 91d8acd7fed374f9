"""Small 2D recognizers of mmaction2, and plain networks like them.

Of 20 classes: more than the 8 channels that any layer keeps. The full network
takes 4 segments of 32 pixels.
"""

import copy
from collections import OrderedDict

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from plain_networks import Stages, randomise, rounded, unit
from torch import nn

CLASSES, SIZES, FRAMES = 20, (32, 25, 21), (4, 3, 2)
# Of two stages, as the stock class has no fewer channels.
_SHAPE = dict(num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(1,))
# Of each: backbone, head, and the numbers of segments.
KINDS = dict(
    tsn=(
        dict(_SHAPE, wraps='ResNet', depth=18),
        dict(type='TSNHead', in_channels=128),
        FRAMES,
    ),
    tsn50=(
        dict(_SHAPE, wraps='ResNet', depth=50),
        dict(type='TSNHead', in_channels=512),
        FRAMES,
    ),
    mobilenet=(
        dict(wraps='MobileNetV2', widen_factor=0.5),
        dict(type='TSNHead', in_channels=1280),
        FRAMES,
    ),
    mmpretrain=(
        dict(
            wraps='mmpretrain.ResNet',
            depth=18,
            base_channels=16,
            stem_channels=16,
        ),
        dict(type='TSNHead', in_channels=128),
        FRAMES,
    ),
    tsm=(
        dict(wraps='ResNetTSM', depth=18, num_segments=4, pretrained2d=False),
        dict(type='TSMHead', in_channels=512, num_segments=4),
        FRAMES,
    ),
    trn=(
        dict(_SHAPE, wraps='ResNet', depth=18),
        dict(
            type='TRNHead',
            in_channels=128,
            num_segments=4,
            hidden_dim=24,
            relation_type='TRN',
        ),
        (4,),
    ),
)


def config(kind='tsn', mutual=None, head=None, slimmable=True, **backbone):
    """Config of a recognizer, ours or the stock one."""
    network, scores, frames = copy.deepcopy(KINDS[kind])
    network.update(backbone)
    if slimmable:
        network['type'] = 'mutualnet_mm.Slimmable'
    else:
        network['type'] = network.pop('wraps')
    scores = dict(
        scores, num_classes=CLASSES, dropout_ratio=0, average_clips='prob'
    )
    made = dict(
        type='Recognizer2D',
        backbone=network,
        cls_head=dict(scores, **(head or {})),
        data_preprocessor=dict(
            type='ActionDataPreprocessor', format_shape='NCHW'
        ),
    )
    if not slimmable:
        return made
    space = dict(width_range=(0.63, 1.0), resolution=SIZES, frames=frames)
    return dict(
        made,
        type='mutualnet_mm.MutualLearning',
        wraps='Recognizer2D',
        mutual=dict(space, **(mutual or {})),
    )


def build(*args, **kwargs):
    """A recognizer with weights and statistics that differ."""
    model = randomise(MODELS.build(config(*args, **kwargs)))
    # So that no prediction is certain: subnets could learn nothing.
    for layer in model.cls_head.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.05)
    return model


def batch(number=3, frames=4, size=32, seed=0, channels=3):
    """Return preprocessed frames and samples."""
    from mmaction.structures import ActionDataSample

    generator = torch.Generator().manual_seed(seed)
    shape = (number, frames, channels, size, size)
    inputs = torch.randn(shape, generator=generator)
    return inputs, [
        ActionDataSample().set_gt_label(i % CLASSES) for i in range(number)
    ]


class Residual(nn.Module):
    """Two or three convolutions and, where ``project``, one beside them."""

    def __init__(self, channels, kernels, stride, project):
        super().__init__()
        self.number = len(kernels)
        for i, kernel in enumerate(kernels):
            # The 3 x 3 kernel strides: the first of two, the second of three.
            step = stride if i == self.number - 2 else 1
            act = nn.ReLU if i < self.number - 1 else None
            layer = unit(channels[i], channels[i + 1], kernel, step, act=act)
            self.add_module(f'conv{i + 1}', layer)
        self.downsample = None
        if project:
            self.downsample = unit(
                channels[0], channels[-1], 1, stride, act=None
            )

    def forward(self, x):
        out = x
        for i in range(self.number):
            out = getattr(self, f'conv{i + 1}')(out)
        return (out + (self.downsample or nn.Identity())(x)).relu()


def resnet(narrow, bottleneck, stages_=2):
    """The first stages of ResNet-18 or -50."""
    ratio = 4 if bottleneck else 1
    channels = narrow(64 * ratio) // ratio
    stages = OrderedDict(
        conv1=unit(3, channels, 7, 2, act=nn.ReLU),
        maxpool=nn.MaxPool2d(3, 2, 1),
    )
    full = 64
    for i, number in enumerate((3, 4) if bottleneck else (2,) * stages_):
        outer = ratio * 64 * 2**i
        layers = []
        for j in range(number):
            inner = [narrow(outer)]
            if bottleneck:
                inner = [narrow(outer) // 4] * 2
            layers.append(
                Residual(
                    [channels, *inner, narrow(outer)],
                    [1, 3, 1] if bottleneck else [3, 3],
                    2 if i > 0 and j == 0 else 1,
                    j == 0 and (i > 0 or full != outer),
                )
            )
            channels, full = narrow(outer), outer
        stages[f'layer{i + 1}'] = nn.Sequential(*layers)
    return Stages(stages)


def thin_out(frames, scale, number):
    """The middle frames of equal parts, each interpolated for itself."""
    total, kept = frames.shape[1], []
    size = [round(side * scale) for side in frames.shape[-2:]]
    for i in range(number):
        frame = frames[:, (2 * i + 1) * total // (2 * number)]
        if list(frame.shape[-2:]) != size:
            frame = F.interpolate(frame, size, mode='bilinear', antialias=True)
        kept.append(frame)
    return torch.stack(kept, 1)


class Relations(nn.Module):
    """TRN: all segments at once."""

    def __init__(self, segments, hidden):
        super().__init__()
        self.classifier = nn.Sequential(
            nn.ReLU(),
            nn.Linear(segments * hidden, 512),
            nn.ReLU(),
            nn.Linear(512, CLASSES),
        )

    def forward(self, scores):
        return self.classifier(scores.flatten(1))


class PlainRecognizer(nn.Module):
    """A narrow recognizer that reduces whole videos itself."""

    def __init__(self, kind, width, size, frames):
        super().__init__()

        def narrow(channels):
            return rounded(channels * width)

        bottleneck = kind == 'tsn50'
        self.backbone = resnet(narrow, bottleneck)
        self.scale, self.frames = size / SIZES[0], frames
        self.relates = kind == 'trn'
        inputs = narrow(512 if bottleneck else 128)
        outputs = 24 if self.relates else CLASSES
        parts = OrderedDict(fc_cls=nn.Linear(inputs, outputs))
        if self.relates:
            parts = OrderedDict(consensus=Relations(4, 24), **parts)
        self.cls_head = nn.ModuleDict(parts)

    def forward(self, videos):
        """One prediction of all frames that are left."""
        number = round(videos.shape[1] * self.frames / FRAMES[0])
        frames = thin_out(videos, self.scale, number)
        maps = self.backbone(frames.flatten(0, 1))[-1]
        pooled = maps.mean((2, 3)).view(*frames.shape[:2], -1)
        if self.relates:
            return self.cls_head['consensus'](self.cls_head['fc_cls'](pooled))
        return self.cls_head['fc_cls'](pooled.mean(1))


class Shifted(nn.Module):
    """A convolution that sees an eighth of the channels a frame later."""

    def __init__(self, net):
        super().__init__()
        self.net, self.segments = net, None

    def forward(self, x):
        frames = x.unflatten(0, (-1, self.segments))
        shifted, part = torch.zeros_like(frames), x.shape[1] // 8
        shifted[:, :-1, :part] = frames[:, 1:, :part]
        shifted[:, 1:, part : 2 * part] = frames[:, :-1, part : 2 * part]
        shifted[:, :, 2 * part :] = frames[:, :, 2 * part :]
        return self.net(shifted.flatten(0, 1))


class PlainShifted(PlainRecognizer):
    """TSM: the scores of all frames, averaged."""

    def __init__(self, kind, width, size, frames):
        nn.Module.__init__(self)
        self.backbone = resnet(lambda c: rounded(c * width), False, 4)
        self.scale, self.frames, self.relates = size / SIZES[0], frames, False
        for block in self.modules():
            if isinstance(block, Residual):
                block.conv1.conv = Shifted(block.conv1.conv)
                block.conv1.conv.segments = frames
        linear = nn.Linear(rounded(512 * width), CLASSES)
        self.cls_head = nn.ModuleDict(dict(fc_cls=linear))


def parts(full, narrow):
    """Channels that a narrow layer keeps, of each part that is shifted."""
    starts = (0, full // 8, full // 4)
    sizes = (narrow // 8, narrow // 8, narrow - narrow // 4)
    return [
        start + i for start, size in zip(starts, sizes) for i in range(size)
    ]


def place_of_shifted(name, full, part):
    """Where a tensor of a narrow TSM lies in the full one."""
    index = [torch.arange(size) for size in part.shape]
    inner_out = '.conv1.' in name and 'layer' in name
    if not inner_out and 'fc_cls' not in name:  # what blocks add up
        index[0] = torch.tensor(parts(full.shape[0], part.shape[0]))
    if part.dim() > 1 and '.conv2.' not in name and full.shape[1] > 3:
        index[1] = torch.tensor(parts(full.shape[1], part.shape[1]))
    return torch.meshgrid(*index, indexing='ij')
