"""Kinetics-400, clips of 16 frames, every fifth of 30 a second; 16 a GPU."""

_base_ = ['k400_bs8_8x8.py']

train_pipeline = _base_.train_pipeline
val_pipeline = _base_.val_pipeline
test_pipeline = _base_.test_pipeline
for pipeline in (train_pipeline, val_pipeline, test_pipeline):
    pipeline[0].transforms[1].update(
        clip_len=16, frame_interval=5, target_fps=30
    )
del pipeline
train_dataloader = dict(batch_size=16, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=16, dataset=dict(pipeline=val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
