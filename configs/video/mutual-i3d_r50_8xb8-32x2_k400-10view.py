"""I3D tested on 10 views: 10 clips, the 224 pixels in the centre.

The checkpoint comes from mutual-i3d_r50_8xb8-32x2_k400.py.

    mutualnet test THIS_CONFIG CHECKPOINT

Not in the paper.
Cost: 1.0x-224-32 33.1 G, 0.63x-142-12 2.0 G MACs; a step 1.62 x the full
network's.
"""

_base_ = ['mutual-i3d_r50_8xb8-32x2_k400.py']

test_pipeline = _base_.test_pipeline
test_pipeline[2] = dict(type='CenterCrop', crop_size=224)
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
