"""ImageNet pre-training of the slimmable VGG-16 BN, for detection.

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

Global pooling and one linear layer stand in for the stock classifier, which
flattens a 7 x 7 map and so runs at one resolution only.

Paper: pre-training for detection.
Cost: 1.0x-224 15.3 G, 0.25x-128 319 M MACs; a step 1.61 x the full network's.
"""

_base_ = ['mmpretrain::vgg/vgg16bn_8xb32_in1k.py']
custom_imports = dict(imports=['mutualnet_mm'], allow_failed_imports=False)

model = dict(
    type='mutualnet_mm.MutualLearning',
    wraps='ImageClassifier',
    mutual=dict(width_range=(0.25, 1.0), resolution=(224, 192, 160, 128)),
    backbone=dict(
        _delete_=True,
        type='mutualnet_mm.SlimmableVGG',
        depth=16,
        norm_cfg=dict(type='BN'),
    ),
    neck=dict(_delete_=True, type='GlobalAveragePooling'),
    head=dict(
        _delete_=True,
        type='LinearClsHead',
        num_classes=1000,
        in_channels=512,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        topk=(1, 5),
    ),
)
val_cfg = dict(type='mutualnet_mm.SubnetValLoop')
test_cfg = dict(
    type='mutualnet_mm.SubnetTestLoop',
    subnets=['1.0x-224', '0.75x-192', '0.5x-160', '0.25x-128'],
)
