"""US-Net: many widths, one resolution.

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

Paper: Fig. 7.
Cost: 1.0x-224 569 M, 0.25x-224 41.0 M MACs; a step 1.97 x the full network's.
"""

_base_ = ['mutual-mobilenet-v1_8xb128_in1k.py']

model = dict(mutual=dict(resolution=(224,)))
test_cfg = dict(subnets=['1.0x-224', '0.75x-224', '0.5x-224', '0.25x-224'])
