# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The classes that a trained network tells apart."""

from typing import List, Optional, Sequence, Tuple, Union

from mmengine.config import Config
from mmengine.fileio import list_from_file
from torch import nn

from ..config.pipelines import stage_datasets
from ..errors import ConfigError, UsageError
from ..models.training_record import TrainingRecord
from .trained import TrainedNetwork


def class_names(cfg: Config, checkpoint: str) -> Optional[List[str]]:
    """Find the names of the classes, as the training or the config has them.

    Args:
        cfg (Config): Whose test set may name them.
        checkpoint (str): File whose metadata may name them.

    Returns:
        list[str] or None: In order; None where neither names any.

    Raises:
        ConfigError: If they are in a file that cannot be read.
    """
    names = TrainingRecord(checkpoint).dataset_meta.get('classes')
    for _, dataset in stage_datasets(cfg, ('test',)):
        names = names or (dataset.get('metainfo') or {}).get('classes')
    if isinstance(names, str):  # a file of one name in each line
        try:
            names = list_from_file(names)
        except OSError as error:
            raise ConfigError(
                f'metainfo.classes {names!r} cannot be read ({error}): name '
                'a file of one class in each line, or list the names'
            ) from error
    return None if names is None else [str(name) for name in names]


def find_class(
    text: Union[str, int], names: Optional[Sequence[str]], number: int
) -> int:
    """Return the number of a class.

    Args:
        text (str or int): Its name, or its number, from 0.
        names (Sequence[str], optional): Names of all classes.
        number (int): How many there are.

    Raises:
        UsageError: If there is no such class.
    """
    if names is not None and str(text) in names:
        return list(names).index(str(text))
    if str(text).isdecimal() and int(text) < number:
        return int(text)
    numbers = [str(i) for i in range(number)]  # that digits are named, too
    own = names and list(names) != numbers
    known = f'{names[0]!r} to {names[-1]!r}, or ' if names and own else ''
    raise UsageError(
        f'there is no class {text!r}: give {known}a number from 0 to '
        f'{number - 1}'
    )


def number_of_classes(model: nn.Module) -> int:
    """Return how many classes a classifier or detector tells apart.

    Args:
        model (nn.Module): With heads that name it, as stock ones do; one of
            proposals knows a single class.
    """
    numbers = (getattr(m, 'num_classes', 0) for m in model.modules())
    return max(number for number in numbers if isinstance(number, int))


def chosen_class(
    network: TrainedNetwork, checkpoint: str, text: Optional[str]
) -> Tuple[Optional[List[str]], Optional[int]]:
    """Find the names of a network's classes, and the number of one.

    Args:
        network (TrainedNetwork): Of ``checkpoint``.
        checkpoint (str): As for :func:`class_names`.
        text (str, optional): As for :func:`find_class`; None for no class.

    Returns:
        tuple: Names, None where there are none or not as many as classes,
        which then are another data set's; number or None.
    """
    names = class_names(network.cfg, checkpoint)
    number = number_of_classes(network.model)
    if names is not None and len(names) != number:
        names = None
    if text is None:
        return names, None
    return names, find_class(text, names, number)
