# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What the training pipeline of a config takes for an image or a clip."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Dict, List

import cv2
import numpy as np
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope

from ..errors import UsageError
from .pictures import HEIGHT, WIDTH
from .subjects import open_config
from .turns import report, take_turns

_FRAMES, _CLIP_SIZE = 300, (256, 340)  # 10 seconds, as of Kinetics


def benchmark_loading(
    network: str = 'resnet50', pictures: int = 16, rounds: int = 5
) -> Dict[str, Any]:
    """Time the config's own training pipeline, on one thread.

    Files are made of scikit-learn's two photographs: JPEGs of 375 x 500
    pixels, or H.264 videos of 340 x 256 pixels and 300 frames in which one of
    them moves. They lie in the cache of the system: reading a disk is not in.

    Args:
        network (str): Classifier or recognizer of
            :data:`~.subjects.NETWORKS`, or a config.
        pictures (int): Images or clips of a run. Defaults to 16.
        rounds (int): Timed runs. Defaults to 5.

    Returns:
        dict: See :func:`~.turns.report`; ``settings`` tells milliseconds of
        an image or clip and the mean size of a file.

    Raises:
        UsageError: If the config is a detector's, or if the photographs or
            what writes videos are not installed.
    """
    cfg = open_config(network)
    if cfg.default_scope == 'mmdet':  # without boxes it would load less
        raise UsageError(
            f'network {network!r}: loading takes no detectors, whose boxes '
            'and masks the files lack; use a classifier or recognizer'
        )
    init_default_scope(cfg.default_scope)
    pipeline = Compose(cfg.train_dataloader.dataset.pipeline)
    is_video = cfg.default_scope == 'mmaction'
    with TemporaryDirectory() as folder:
        make = _videos if is_video else _jpegs
        files = make(Path(folder))
        items: List[Dict[str, Any]] = [
            dict(
                filename=str(file),
                img_path=str(file),
                label=0,
                gt_label=0,
                start_index=0,
                modality='RGB',
            )
            for i in range(pictures)
            for file in [files[i % len(files)]]
        ]

        def load() -> None:
            for item in items:
                pipeline(dict(item))

        times = take_turns({'load': load}, rounds)
        size = float(np.mean([file.stat().st_size for file in files]))
    each = 1000 * float(np.median(times['load'])) / pictures
    return report(
        'loading',
        times,
        [],
        network=network,
        pictures=pictures,
        milliseconds_of_one=each,
        bytes_of_a_file=size,
    )


def _photographs() -> List[np.ndarray]:
    try:
        from sklearn.datasets import load_sample_images
    except ImportError as error:
        raise UsageError(
            "the photographs are scikit-learn's: pip install scikit-learn"
        ) from error
    return [np.ascontiguousarray(i) for i in load_sample_images().images]


def _jpegs(folder: Path) -> List[Path]:
    files = []
    for i, photograph in enumerate(_photographs()):
        picture = cv2.resize(
            photograph, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA
        )
        files.append(folder / f'{i}.jpg')
        cv2.imwrite(str(files[-1]), picture[..., ::-1])
    return files


def _videos(folder: Path) -> List[Path]:
    try:
        import av
    except ImportError as error:
        raise UsageError(
            'videos are written by PyAV: pip install av'
        ) from error
    height, width = _CLIP_SIZE
    files = []
    for i, photograph in enumerate(_photographs()):
        files.append(folder / f'{i}.mp4')
        with av.open(str(files[-1]), 'w') as out:
            stream: Any = out.add_stream('libx264', rate=30)
            stream.height, stream.width = height, width
            stream.pix_fmt = 'yuv420p'
            room = photograph.shape[1] - width
            for n in range(_FRAMES):
                left = round(room * n / _FRAMES)
                frame = photograph[:height, left : left + width]
                made = av.VideoFrame.from_ndarray(
                    np.ascontiguousarray(frame), format='rgb24'
                )
                out.mux(stream.encode(made))
            out.mux(stream.encode(None))
    return files
