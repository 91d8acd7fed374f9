"""US-Net + multi-scale: all networks of a step share a random resolution.

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

Paper: multi-scale augmentation.
Cost: 1.0x-224 569 M, 0.25x-128 13.6 M MACs; a step 1.27 x the full network's.
"""

_base_ = ['mutual-mobilenet-v1_8xb128_in1k.py']

model = dict(mutual=dict(resolution_mode='shared'))
