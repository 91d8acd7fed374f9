"""Boosting one network: ResNet-50, widths [0.9, 1.0] (Table 7).

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

Paper: Table 7.
Cost: 1.0x-224 4.1 G, 0.9x-128 1.1 G MACs; a step 2.69 x the full network's.
"""

_base_ = ['mutual-resnet50_8xb64_in1k.py']

model = dict(mutual=dict(width_range=(0.9, 1.0)))
test_cfg = dict(subnets=['1.0x-224', '0.9x-224'])
