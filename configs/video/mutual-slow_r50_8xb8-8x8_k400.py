"""Slow-8x8 (SlowOnly, ResNet-50) on Kinetics-400, widths [0.63, 1.0].

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

Each step trains the full network and two random subnets, as in the paper.
To train the smallest and one random subnet instead of the two:

    --cfg-options model.mutual.num_random=1 model.mutual.include_min=True

Paper: Kinetics-400.
Cost: 1.0x-224-8 54.5 G, 0.63x-142-3 3.8 G MACs; a step 1.65 x the full
network's.
"""

_base_ = [
    'mmaction::_base_/models/slowonly_r50.py',
    '../_base_/datasets/k400_bs8_8x8.py',
    '../_base_/schedules/k400_bs64_196e.py',
    '../_base_/mutual_runtime_video.py',
]

model = dict(
    type='mutualnet_mm.MutualLearning',
    wraps='Recognizer3D',
    mutual=dict(
        width_range=(0.63, 1.0),
        resolution=(224, 178, 142),
        frames=(8, 5, 3),
        num_random=2,
        include_min=False,
    ),
    backbone=dict(
        type='mutualnet_mm.SlimmableResNet3dSlowOnly', pretrained=None
    ),
)
test_cfg = dict(
    subnets=[
        '1.0x-224-8',
        '1.0x-224-5',
        '1.0x-178-5',
        '0.8x-178-5',
        '0.8x-142-3',
        '0.63x-142-3',
    ]
)
