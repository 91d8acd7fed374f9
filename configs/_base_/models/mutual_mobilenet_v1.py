"""MobileNetV1, widths [0.25, 1.0] x resolutions {224, 192, 160, 128}."""

model = dict(
    type='mutualnet_mm.MutualLearning',
    wraps='ImageClassifier',
    mutual=dict(
        width_range=(0.25, 1.0), resolution=(224, 192, 160, 128), num_random=2
    ),
    backbone=dict(type='mutualnet_mm.SlimmableMobileNetV1'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead', num_classes=1000, in_channels=1024, topk=(1, 5)
    ),
)
