"""I-Net + multi-scale augmentation: one width, a resolution drawn each step.

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

Paper: multi-scale augmentation.
Cost: 1.0x-224 569 M MACs.
"""

_base_ = ['mutual-mobilenet-v1_8xb128_in1k.py']

model = dict(
    mutual=dict(width_range=None, widths=(1.0,), resolution_mode='shared')
)
test_cfg = dict(subnets=['1.0x-224', '1.0x-192', '1.0x-160', '1.0x-128'])
