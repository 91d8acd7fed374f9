"""US-Net+: US-Net evaluated at resolutions that it has not been trained for.

The checkpoint comes from usnet-mobilenet-v1_8xb128_in1k.py.

    mutualnet test THIS_CONFIG CHECKPOINT

Paper: multi-scale augmentation.
"""

_base_ = ['usnet-mobilenet-v1_8xb128_in1k.py']

test_cfg = dict(subnets=['1.0x-224', '0.7x-160', '0.25x-128'])
