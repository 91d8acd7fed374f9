"""ImageNet as the published code augments it for MobileNets."""

_base_ = ['imagenet_bs64_jitter.py']

# Small networks need weaker augmentation: at least a quarter of the image.
train_pipeline = _base_.train_pipeline
train_pipeline[1].crop_ratio_range = (0.25, 1.0)
train_dataloader = dict(batch_size=128, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=128)
test_dataloader = val_dataloader
