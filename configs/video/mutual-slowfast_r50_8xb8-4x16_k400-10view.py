"""SlowFast-4x16 tested on 10 views: 10 clips, the 224 pixels in the centre.

The checkpoint comes from mutual-slowfast_r50_8xb8-4x16_k400.py.

    mutualnet test THIS_CONFIG CHECKPOINT

Paper: Kinetics-400.
Cost: 1.0x-224-4 27.6 G, 0.63x-142-2 7.6 G MACs; a step 1.99 x the full
network's.
"""

_base_ = ['mutual-slowfast_r50_8xb8-4x16_k400.py']

test_pipeline = _base_.test_pipeline
test_pipeline[2] = dict(type='CenterCrop', crop_size=224)
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
