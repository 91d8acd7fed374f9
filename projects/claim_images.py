# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Small images in memory, augmented and handed over a batch at a time.

Reading and augmenting image by image takes longer than a step of a network of
a few million multiply-accumulates. So a sample of these data sets is a batch.
"""

from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

import cv2
import numpy as np
import torch
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, FUNCTIONS, MODELS, TRANSFORMS
from mmpretrain.structures import DataSample
from torch.utils.data import Dataset

from mutualnet_mm import UsageError
from mutualnet_mm.files import atomic_write

Split = Tuple[np.ndarray, np.ndarray]
"""Images (N, H, W, C) and labels (N,)."""


def read_cifar10(folder: Path, split: str) -> Split:
    """Read ``{train,test}/<class>/*.jpg``."""
    # Not before mutualnet_mm, which lets it be imported beside any PyTorch.
    from torchvision.datasets import ImageFolder

    data = ImageFolder(str(folder / split))
    images = np.stack([np.asarray(image) for image, _ in data])
    return images, np.asarray(data.targets)


def read_fashion_mnist(folder: Path, split: str) -> Split:
    """Read the four files as they are published, unpacked."""
    from torchvision.datasets.mnist import read_image_file, read_label_file

    name = 'train' if split == 'train' else 't10k'
    files = [
        folder / f'{name}-{kind}-ubyte'
        for kind in ('images-idx3', 'labels-idx1')
    ]
    for file in files:
        if not file.is_file():
            raise UsageError(f'{str(file)!r} does not exist: unpack it there')
    images = read_image_file(str(files[0])).numpy()[..., None]
    return images, read_label_file(str(files[1])).numpy()


READERS: Dict[str, Callable[[Path, str], Split]] = {
    'cifar10': read_cifar10,
    'fashion-mnist': read_fashion_mnist,
}


def prepare_images(name: str, data: Path, out: Path, size: int) -> Path:
    """Shrink all images of a data set once, by area.

    Args:
        name (str): Key of :data:`READERS`.
        data (Path): Folder of the data set.
        out (Path): Where the result goes.
        size (int): Side in pixels.

    Returns:
        Path: File of arrays for :class:`ImageBatches`.
    """
    file = out / f'{name}-{size}px.npz'
    if not file.is_file():
        arrays = {}
        for split in ('train', 'test'):
            images, labels = READERS[name](data, split)
            # The same order on every machine, no class after the other.
            order = np.random.default_rng(0).permutation(len(labels))
            small = [
                cv2.resize(
                    images[i], (size, size), interpolation=cv2.INTER_AREA
                )
                for i in order
            ]
            arrays[f'{split}_images'] = np.stack(small).reshape(
                len(labels), size, size, -1
            )
            arrays[f'{split}_labels'] = labels[order]
        with atomic_write(file) as draft:
            np.savez_compressed(draft, **arrays)
    return file


@DATASETS.register_module()
class ImageBatches(Dataset):
    """Some images of a file, handed over in batches.

    Args:
        file (str): As :func:`prepare_images` writes it.
        split (str): ``'train'`` or ``'test'``.
        part (tuple[int, int]): First image and the one after the last.
        pipeline (list[dict]): Transforms of whole batches, ``images``
            (B, C, H, W) and ``labels`` (B,).
    """

    def __init__(
        self,
        file: str,
        split: str,
        part: Tuple[int, int],
        pipeline: Sequence[dict],
    ) -> None:
        with np.load(file) as arrays:
            images = arrays[f'{split}_images'][slice(*part)]
            labels = arrays[f'{split}_labels'][slice(*part)]
        # Images have their channels last, tensors first.
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2)
        self.images = self.images.contiguous()
        self.labels = torch.from_numpy(labels).long()
        self.pipeline = Compose(list(pipeline))
        self.metainfo: Dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])

    def __getitems__(self, indices: List[int]) -> dict:
        """What PyTorch's loader asks for a batch, where there is this."""
        return self.pipeline(
            dict(images=self.images[indices], labels=self.labels[indices])
        )


@TRANSFORMS.register_module()
class CropAndFlip:
    """Pad each image of a batch by zeros, crop at random, mirror half.

    Args:
        padding (int): In pixels, on each side.
    """

    def __init__(self, padding: int) -> None:
        self.padding = padding

    def __call__(self, results: dict) -> dict:
        images, pad = results['images'], self.padding
        number, _, height, width = images.shape
        padded = torch.nn.functional.pad(images, (pad,) * 4)
        top, left = np.random.randint(0, 2 * pad + 1, (2, number))
        rows = torch.from_numpy(top)[:, None] + torch.arange(height)
        columns = torch.from_numpy(left)[:, None] + torch.arange(width)
        mirrored = torch.from_numpy(np.random.rand(number) < 0.5)
        columns[mirrored] = columns[mirrored].flip(1)
        batch = torch.arange(number)[:, None, None]
        cropped = padded.permute(0, 2, 3, 1)[
            batch, rows[:, :, None], columns[:, None, :]
        ]
        return dict(results, images=cropped.permute(0, 3, 1, 2))


@TRANSFORMS.register_module()
class ShrinkBatch:
    """Resize a batch as subnets see it: bilinear, antialiased.

    Args:
        size (int): Side in pixels.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, results: dict) -> dict:
        images = torch.nn.functional.interpolate(
            results['images'].float(),
            (self.size, self.size),
            mode='bilinear',
            antialias=True,
        )
        return dict(results, images=images)


@TRANSFORMS.register_module()
class AddTeacher:
    """Replace labels by their mean with what a teacher says of the images.

    Learning from them is, but for a constant, half the cross-entropy with the
    labels and half the Kullback-Leibler divergence from the teacher.

    Args:
        model (dict): Its config.
        weights (str): File of its ``state_dict``.
    """

    def __init__(self, model: dict, weights: str) -> None:
        self.teacher: Any = MODELS.build(model)
        self.teacher.load_state_dict(torch.load(weights))
        self.teacher.eval()

    @torch.no_grad()
    def __call__(self, results: dict) -> dict:
        batch = dict(inputs=results['images'])
        inputs = self.teacher.data_preprocessor(batch)['inputs']
        said = self.teacher(inputs).softmax(1)
        hard = torch.nn.functional.one_hot(results['labels'], said.shape[1])
        return dict(results, scores=(said + hard) / 2)


@TRANSFORMS.register_module()
class PackBatch:
    """Make of a batch what classifiers take."""

    def __call__(self, results: dict) -> dict:
        samples = [
            DataSample().set_gt_label(label) for label in results['labels']
        ]
        for sample, score in zip(samples, results.get('scores', ())):
            sample.set_gt_score(score)
        return dict(inputs=results['images'], data_samples=samples)


@FUNCTIONS.register_module()
def one_batch(batch: dict) -> dict:
    """Collate nothing: it is a batch already."""
    return batch
