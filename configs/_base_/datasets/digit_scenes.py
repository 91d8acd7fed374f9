"""Handwritten digits on photographs.

mutualnet_mm.datasets.digit_scenes.make_digit_scenes('data/digit_scenes') makes
them in seconds; so does mutualnet quickstart, which goes on to train.

Pieces for ``_base_``: a config that inherits a stock one, which has data
loaders, cannot inherit others beside them.
"""

digits_root = 'data/digit_scenes/'
digits = dict(classes=tuple('0123456789'))
digits_train = dict(
    data_root=digits_root,
    ann_file='annotations/instances_train.json',
    data_prefix=dict(img='train/'),
    metainfo=digits,
)
digits_val = dict(
    data_root=digits_root,
    ann_file='annotations/instances_val.json',
    data_prefix=dict(img='val/'),
    metainfo=digits,
)
digits_evaluator = dict(
    ann_file=digits_root + 'annotations/instances_val.json'
)
digits_loader = dict(num_workers=0, persistent_workers=False, pin_memory=False)
digits_packed = dict(
    type='PackDetInputs',
    meta_keys=(
        'img_id',
        'img_path',
        'ori_shape',
        'img_shape',
        'scale_factor',
    ),
)
