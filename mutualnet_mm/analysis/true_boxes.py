# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Boxes of the objects in images, from COCO's or ImageNet's annotations."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Dict, List, Tuple, Union
from xml.etree import ElementTree

import numpy as np

from ..errors import ConfigError


class TrueBoxes:
    """Finds the boxes of an image by the name of its file.

    An image belongs to the annotation whose path its own ends with, without
    suffixes: ``data/val/n01440764/7.JPEG`` to ``7.xml`` and to
    ``n01440764/7.xml``.

    Args:
        path (str or Path): A ``.json`` file in COCO's format, or a folder,
            searched with those in it, of ``.xml`` files as PASCAL VOC and
            ImageNet have them, one for each image. Boxes of crowds do not
            count.

    Raises:
        ConfigError: If there is nothing like that, or it cannot be read.
    """

    def __init__(self, path: Union[str, Path]) -> None:
        path = Path(path)
        self.path = path
        if path.is_dir():
            boxes = _read_folder(path)
        elif path.is_file():
            boxes = _read_coco(path)
        else:
            raise ConfigError(
                f'annotations {str(path)!r} do not exist: give a .json file '
                "in COCO's format, or a folder of .xml files"
            )
        if not boxes:
            raise ConfigError(
                f'annotations {str(path)!r} hold no image: give a .json file '
                "in COCO's format, or a folder of .xml files"
            )
        self._boxes = boxes

    def of(self, image: Union[str, Path]) -> np.ndarray:
        """Return the boxes of an image.

        Args:
            image (str or Path): Path of the image.

        Returns:
            np.ndarray: (N, 4), left, top, right and bottom edge in pixels of
            the image.

        Raises:
            ConfigError: If it has no box.
        """
        parts = Path(image).with_suffix('').parts
        for start in range(len(parts)):
            found = self._boxes.get(parts[start:])
            if found:
                return np.array(found, float)
        raise ConfigError(
            f'image {str(image)!r} has no box in {str(self.path)!r}: give the '
            'annotations of the test set, or a test set of images with boxes'
        )


_Boxes = Dict[Tuple[str, ...], List[List[float]]]


def _read_coco(path: Path) -> _Boxes:
    try:
        content = json.loads(path.read_text())
        names = {
            image['id']: Path(image['file_name']).with_suffix('').parts
            for image in content['images']
        }
        boxes: _Boxes = defaultdict(list)
        for annotation in content['annotations']:
            if not annotation.get('iscrowd'):
                left, top, width, height = map(float, annotation['bbox'])
                edges = [left, top, left + width, top + height]
                boxes[names[annotation['image_id']]].append(edges)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ConfigError(
            f"annotations {str(path)!r} are not in COCO's format "
            f'({type(error).__name__}: {error}): they need images with id and '
            'file_name, and annotations with image_id and bbox'
        ) from error
    return dict(boxes)


def _read_folder(folder: Path) -> _Boxes:
    boxes: _Boxes = {}
    for file in sorted(folder.rglob('*.xml')):
        try:
            objects = ElementTree.parse(file).getroot().iter('bndbox')
            found = [
                [
                    float(box.findtext(edge) or '')
                    for edge in ('xmin', 'ymin', 'xmax', 'ymax')
                ]
                for box in objects
            ]
        except (ElementTree.ParseError, ValueError, OSError) as error:
            raise ConfigError(
                f'annotation {str(file)!r} cannot be read ({error}): it must '
                'be XML, each object with a bndbox of xmin, ymin, xmax, ymax'
            ) from error
        boxes[file.relative_to(folder).with_suffix('').parts] = found
    return boxes
