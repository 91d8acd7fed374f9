"""RetinaNet by mutual learning: a stock config and the lines that change.

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG

Nothing but the model, its batch norms and the loops differs from mmdet's
config; the stock pipeline's 1333 x 800 is the full resolution.

Not in the paper.
Cost: 1.0x-800 85.6 G, 0.25x-320 2.7 G MACs; a step 1.66 x the full network's.
"""

_base_ = ['mmdet::retinanet/retinanet_r50_fpn_2x_coco.py']
custom_imports = dict(imports=['mutualnet_mm'], allow_failed_imports=False)

model = dict(
    type='mutualnet_mm.MutualLearning',
    wraps='RetinaNet',
    mutual=dict(width_range=(0.25, 1.0), resolution=(800, 640, 480, 320)),
    backbone=dict(
        type='mutualnet_mm.Slimmable',
        wraps='ResNet',
        norm_eval=False,
        frozen_stages=-1,
    ),
)
sync_bn = 'torch'  # two images per GPU are few for batch norms
val_cfg = dict(type='mutualnet_mm.SubnetValLoop')
test_cfg = dict(
    type='mutualnet_mm.SubnetTestLoop',
    subnets=['1.0x-800', '0.75x-640', '0.5x-480', '0.25x-320'],
)
