# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Boxes of the objects in images, from COCO's or ImageNet's annotations."""

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, Dict, List, Tuple, Union
from xml.etree import ElementTree

import numpy as np

from ..errors import ConfigError


class TrueBoxes:
    """Finds the boxes of an image by the name of its file.

    An image belongs to the annotation whose path its own ends with, without
    suffixes: ``data/val/n01440764/7.JPEG`` to ``7.xml`` and to
    ``n01440764/7.xml``. Which of several classes is an image's own is not
    known here: the boxes of one image must be of one class.

    Args:
        path (str or Path): A ``.json`` file in COCO's format, or a folder,
            searched with those in it, of ``.xml`` files as PASCAL VOC and
            ImageNet have them, one for each image, whose pixels count from
            1. Boxes of crowds, those without area and those of images that
            are not listed do not count.

    Raises:
        ConfigError: If there is nothing like that, it cannot be read, or two
            of its images have the same name.
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
        self._owners: Dict[Tuple[str, ...], str] = {}

    def of(self, image: Union[str, Path]) -> np.ndarray:
        """Return the boxes of an image.

        Args:
            image (str or Path): Path of the image.

        Returns:
            np.ndarray: (N, 4), left, top, right and bottom edge in pixels of
            the image.

        Raises:
            ConfigError: If it has no box, boxes of several classes, or those
                of another image that was asked for before.
        """
        return np.array([edges for _, edges in self._find(image)], float)

    def class_of(self, image: Union[str, Path]) -> str:
        """Return the class of an image's boxes, as their file names it.

        Args:
            image (str or Path): Path of the image.

        Raises:
            ConfigError: As :meth:`of` does.
        """
        return str(self._find(image)[0][0])

    def _find(self, image: Union[str, Path]) -> List['_Box']:
        parts = Path(image).with_suffix('').parts
        for start in range(len(parts)):
            name = parts[start:]
            found = self._boxes.get(name)
            if found:
                owner = self._owners.setdefault(name, str(image))
                if owner != str(image):
                    raise ConfigError(
                        f'images {owner!r} and {str(image)!r} have the same '
                        f'boxes in {str(self.path)!r}, those of '
                        f'{"/".join(name)!r}: name the images there with '
                        'their folders'
                    )
                self._check_one_class(image, found)
                return found
        raise ConfigError(
            f'image {str(image)!r} has no box in {str(self.path)!r}: give the '
            'annotations of the test set, or a test set of images with boxes'
        )

    def _check_one_class(
        self, image: Union[str, Path], found: List['_Box']
    ) -> None:
        classes = sorted({str(name) for name, _ in found})
        if len(classes) > 1:
            raise ConfigError(
                f'image {str(image)!r} has boxes of the classes '
                f'{", ".join(classes)} in {str(self.path)!r}: leave only '
                'those of the class that it is labelled with'
            )


_Box = Tuple[Any, List[float]]  # its class, its edges
_Boxes = Dict[Tuple[str, ...], List[_Box]]


def _read_coco(path: Path) -> _Boxes:
    try:
        content = json.loads(path.read_text())
        names = {
            image['id']: Path(image['file_name']).with_suffix('').parts
            for image in content['images']
        }
        kinds = {c['id']: c['name'] for c in content.get('categories', ())}
        if len(names) < len(content['images']):
            raise ValueError('two images have the same id')
        boxes: _Boxes = defaultdict(list)
        for annotation in content['annotations']:
            left, top, width, height = map(float, annotation['bbox'])
            edges = [left, top, left + width, top + height]
            if not np.isfinite(edges).all():
                raise ValueError(f'bbox={annotation["bbox"]}')
            # As the stock data set: neither crowds nor boxes without area
            # nor those of images that are not listed.
            if (
                annotation.get('iscrowd')
                or min(width, height) <= 0
                or annotation['image_id'] not in names
            ):
                continue
            number = annotation.get('category_id')
            kind = kinds.get(number, number)
            boxes[names[annotation['image_id']]].append((kind, edges))
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ConfigError(
            f"annotations {str(path)!r} are not in COCO's format "
            f'({type(error).__name__}: {error}): they need images with id and '
            'file_name, and annotations with image_id and bbox'
        ) from error
    twice = [name for name, n in Counter(names.values()).items() if n > 1]
    if twice:
        raise ConfigError(
            f'annotations {str(path)!r} have two images that are named '
            f'{"/".join(twice[0])!r} without suffix: give each a name of its '
            'own'
        )
    return dict(boxes)


def _read_folder(folder: Path) -> _Boxes:
    boxes: _Boxes = {}
    for file in sorted(folder.rglob('*.xml')):
        try:
            found = [
                (item.findtext('name'), _edges(box))
                for item in ElementTree.parse(file).getroot().iter('object')
                for box in item.iter('bndbox')
            ]
        except (ElementTree.ParseError, ValueError, OSError) as error:
            raise ConfigError(
                f'annotation {str(file)!r} cannot be read ({error}): it must '
                'be XML, each object with a bndbox of xmin, ymin, xmax, ymax'
            ) from error
        boxes[file.relative_to(folder).with_suffix('').parts] = [
            (name, edges)
            for name, edges in found
            if edges[2] > edges[0] and edges[3] > edges[1]
        ]
    return boxes


def _edges(box: ElementTree.Element) -> List[float]:
    """Edges, whose last pixels are inside and whose first one is 1."""
    left, top, right, bottom = (
        float(box.findtext(edge) or '')
        for edge in ('xmin', 'ymin', 'xmax', 'ymax')
    )
    return [max(left - 1, 0.0), max(top - 1, 0.0), right, bottom]
