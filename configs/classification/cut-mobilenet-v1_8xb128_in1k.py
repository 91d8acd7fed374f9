"""Trained alone, then cut without re-training (Table 1).

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

Each step trains the full network at the full resolution and nothing else.

Paper: Table 1.
Cost: 1.0x-224 569 M MACs.
"""

_base_ = ['mutual-mobilenet-v1_8xb128_in1k.py']

model = dict(mutual=dict(num_random=0, include_min=False))
