r"""AVA v2.1 with SlowFast-4x16, fine-tuned as the stock network (needs mmdet).

Starts from the full network of mutual-slowfast_r50_8xb8-4x16_k400.py, by
default where that config saves it; the heads are new.

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG \
        --cfg-options load_from=CHECKPOINT

See slow_r50_8xb4-8x8_ava21.py for what is taken from mmaction2.

Paper: AVA.
Cost: 1.0x-256-4 71.7 G MACs.
"""

_base_ = [
    'mmaction::detection/slowfast/'
    'slowfast_kinetics400-pretrained-r50_8xb16-4x16x1-20e_ava21-rgb.py'
]
custom_imports = dict(imports=['mutualnet_mm'], allow_failed_imports=False)

load_from = 'work_dirs/mutual-slowfast_r50_8xb8-4x16_k400/epoch_196.pth'
model = dict(init_cfg=None)
train_dataloader = dict(batch_size=4)
optim_wrapper = dict(optimizer=dict(lr=0.05))
auto_scale_lr = dict(base_batch_size=32)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3))
