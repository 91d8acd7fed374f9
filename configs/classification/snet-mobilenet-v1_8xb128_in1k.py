"""S-Net: four fixed widths, all trained on the labels in every step.

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

Paper: S-Net, a baseline.
Cost: 1.0x-224 569 M, 0.25x-224 41.0 M MACs; a step 1.91 x the full network's.
"""

_base_ = ['mutual-mobilenet-v1_8xb128_in1k.py']

model = dict(
    mutual=dict(
        width_range=None,
        widths=(1.0, 0.75, 0.5, 0.25),
        resolution=(224,),
        supervision='label',
    )
)
test_cfg = dict(subnets=['1.0x-224', '0.75x-224', '0.5x-224', '0.25x-224'])
