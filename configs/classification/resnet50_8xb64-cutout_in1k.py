"""ResNet-50 on ImageNet with Cutout, a rival of Table 7.

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

Paper: Table 7.
Cost: 1.0x-224 4.1 G MACs.
"""

_base_ = ['resnet50_8xb64_in1k.py']

# Half the side, which may reach over the border; filled with the mean (BGR).
train_pipeline = _base_.train_pipeline
train_pipeline.insert(
    4, dict(type='Cutout', shape=112, pad_val=(104, 116, 124), prob=1.0)
)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
