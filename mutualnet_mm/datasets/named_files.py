# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The file that a data set could not read or prepare, in one line."""

import functools
from typing import Any, Callable, Optional

import cv2
from mmengine.dataset import Compose
from torch.utils.data import DataLoader

from ..errors import UnreadableError, first_line
from .read_clip import video_reason


class NamingCompose(Compose):
    """A stock pipeline that names the file where decoding or resizing fails.

    Errors of OpenCV, Pillow, PyAV and decord do not say which of a million
    files it was. Others, such as of a missing key, are left alone.
    """

    def __call__(self, data: dict) -> Optional[dict]:
        """Run all steps.

        Raises:
            UnreadableError: Names the file.
        """
        known = data if isinstance(data, dict) else {}
        is_image = 'img_path' in known
        file = known.get('img_path', known.get('filename'))
        try:
            return super().__call__(data)
        except Exception as error:
            reason = _reason(error) if is_image else video_reason(error)
            if file is None or reason is None:
                raise
            what = 'image' if is_image else 'clip'
            raise UnreadableError(
                f'{what} {str(file)!r} cannot be read or prepared ({reason}): '
                'replace the file, or take it out of the data set'
            ) from error


def _reason(error: Exception) -> Optional[str]:
    """Say what a file is lacking; None if another thing is wrong."""
    if isinstance(error, cv2.error):
        if error.func.startswith('imdecode'):
            return 'it is empty'
        return f'OpenCV, {error.func}: {error.err}'
    if isinstance(error, AssertionError):  # of the stock loading step
        broken = 'failed to load image' in str(error)
        return 'it is not an image, or a broken one' if broken else None
    if not isinstance(error, OSError):
        return None
    return getattr(error, 'strerror', None) or first_line(error)


def name_files(dataset: Any) -> None:
    """Let a data set, and those inside of it, name their broken files.

    Args:
        dataset: Built, a wrapper or not. Its pipeline changes its class,
            nothing else does; one of another class than ``Compose`` is left
            alone.
    """
    attributes = getattr(dataset, '__dict__', {})
    pipeline = attributes.get('pipeline')
    if type(pipeline) is Compose:
        pipeline.__class__ = NamingCompose
    inner = attributes.get('datasets')
    for part in inner if isinstance(inner, (list, tuple)) else ():
        name_files(part)
    if 'dataset' in attributes:
        name_files(attributes['dataset'])


def naming_loaders(build: Callable[..., DataLoader]) -> Callable:
    """Wrap a function that builds data loaders: their data sets name files.

    Args:
        build (Callable): Such as ``runner.build_dataloader``.
    """

    @functools.wraps(build)
    def build_named(*args: Any, **kwargs: Any) -> DataLoader:
        loader = build(*args, **kwargs)
        name_files(getattr(loader, 'dataset', None))
        return loader

    return build_named
