"""X3D-M on Kinetics-400, widths [0.63, 1.0].

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

Paper: Kinetics-400.
Cost: 1.0x-224-16 6.2 G, 0.63x-142-6 491 M MACs; a step 1.67 x the full
network's.
"""

_base_ = [
    'mmaction::_base_/models/x3d.py',
    '../_base_/datasets/k400_bs16_16x5.py',
    '../_base_/schedules/k400_bs128_300e.py',
    '../_base_/mutual_runtime_video.py',
]

model = dict(
    type='mutualnet_mm.MutualLearning',
    wraps='Recognizer3D',
    mutual=dict(
        width_range=(0.63, 1.0),
        resolution=(224, 192, 160, 142),
        frames=(16, 12, 9, 6),
        num_random=2,
        include_min=False,
    ),
    backbone=dict(type='mutualnet_mm.SlimmableX3D'),
)
test_cfg = dict(
    subnets=[
        '1.0x-224-16',
        '1.0x-224-12',
        '1.0x-192-12',
        '0.8x-160-9',
        '0.8x-142-6',
        '0.63x-142-6',
    ]
)
