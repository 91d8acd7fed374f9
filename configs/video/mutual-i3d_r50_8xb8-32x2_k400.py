"""I3D (ResNet-50) on Kinetics-400, widths [0.63, 1.0].

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

The paper has no such experiment: space and recipe are those of Slow-8x8, so
it is trained from scratch. To start from mmaction2's inflated 2D weights:

    --cfg-options model.backbone.pretrained=torchvision://resnet50

Not in the paper.
Cost: 1.0x-224-32 43.3 G, 0.63x-142-12 2.7 G MACs; a step 1.62 x the full
network's.
"""

_base_ = [
    'mmaction::_base_/models/i3d_r50.py',
    '../_base_/datasets/k400_bs8_32x2.py',
    '../_base_/schedules/k400_bs64_196e.py',
    '../_base_/mutual_runtime_video.py',
]

model = dict(
    type='mutualnet_mm.MutualLearning',
    wraps='Recognizer3D',
    mutual=dict(
        width_range=(0.63, 1.0),
        resolution=(224, 178, 142),
        frames=(32, 20, 12),
        num_random=2,
        include_min=False,
    ),
    backbone=dict(type='mutualnet_mm.SlimmableResNet3d', pretrained=None),
)
test_cfg = dict(
    subnets=[
        '1.0x-224-32',
        '1.0x-224-20',
        '1.0x-178-20',
        '0.8x-178-20',
        '0.8x-142-12',
        '0.63x-142-12',
    ]
)
