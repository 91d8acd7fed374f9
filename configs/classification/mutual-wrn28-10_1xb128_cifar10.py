"""Boosting one network: WRN-28-10 on CIFAR-10, widths [0.9, 1.0] (Table 7).

    mutualnet train THIS_CONFIG

Paper: Table 7.
Cost: 1.0x-32 5.2 G, 0.9x-20 1.7 G MACs; a step 2.78 x the full network's.
"""

_base_ = [
    '../_base_/models/mutual_wrn28-10.py',
    '../_base_/datasets/cifar10_bs128.py',
    '../_base_/schedules/cifar_bs128_200e.py',
    '../_base_/mutual_runtime.py',
]

test_cfg = dict(subnets=['1.0x-32', '0.9x-32'])
