# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Reading clips when the list of videos contains broken files."""

import logging
import os
import re
import sys
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import (
    Any,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Set,
    Tuple,
    Type,
)

import numpy as np
from mmcv import VideoReader
from mmengine.dataset import Compose
from mmengine.dist import is_main_process
from mmengine.logging import print_log

from ..errors import UsageError
from ..registry import TRANSFORMS

_MAX_IN_A_ROW = 100  # unreadable clips: by then it is not bad luck
_MAX_LOST = 16  # frames of a clip, which is decord's own limit as well

_named: Set[str] = set()  # files that this process has named


class _Decoder(NamedTuple):
    """A library that decodes, and what broken files make it raise."""

    package: str
    own_error: str
    other_errors: Tuple[Type[Exception], ...]

    def reason(self, error: Exception) -> Optional[str]:
        """Say in one line why the file cannot be read; None if it can."""
        own = getattr(import_module(self.package), self.own_error)
        text = getattr(error, 'strerror', None) or str(error)
        # decord inserts times and lines of its source.
        text = ' '.join(re.sub(r'\[[\d:]+\] \S+:\d+: ', '', text).split())
        if isinstance(error, (own, OSError)):
            return text
        if isinstance(error, self.other_errors):
            name = type(error).__name__
            return f'{self.package} finds no video in it, {name}: {text}'
        return None


# By the prefix of the names of mmaction2's steps.
_DECODERS = dict(
    Decord=_Decoder(
        'decord', 'DECORDError', (RuntimeError, AssertionError, StopIteration)
    ),
    PyAV=_Decoder(
        'av', 'FFmpegError', (ValueError, IndexError, ZeroDivisionError)
    ),
    OpenCV=_Decoder('cv2', 'error', (ValueError, IndexError)),
)


def video_reason(error: Exception) -> Optional[str]:
    """Say why a video cannot be read, by an error of a decoder's package.

    Args:
        error (Exception): Raised by a stock pipeline.

    Returns:
        str or None: None if it is another error.
    """
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    # Compiled modules, as PyAV's, have no name here.
    names = {} if last is None else last.tb_frame.f_globals
    module = names.get('__name__') or ''
    for decoder in _DECODERS.values():
        if decoder.package in sys.modules:
            is_inside = module.partition('.')[0] == decoder.package
            others = decoder.other_errors if is_inside else ()
            reason = decoder._replace(other_errors=others).reason(error)
            if reason is not None:
                return reason
    return None


@TRANSFORMS.register_module()
class ReadClip:
    """Read a clip by stock steps; a file that cannot be read is named.

    The file may be empty, truncated, missing, not a video or without frames.
    In training, it is named in the log, once in each process, and ``None`` is
    returned, for which mmengine's data sets draw another sample. In testing,
    which is when one of the steps has ``test_mode=True``, it is an error,
    since nothing may be left out of a result silently. Other errors, such as
    a missing key, are not caught.

    Required keys: ``filename``, and those of ``transforms``.

    Args:
        transforms (list[dict]): Steps of mmaction2 that open the file, pick
            frames and decode them, with decord, PyAV or OpenCV.

    Raises:
        UsageError: If the decoder is not installed; on a call, if a clip
            cannot be read in testing, or 100 in a row in training.

    Example:
        >>> dict(
        ...     type='mutualnet_mm.ReadClip',
        ...     transforms=[
        ...         dict(type='DecordInit'),
        ...         dict(type='SampleFrames', clip_len=8, frame_interval=8),
        ...         dict(type='DecordDecode')])
    """

    def __init__(self, transforms: List[dict]) -> None:
        self.steps = Compose(transforms).transforms
        for step in self.steps:
            _check_installed(step)
            if (
                type(step).__name__ == 'DecordInit'
                and step.io_backend == 'disk'
            ):
                # The stock step has decord read from memory, where a
                # truncated AVI ends the process by a segmentation fault.
                step._get_video_reader = partial(
                    _open_with_decord, step.num_threads
                )
        self.test_mode = any(
            getattr(s, 'test_mode', False) for s in self.steps
        )
        self._in_a_row = 0

    def __call__(self, results: dict) -> Optional[dict]:
        """Return ``results`` with the clip; None if it cannot be read."""
        file = str(results['filename'])
        for step in self.steps:
            decoder = _DECODERS.get(_prefix(step))
            if decoder is None:
                results = step(results)
                continue
            try:
                results = self._run(step, results)
                if type(step).__name__.endswith('Init'):
                    _check_frames(results)
            except Exception as error:
                _close(results.get('video_reader'))
                reason = decoder.reason(error)
                if reason is None:
                    raise
                self._refuse(file, reason)
                return None
        self._in_a_row = 0
        return results

    def _run(self, step: Any, results: dict) -> dict:
        """Run a step; close the file after the one that decodes."""
        reader = results.get('video_reader')
        if type(step).__name__ == 'PyAVDecode' and step.mode == 'accurate':
            # Of a long video, what is picked of it is kept in memory.
            wanted = {int(i) for i in np.ravel(results['frame_inds'])}
            picked = _PickedFrames(reader, wanted)
            done = step(dict(results, video_reader=picked))
            if any(isinstance(image, _Unpicked) for image in done['imgs']):
                # It has fewer frames than it says, and others stand for the
                # missing ones: all of them, as the stock step does it.
                _close(reader)
                for first in self.steps:
                    if type(first).__name__ == 'PyAVInit':
                        results = first(results)
                reader = results['video_reader']
                done = step(results)
        else:
            done = step(results)
        if done.get('video_reader') is None:
            _close(reader)
        return done

    def _refuse(self, file: str, reason: str) -> None:
        """Warn about a clip, or raise where it cannot be left out."""
        found = f'clip {file!r} cannot be read ({reason})'
        if self.test_mode:
            raise UsageError(
                f'{found}: tests need every clip, replace the file or take '
                'its line out of the annotation list'
            )
        self._in_a_row += 1
        if self._in_a_row >= _MAX_IN_A_ROW:
            raise UsageError(
                f'{_MAX_IN_A_ROW} clips in a row could not be read, the last '
                f'one: {file!r} ({reason}); check data_root and data_prefix '
                'of the data set, and the files'
            )
        if file not in _named:
            _named.add(file)
            # Other ranks only show errors, and have files of their own.
            level = logging.WARNING if is_main_process() else logging.ERROR
            print_log(f'{found}: others take its place', 'current', level)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(transforms={self.steps})'


class _PositionedReader(VideoReader):
    """A class to swap in, so that the reader does not refer to itself.

    The garbage collector would close it else, and perhaps in a process that
    was forked since: OpenCV waits there for ever, for threads that only the
    first process has.
    """

    def _get_real_position(self) -> int:
        found: int = super()._get_real_position()
        if not 0 <= found < 2**31:
            raise OSError('its frames cannot be found')
        return found


class _Frames:
    """A reader for ``OpenCVDecode`` that gives up on a broken file.

    From a frame that cannot be decoded, the stock step goes back one by one,
    seeking each time; and if OpenCV does not know its position, mmcv's reader
    reads on from frame -9e15.
    """

    def __init__(self, reader: VideoReader) -> None:
        reader.__class__ = _PositionedReader
        self.reader = reader
        self.lost = 0

    def __getitem__(self, index: int) -> Any:
        frame = self.reader[index]
        if frame is None:
            self.lost += 1
            if self.lost > _MAX_LOST:
                raise OSError(f'{self.lost} of its frames cannot be decoded')
        return frame


class _PickedFrames:
    """A container for ``PyAVDecode`` that converts picked frames alone.

    The stock step makes an array of each frame up to the last one that is
    picked, and keeps them all: of five minutes in full HD, 50 gigabytes.
    """

    def __init__(self, container: Any, wanted: Set[int]) -> None:
        self.container = container
        self.wanted = wanted

    def __getattr__(self, name: str) -> Any:
        return getattr(self.container, name)

    def decode(self, **streams: int) -> Iterator[Any]:
        """Yield frames in order; the first one tells the size of all."""
        for i, frame in enumerate(self.container.decode(**streams)):
            yield frame if i == 0 or i in self.wanted else _UNPICKED


class _Unpicked:
    """Stands for a frame that nobody picked, and for its array."""

    def to_rgb(self) -> '_Unpicked':
        return self

    def to_ndarray(self) -> '_Unpicked':
        return self


_UNPICKED = _Unpicked()


def _close(reader: Any) -> None:
    """Close a container of PyAV; readers of others close themselves.

    It refers to itself, so that else the garbage collector closes it, and
    perhaps in a process that was forked since, where that may never end.
    """
    if hasattr(reader, 'close'):
        reader.close()


def _prefix(step: Any) -> str:
    """Name the decoder of a step: ``'PyAV'`` for ``PyAVInit``, else ``''``."""
    name = type(step).__name__
    return next(filter(name.startswith, _DECODERS), '')


def _check_installed(step: Any) -> None:
    decoder = _DECODERS.get(_prefix(step))
    if decoder is None or find_spec(decoder.package) is not None:
        return
    others = []
    for name, other in _DECODERS.items():
        if other is not decoder:
            there = find_spec(other.package) is not None
            how = 'installed' if there else f'pip install {other.package}'
            others.append(f'{name}Init and {name}Decode ({how})')
    raise UsageError(
        f'{type(step).__name__} needs {decoder.package}, which is missing: '
        f'pip install {decoder.package}, or use {" or ".join(others)}'
    )


def _open_with_decord(num_threads: int, file: str) -> Any:
    """Open a file by its path, named as the stock step would."""
    from decord import VideoReader

    if not os.path.splitext(file)[1]:
        file = f'{file}.mp4'
    with open(file, 'rb') as opened:  # decord does not say why it fails
        if not opened.read(1):
            raise OSError('it is empty')
    # An absolute path is never taken for a URL.
    return VideoReader(os.path.abspath(file), num_threads=num_threads)


def _check_frames(results: dict) -> None:
    if results['total_frames'] < 1:
        # Some containers do not say, and frame 0 would stand for all frames.
        raise OSError('it has no frames, or does not say how many')
    if hasattr(results['video_reader'], 'vcap'):  # mmcv's
        results['video_reader'] = _Frames(results['video_reader'])
