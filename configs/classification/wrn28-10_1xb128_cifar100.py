"""WRN-28-10 on CIFAR-100, trained as usual: Table 7's baseline.

    mutualnet train THIS_CONFIG

Paper: Table 7.
Cost: 1.0x-32 5.2 G MACs.
"""

_base_ = [
    '../_base_/models/wrn28-10.py',
    '../_base_/datasets/cifar100_bs128.py',
    '../_base_/schedules/cifar_bs128_200e.py',
    '../_base_/plain_runtime.py',
]

model = dict(head=dict(num_classes=100))
