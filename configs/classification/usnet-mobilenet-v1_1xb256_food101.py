r"""Transfer from ImageNet to Food-101: US-Net.

CHECKPOINT comes from usnet-mobilenet-v1_8xb128_in1k.py.

    mutualnet train THIS_CONFIG \
        --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT

Paper: transfer learning.
Cost: 1.0x-224 568 M, 0.25x-224 40.8 M MACs; a step 1.97 x the full network's.
"""

_base_ = ['mutual-mobilenet-v1_1xb256_food101.py']

model = dict(mutual=dict(resolution=(224,)))
test_cfg = dict(subnets=['1.0x-224', '0.75x-224', '0.5x-224', '0.25x-224'])
