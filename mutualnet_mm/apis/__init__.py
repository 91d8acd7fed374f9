# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What tools and other projects call."""

from .arguments import config_parser
from .config import load_config, one_line_errors
from .macs import count_macs

__all__ = ['config_parser', 'count_macs', 'load_config', 'one_line_errors']
