"""Food-101 for networks trained on ImageNet: 75,750 + 25,250 images.

``data/food-101`` is what the official archive holds (``images``, ``meta``).
"""

_base_ = ['mmpretrain::_base_/datasets/imagenet_bs64_pil_resize.py']

data_preprocessor = dict(num_classes=101)
train_dataloader = dict(
    batch_size=256,
    dataset=dict(type='Food101', data_root='data/food-101'),
)
val_dataloader = dict(
    batch_size=256,
    dataset=dict(type='Food101', data_root='data/food-101', split='test'),
)
test_dataloader = val_dataloader
