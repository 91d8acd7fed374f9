# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What a config says, checked before any work."""

from .checks import check_clips, check_colours, check_files
from .load import load_config
from .pipelines import STAGES, Step, pipeline_steps, stage_datasets
from .runner import check_training, make_runner
from .sizes import check_masks, check_multi_resolution, check_resolution
from .views import TestViews, find_views, frame_stride, takes_clips

__all__ = [
    'STAGES',
    'Step',
    'TestViews',
    'check_clips',
    'check_colours',
    'check_files',
    'check_masks',
    'check_multi_resolution',
    'check_resolution',
    'check_training',
    'find_views',
    'frame_stride',
    'load_config',
    'make_runner',
    'pipeline_steps',
    'stage_datasets',
    'takes_clips',
]
