"""A small experiment for a CPU: objects cut out of COCO's images.

    mutualnet train THIS_CONFIG

The classes are COCO's 12 supercategories. projects/single_objects.py makes the
crops.

Not in the paper: crops of COCO, here.
Cost: 1.0x-96 34.3 M, 0.25x-48 1.4 M MACs; a step 1.76 x the full network's.
"""

_base_ = ['mutual-resnet18-thin_1xb32_single-digits.py']

epochs = 40
classes = (
    *('accessory', 'animal', 'appliance', 'electronic', 'food', 'furniture'),
    *('indoor', 'kitchen', 'outdoor', 'person', 'sports', 'vehicle'),
)
model = dict(data_preprocessor=dict(num_classes=12), head=dict(num_classes=12))
data = dict(data_root='data/object_crops', metainfo=dict(classes=classes))
flip = dict(type='RandomFlip', prob=0.5, direction='horizontal')
train_pipeline = [*_base_.train_pipeline[:-1], flip, dict(type='PackInputs')]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, **data))
val_dataloader = dict(dataset=data)
test_dataloader = val_dataloader
param_scheduler = dict(T_max=epochs, end=epochs)
train_cfg = dict(max_epochs=epochs, val_interval=epochs)
