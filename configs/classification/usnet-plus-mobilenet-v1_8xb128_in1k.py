"""US-Net+: US-Net evaluated at resolutions that it has not been trained for.

The checkpoint comes from usnet-mobilenet-v1_8xb128_in1k.py.

    mutualnet test THIS_CONFIG CHECKPOINT

Paper: multi-scale augmentation.
Cost: 1.0x-224 569 M, 0.25x-224 41.0 M MACs; a step 1.97 x the full network's.
"""

_base_ = ['usnet-mobilenet-v1_8xb128_in1k.py']

test_cfg = dict(subnets=['1.0x-224', '0.7x-160', '0.25x-128'])
