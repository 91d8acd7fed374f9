"""I-Net: SlowFast-4x16 trained alone at one width, resolution and frames.

    export WIDTH=0.63 RESOLUTION=142 FRAMES=2  # also for mutualnet test
    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

Paper: Kinetics-400.
Cost: 1.0x-224-4 36.1 G MACs.
"""

_base_ = ['mutual-slowfast_r50_8xb8-4x16_k400.py']

width, resolution = {{'$WIDTH:1.0'}}, {{'$RESOLUTION:224'}}
frames = {{'$FRAMES:4'}}
subnet = f'{width}x-{resolution}-{frames}'
work_dir = f'work_dirs/inet-slowfast_k400_{subnet}'

model = dict(mutual=dict(single_subnet=subnet))
val_cfg = dict(subnets=[subnet])
test_cfg = dict(subnets=[subnet])
