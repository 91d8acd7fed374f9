"""MutualNet without KL: subnets learn from the labels.

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

Paper: Fig. 12.
Cost: 1.0x-224 569 M, 0.25x-128 13.6 M MACs; a step 1.63 x the full network's.
"""

_base_ = ['mutual-mobilenet-v1_8xb128_in1k.py']

model = dict(mutual=dict(supervision='label'))
