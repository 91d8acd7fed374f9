"""The paper's experiment, ../mutual_mask_rcnn_vgg16.py, in this folder.

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

By this name other projects inherit it: MMEngine knows configs in folders only.

Paper: detection and segmentation on COCO.
Cost: 1.0x-600 174 G, 0.25x-240 5.7 G MACs; a step 1.67 x the full network's.
"""

_base_ = ['../mutual_mask_rcnn_vgg16.py']
