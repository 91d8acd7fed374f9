"""ResNet-50 on ImageNet with AutoAugment, a rival of Table 7.

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

Paper: Table 7.
Cost: 1.0x-224 4.1 G MACs.
"""

_base_ = ['resnet50_8xb64_in1k.py']

# In place of the colour jitter, after the flip.
train_pipeline = _base_.train_pipeline
train_pipeline[2:4] = [
    train_pipeline[3],
    dict(type='AutoAugment', policies='imagenet'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
