"""Three random subnets a step instead of two.

torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG
"""

_base_ = ['mutual-mobilenet-v1_8xb128_in1k.py']

model = dict(mutual=dict(num_random=3))
