r"""Charades with Slow-8x8, fine-tuned as the stock network.

Starts from the full network of mutual-slow_r50_8xb8-8x8_k400.py, by
default where that config saves it; the head is new.

    torchrun --nproc_per_node 4 -m mutualnet_mm train THIS_CONFIG \
        --cfg-options load_from=CHECKPOINT

Paper: Charades.
Cost: 1.0x-224-8 54.5 G MACs.
"""

_base_ = [
    'mmaction::_base_/models/slowonly_r50.py',
    '../_base_/datasets/charades_bs2_8x8.py',
    '../_base_/schedules/charades_bs8_57e.py',
    '../_base_/plain_runtime_video.py',
]

load_from = 'work_dirs/mutual-slow_r50_8xb8-8x8_k400/epoch_196.pth'
model = dict(
    backbone=dict(pretrained=None),
    cls_head=dict(
        num_classes=157,
        multi_class=True,
        loss_cls=dict(type='BCELossWithLogits'),
        # 'prob' is a softmax, which would make the classes compete.
        average_clips='score',
    ),
)
sync_bn = 'torch'  # two clips per GPU are too few for statistics
