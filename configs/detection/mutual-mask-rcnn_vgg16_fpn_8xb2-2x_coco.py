"""The paper's experiment, ../mutual_mask_rcnn_vgg16.py, in this folder.

By this name other projects inherit it: MMEngine knows configs in folders only.
"""

_base_ = ['../mutual_mask_rcnn_vgg16.py']
