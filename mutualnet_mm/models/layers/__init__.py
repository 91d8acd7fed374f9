# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Layers of OpenMMLab's projects that run at any width.

They are registered by name, so that none of the projects need be installed.
"""

from . import attention, convolutions, deformable, norms

__all__ = ['attention', 'convolutions', 'deformable', 'norms']
