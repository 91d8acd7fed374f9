"""ImageNet as the published code augments it for ResNet-50.

That code also shifts colours along their principal components, but scaled for
pixels in [0, 1] while they are in [0, 255]: it changes nothing that can be
seen and is left out.
"""

_base_ = ['mmpretrain::_base_/datasets/imagenet_bs64_pil_resize.py']

train_pipeline = _base_.train_pipeline
train_pipeline.insert(
    2, dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4)
)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
