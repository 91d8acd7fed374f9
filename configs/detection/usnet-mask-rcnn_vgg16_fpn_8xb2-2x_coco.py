"""US-Net baseline: many widths, one resolution.

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

Paper: detection and segmentation on COCO.
Cost: 1.0x-600 174 G, 0.25x-600 33.7 G MACs; a step 2.23 x the full network's.
"""

_base_ = ['../mutual_mask_rcnn_vgg16.py']

model = dict(mutual=dict(resolution=(600,)))
test_cfg = dict(subnets=['1.0x-600', '0.75x-600', '0.5x-600', '0.25x-600'])
