"""SlowFast-4x16 (ResNet-50) on Kinetics-400, the Slow branch adaptive.

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

Clips have 32 frames, all for the Fast branch; widths, resolutions and frames
are the Slow branch's, which takes every eighth frame.

Paper: Kinetics-400.
Cost: 1.0x-224-4 36.1 G, 0.63x-142-2 10.2 G MACs; a step 1.99 x the full
network's.
"""

_base_ = [
    'mmaction::_base_/models/slowfast_r50.py',
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
        frames=(4, 3, 2),
        num_random=2,
        include_min=False,
    ),
    backbone=dict(type='mutualnet_mm.SlimmableResNet3dSlowFast'),
)
test_cfg = dict(
    subnets=[
        '1.0x-224-4',
        '1.0x-224-3',
        '1.0x-178-3',
        '0.8x-178-3',
        '0.8x-142-2',
        '0.63x-142-2',
    ]
)
