# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The command line that our tools share."""

import argparse
import os
import sys
import warnings
from contextlib import contextmanager
from typing import Any, Callable, Iterator, Optional

from mmengine.config import Config, DictAction
from mmengine.dist import get_rank

from .config import augment_tests, draw_predictions, options
from .config.stock_errors import named_stock_errors
from .devices import check_device
from .errors import UsageError, first_line
from .slimmable.ranks import is_lost_connection, world_size


def tool_parser(description: str) -> argparse.ArgumentParser:
    """Make the parser of a tool, without arguments.

    Args:
        description (str): What the tool does, its docstring. ``--help`` shows
            the first line above the arguments and the paragraph that follows,
            if there is one, below them.
    """
    first, _, rest = description.partition('\n\n')
    below = ' '.join(rest.split('\n\n')[0].split())
    return argparse.ArgumentParser(
        description=first.strip(), epilog=below or None
    )


def config_parser(description: str) -> argparse.ArgumentParser:
    """:func:`tool_parser` with the arguments of every tool for a config.

    Args:
        description (str): As for :func:`tool_parser`.
    """
    parser = tool_parser(description)
    parser.add_argument(
        'config',
        help='config file, or the name of one in a package, such as '
        'mutualnet_mm::FOLDER/NAME.py',
    )
    add_cfg_options(parser)
    return parser


def runner_parser(description: str) -> argparse.ArgumentParser:
    """:func:`config_parser` with what training and testing take besides.

    Args:
        description (str): As for :func:`tool_parser`.
    """
    parser = config_parser(description)
    parser.add_argument('--work-dir', help='where results and logs go')
    parser.add_argument(
        '--launcher',
        choices=['auto', 'none', 'pytorch', 'slurm', 'mpi'],
        default='auto',
        help='job launcher; the default finds out',
    )
    parser.add_argument(
        *('--local_rank', '--local-rank'),
        type=int,
        action=_LocalRank,
        help=argparse.SUPPRESS,
    )
    parser.add_argument(
        '--no-pin-memory',
        action='store_true',
        help='no pinned memory in data loaders',
    )
    return parser


class _LocalRank(argparse.Action):
    """Torch's launcher passes it, torchrun sets the variable instead."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: Any = None,
    ) -> None:
        os.environ.setdefault('LOCAL_RANK', str(values))


def training_parser(description: str) -> argparse.ArgumentParser:
    """:func:`runner_parser` with what the stock tools for training take.

    Args:
        description (str): As for :func:`tool_parser`.
    """
    parser = runner_parser(description)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from a checkpoint, by default the last of the work dir',
    )
    parser.add_argument(
        '--amp', action='store_true', help='automatic mixed precision (GPU)'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate from auto_scale_lr's batch size",
    )
    parser.add_argument(
        '--no-validate', action='store_true', help='train without validation'
    )
    parser.add_argument(
        '--seed', type=int, help='of weights and data; subnets: mutual.seed'
    )
    parser.add_argument(
        '--diff-rank-seed',
        action='store_true',
        help='another seed for each process',
    )
    parser.add_argument(
        '--deterministic',
        action='store_true',
        help='only algorithms that repeat their results',
    )
    parser.add_argument(
        '--no-persistent-workers',
        action='store_true',
        help='new data loading processes for every epoch',
    )
    return parser


def set_training(cfg: Config, args: argparse.Namespace) -> None:
    """Set in a config what :func:`training_parser` has read.

    Args:
        cfg (Config): Changed in place.
        args (Namespace): Of the command line.

    Raises:
        ConfigError: If the config cannot be trained so.
    """
    if args.resume is not None:
        options.resume_training(cfg, args.resume)
    if args.amp:
        options.use_mixed_precision(cfg)
    if args.auto_scale_lr:
        options.scale_learning_rate(cfg)
    if args.no_validate:
        options.skip_validation(cfg)
    options.set_randomness(
        cfg, args.seed, args.diff_rank_seed, args.deterministic
    )
    options.set_loaders(
        cfg,
        pin_memory=not args.no_pin_memory,
        persistent_workers=not args.no_persistent_workers,
    )


def testing_parser(description: str) -> argparse.ArgumentParser:
    """:func:`runner_parser` with what the stock tools for testing take.

    Args:
        description (str): As for :func:`tool_parser`.
    """
    parser = runner_parser(description)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--subnet',
        nargs='+',
        metavar='SUBNET',
        help="such as 1.0x-600 0.25x-240; default: test_cfg's",
    )
    parser.add_argument(
        *('--out', '--dump'),
        metavar='FILE',
        help='pickle file of the predictions, such as found.pkl; those of '
        'each further subnet go into one beside it (found.0.25x-240.pkl)',
    )
    parser.add_argument(
        '--out-item',
        choices=['pred', 'metrics'],
        help='what to write: predictions (default), or the metrics of all '
        'subnets in one file (.json, .yaml, .pkl)',
    )
    parser.add_argument(
        '--show-dir',
        metavar='DIR',
        help='draw the predictions of each subnet into DIR/SUBNET',
    )
    parser.add_argument(
        '--show', action='store_true', help='show the pictures in windows'
    )
    parser.add_argument(
        '--interval',
        type=count,
        metavar='N',
        help='draw every N-th sample (mmpretrain), default: all',
    )
    parser.add_argument(
        '--wait-time',
        type=float,
        metavar='SECONDS',
        help='how long a window stays, default: 2',
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help="test-time augmentation, by the config's tta_model and "
        'tta_pipeline, default: mirror images',
    )
    parser.add_argument(
        '--amp', action='store_true', help='test in mixed precision'
    )
    return parser


def set_testing(cfg: Config, args: argparse.Namespace) -> None:
    """Set in a config what :func:`testing_parser` has read.

    Args:
        cfg (Config): With a ``test_cfg``; changed in place.
        args (Namespace): Of the command line.

    Raises:
        UsageError: If the config cannot be tested so, or if an option says
            how something is drawn that is not.
    """
    cfg.load_from = args.checkpoint
    if args.amp:
        cfg.test_cfg.fp16 = True
    if args.wait_time is not None and not args.show:
        raise UsageError(
            f'--wait-time {args.wait_time}: no window is shown, add --show'
        )
    if args.show or args.show_dir is not None:
        wait_time = 2.0 if args.wait_time is None else args.wait_time
        draw_predictions(
            cfg, args.show_dir, args.show, args.interval, wait_time
        )
    elif args.interval is not None:
        raise UsageError(
            f'--interval {args.interval}: nothing is drawn, add --show-dir '
            'or --show'
        )
    if args.tta:
        augment_tests(cfg)
    options.set_loaders(cfg, ['test'], pin_memory=not args.no_pin_memory)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``, which is checked before anything else is done."""
    parser.add_argument(
        '--device', type=_device, default='cpu', help='default: %(default)s'
    )


def _device(text: str) -> str:
    with one_line_errors():
        check_device(text)
    return text


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``, a dict, or None where it is not given."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        metavar='KEY=VALUE',
        help='override settings of the config',
    )


class ConfigOptions(DictAction):
    """The stock action, with one line for what ends in a traceback there."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: Any = None,
    ) -> None:
        """Add each ``KEY=VALUE`` to the dict."""
        for value in values:
            try:
                super().__call__(parser, namespace, [value], option_string)
            except (ValueError, AssertionError, RecursionError) as error:
                raise argparse.ArgumentError(
                    self, f'{value!r}: write KEY=VALUE, brackets in pairs'
                ) from error


def add_space(parser: argparse.ArgumentParser) -> None:
    """Add ``--width``, ``--resolution``, ``--frames``: lists, or None."""
    for name, kind, example, default in (
        (
            'width',
            float,
            '0.25,1.0',
            "least and largest, those of the paper's networks of this kind",
        ),
        ('resolution', int, '800,640,480,320', "the pipeline's and parts"),
        ('frames', int, '8,5,3', "the pipeline's and parts; of videos"),
    ):
        parser.add_argument(
            f'--{name}',
            type=_list_of(kind, example, 2 if name == 'width' else None),
            metavar=example,
            help=f'default: {default}',
        )


def _list_of(
    kind: type, example: str, number: Optional[int] = None
) -> Callable[[str], list]:
    def parse(text: str) -> list:
        try:
            found = [kind(item) for item in text.split(',')]
        except ValueError:
            found = []
        if not found or len(found) != (number or len(found)):
            raise argparse.ArgumentTypeError(
                f'{text!r}: write {number or "some"} numbers with commas, as '
                f'in {example}'
            )
        return found

    return parse


def add_image_shape(parser: argparse.ArgumentParser, video: str) -> None:
    """Add ``--image-shape``, two numbers, or None where it is not given.

    Args:
        parser (ArgumentParser): Parser of a tool for a config.
        video (str): What it stands for if the config is one for videos, and
            the default there.
    """
    parser.add_argument(
        '--image-shape',
        nargs=2,
        type=_pixels,
        metavar=('H', 'W'),
        help='original image, which the test pipeline resizes, '
        f'default: 480 640; {video}',
    )


def _pixels(text: str) -> int:
    return count(text, 'pixels')


def count(text: str, what: str = 'a whole number') -> int:
    """Read a number from 1 of something, as ``type`` of an argument."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r}: use {what}, from 1')
    return int(text)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End a tool in one line where the user can put something right.

    Of several processes it says which one it was, and those that wait for it
    then end in one line, too. Anything else is a defect and keeps its
    traceback.
    """
    # MMEngine's, at each config that inherits one of a package.
    warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
    try:
        with named_stock_errors():
            yield
    except (UsageError, FileNotFoundError, ModuleNotFoundError) as error:
        # A process that loads data puts its traceback into the message.
        _, name, message = str(error).rpartition(f'{type(error).__name__}: ')
        is_traceback = name and 'Traceback (most recent call' in str(error)
        text = message.strip() if is_traceback else error
        sys.exit(f'error{_of_rank()}: {text}')
    except RuntimeError as error:
        if not is_lost_connection(error):
            raise
        sys.exit(
            f'error{_of_rank()}: another process has stopped, see what it '
            f'says ({first_line(error)})'
        )


def _of_rank() -> str:
    number = world_size()
    return f' (rank {get_rank()} of {number})' if number > 1 else ''
