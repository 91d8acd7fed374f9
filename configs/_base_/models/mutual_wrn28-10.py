"""WRN-28-10, widths [0.9, 1.0] x resolutions {32, 28, 24, 20}."""

_base_ = ['wrn28-10.py']

model = dict(
    type='mutualnet_mm.MutualLearning',
    wraps='ImageClassifier',
    mutual=dict(
        width_range=(0.9, 1.0), resolution=(32, 28, 24, 20), num_random=2
    ),
    backbone=dict(type='mutualnet_mm.SlimmableWideResNet'),
)
