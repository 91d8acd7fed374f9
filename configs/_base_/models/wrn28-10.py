"""WRN-28-10 on images of 32 x 32, without dropout."""

model = dict(
    type='ImageClassifier',
    backbone=dict(type='mutualnet_mm.WideResNet', depth=28, widen_factor=10),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=640),
)
