r"""MIT Indoor-67 for networks trained on ImageNet: 5360 + 1340 images.

``data/indoor67`` holds the official ``Images`` folder and the two lists of
the official split, which name no labels. Number the classes by name (bash):

    cd data/indoor67
    cut -d/ -f1 TrainImages.txt | LC_ALL=C sort -u > classes.txt
    for split in Train Test; do
      tr -d '\r' < ${split}Images.txt | awk -F/ '
        NR == FNR {label[$1] = NR - 1; next} {print $0, label[$1]}
      ' classes.txt - > $split.txt
    done
"""

_base_ = ['mmpretrain::_base_/datasets/imagenet_bs64_pil_resize.py']

data_preprocessor = dict(num_classes=67)
train_dataloader = dict(
    batch_size=256,
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root='data/indoor67',
        data_prefix='Images',
        ann_file='Train.txt',
        pipeline=_base_.train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=256,
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root='data/indoor67',
        data_prefix='Images',
        ann_file='Test.txt',
        pipeline=_base_.test_pipeline,
    ),
)
test_dataloader = val_dataloader
