# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Generated data of classifiers: folders of images."""

from pathlib import Path

from ..config.pipelines import Step
from .made_files import (
    NUMBER,
    SIDES,
    Leaf,
    draw_picture,
    write_image,
    write_keyed,
)


def class_folders(dataset: Leaf, root: Path, labels: int) -> Leaf:
    """Images in a folder for each class."""
    kind = Step('', dataset).kind
    tiny = kind in ('CIFAR10', 'CIFAR100', 'MNIST', 'FashionMNIST')
    sides = (32, 32) if tiny else SIDES
    classes = min(labels, 2)
    folder = root / f'{"tiny" if tiny else "classes"}-{classes}'
    for number in range(NUMBER):
        path = folder / str(number % classes) / f'{number}.jpg'
        write_image(path, draw_picture(number, sides)[0])
    made: Leaf = dict(
        type='mmpretrain.CustomDataset', data_root=str(folder), data_prefix=''
    )
    if tiny:  # these come as arrays
        grey = 'MNIST' in kind
        load = dict(
            type='LoadImageFromFile',
            color_type='grayscale' if grey else 'color',
        )
        made['pipeline'] = [load, *(dataset.get('pipeline') or ())]
    return made


def several_labels(dataset: Leaf, root: Path, labels: int) -> Leaf:
    """Images of several classes each."""
    del dataset
    class_folders(dict(type='ImageNet'), root, 1)
    content = dict(
        metainfo=dict(classes=[str(i) for i in range(labels)]),
        data_list=[
            dict(img_path=f'0/{number}.jpg', gt_label=[*range(labels)])
            for number in range(NUMBER)
        ],
    )
    return dict(
        type='mmpretrain.MultiLabelDataset',
        data_root=str(root),
        data_prefix='classes-1',
        ann_file=write_keyed(root, 'labels', content, '.json'),
    )
