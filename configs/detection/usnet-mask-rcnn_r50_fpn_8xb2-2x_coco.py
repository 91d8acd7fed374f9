"""US-Net baseline with ResNet-50: many widths, one resolution.

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

Not in the paper: ResNet-50 in place of VGG-16.
Cost: 1.0x-600 67.2 G, 0.25x-600 27.4 G MACs; a step 2.71 x the full network's.
"""

_base_ = ['mutual-mask-rcnn_r50_fpn_8xb2-2x_coco.py']

model = dict(mutual=dict(resolution=(600,)))
test_cfg = dict(subnets=['1.0x-600', '0.75x-600', '0.5x-600', '0.25x-600'])
