"""I-Net: Slow-8x8 trained alone at one width, resolution and frames.

    export WIDTH=0.63 RESOLUTION=142 FRAMES=3  # also for mutualnet test
    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

Paper: Kinetics-400.
Cost: 1.0x-224-8 54.5 G MACs.
"""

_base_ = ['mutual-slow_r50_8xb8-8x8_k400.py']

width, resolution = {{'$WIDTH:1.0'}}, {{'$RESOLUTION:224'}}
frames = {{'$FRAMES:8'}}
subnet = f'{width}x-{resolution}-{frames}'
work_dir = f'work_dirs/inet-slow_k400_{subnet}'

model = dict(mutual=dict(single_subnet=subnet))
val_cfg = dict(subnets=[subnet])
test_cfg = dict(subnets=[subnet])
