"""I-Net: X3D-M trained alone at one width, resolution and frames.

    export WIDTH=0.63 RESOLUTION=142 FRAMES=6  # also for mutualnet test
    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

Paper: Kinetics-400.
Cost: 1.0x-224-16 6.2 G MACs.
"""

_base_ = ['mutual-x3d-m_8xb16-16x5_k400.py']

width, resolution = {{'$WIDTH:1.0'}}, {{'$RESOLUTION:224'}}
frames = {{'$FRAMES:16'}}
subnet = f'{width}x-{resolution}-{frames}'
work_dir = f'work_dirs/inet-x3d-m_k400_{subnet}'

model = dict(mutual=dict(single_subnet=subnet))
val_cfg = dict(subnets=[subnet])
test_cfg = dict(subnets=[subnet])
