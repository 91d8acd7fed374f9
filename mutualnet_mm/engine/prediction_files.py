# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Files that metrics write predictions to, one for each subnet."""

from pathlib import Path
from typing import Any

from mmengine.evaluator import Evaluator


def writes_at_once(metric: Any) -> bool:
    """Whether predictions go to files of fixed names before evaluation."""
    folders = ('seg_out_dir', 'output_dir')  # panoptic, Cityscapes, semantic
    return any(getattr(metric, name, None) for name in folders)


class separate_files:
    """Give a subnet's dumped predictions file names of their own."""

    def __init__(self, evaluator: Evaluator, suffix: str) -> None:
        self.suffix = suffix
        self.metrics = evaluator.metrics
        self.before: list = []

    def __enter__(self) -> None:
        for metric in self.metrics:
            for name in ('outfile_prefix', 'out_file_path'):
                path = getattr(metric, name, None)
                if path and self.suffix:
                    self.before.append((metric, name, path))
                    setattr(metric, name, self._named(str(path)))

    def __exit__(self, *args: Any) -> None:
        for metric, name, path in self.before:
            setattr(metric, name, path)

    def _named(self, path: str) -> str:
        extension = Path(path).suffix
        if extension in ('.pkl', '.pickle', '.json'):
            return f'{path[: -len(extension)]}{self.suffix}{extension}'
        return f'{path}{self.suffix}'
