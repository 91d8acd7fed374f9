"""Charades, 157 actions, many at a time; 2 clips of 8 frames on each GPU.

mutualnet charades makes both lists.
"""

_base_ = ['k400_bs8_8x8.py']

data = dict(
    data_prefix=dict(video='data/charades/Charades_v1_480'),
    multi_class=True,
    num_classes=157,
)
train_dataloader = dict(
    batch_size=2,
    dataset=dict(ann_file='data/charades/train.txt', **data),
)
val_dataloader = dict(
    batch_size=2,
    dataset=dict(ann_file='data/charades/test.txt', **data),
)
test_dataloader = dict(dataset=dict(ann_file='data/charades/test.txt', **data))
val_evaluator = dict(metric_list='mean_average_precision')
test_evaluator = val_evaluator
