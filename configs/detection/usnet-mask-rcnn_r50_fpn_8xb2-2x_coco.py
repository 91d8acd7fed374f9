"""US-Net baseline with ResNet-50: many widths, one resolution."""

_base_ = ['mutual-mask-rcnn_r50_fpn_8xb2-2x_coco.py']

model = dict(mutual=dict(resolution=(600,)))
test_cfg = dict(subnets=['1.0x-600', '0.75x-600', '0.5x-600', '0.25x-600'])
