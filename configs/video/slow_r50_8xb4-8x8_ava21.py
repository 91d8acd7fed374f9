r"""AVA v2.1 with Slow-8x8, fine-tuned as the stock network (needs mmdet).

Starts from the full network of mutual-slow_r50_8xb8-8x8_k400.py, by default
where that config saves it; the heads are new.

    torchrun --nproc_per_node 8 -m mutualnet_mm train THIS_CONFIG \
        --cfg-options load_from=CHECKPOINT

Warm-up, steps and epochs are mmaction2's, which has the paper's. mmaction2's
81 classes are the 80 of AVA and a background; the metric takes the 60 that
the label file lists, at an IoU of 0.5.

Paper: AVA.
Cost: 1.0x-256-8 114 G MACs.
"""

_base_ = [
    'mmaction::detection/slowonly/'
    'slowonly_kinetics400-pretrained-r50_8xb16-4x16x1-20e_ava21-rgb.py'
]
custom_imports = dict(imports=['mutualnet_mm'], allow_failed_imports=False)

load_from = 'work_dirs/mutual-slow_r50_8xb8-8x8_k400/epoch_196.pth'
model = dict(init_cfg=None)

train_pipeline = _base_.train_pipeline
val_pipeline = _base_.val_pipeline
train_pipeline[0].update(clip_len=8, frame_interval=8)
val_pipeline[0].update(clip_len=8, frame_interval=8)
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(lr=0.05))
auto_scale_lr = dict(base_batch_size=32)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3))
