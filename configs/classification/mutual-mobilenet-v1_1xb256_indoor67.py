r"""Transfer from ImageNet to MIT Indoor-67: MobileNetV1 by mutual learning.

CHECKPOINT comes from mutual-mobilenet-v1_8xb128_in1k.py; without it the
network starts from scratch.

    mutualnet train THIS_CONFIG \
        --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT

Paper: transfer learning.
Cost: 1.0x-224 568 M, 0.25x-128 13.3 M MACs; a step 1.63 x the full network's.
"""

_base_ = [
    '../_base_/models/mutual_mobilenet_v1.py',
    '../_base_/datasets/transfer_indoor67_bs256.py',
    '../_base_/schedules/transfer_bs256_100e.py',
    '../_base_/mutual_runtime.py',
]

model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=None)),
    head=dict(num_classes=67),
)
test_cfg = dict(subnets=['1.0x-224', '0.7x-160', '0.25x-128'])
