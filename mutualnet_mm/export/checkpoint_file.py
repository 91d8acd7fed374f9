# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""One subnet as an ordinary checkpoint, with the config that builds it."""

from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any, List, Optional, Tuple, Union

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from ..config.source import config_source
from ..deploy.adaptive_file import loaded_versions
from ..deploy.adaptive_model import AdaptiveModel
from ..errors import UsageError, as_usage_error
from ..files import atomic_write
from ..models import static_model
from ..models.checkpoints import load_strictly
from ..models.static import sizes_of
from ..slimmable.known import KnownChannels, known_channels
from ..slimmable.meta import materialize, weights_on_meta
from ..subnet import Subnet
from ..tensor_files import load_tensors, save_tensors
from .stock_config import inferencer_config, static_config, stock_config

# Settings of a model that say which subnet runs, and how it is resized.
_OF_SUBNET = ('subnet', 'mutual')
# Settings that a user may change after the export.
_FREE = ('train_cfg', 'test_cfg', 'init_cfg')


def save_static(
    net: AdaptiveModel,
    subnet: Union[str, Subnet],
    path: Union[str, Path],
    fuse_bn: bool = False,
) -> List[Path]:
    """Write the static form of a subnet: a small network of stock layers.

    The checkpoint has the layout of mmengine's, with the subnet's statistics
    in its ``state_dict``. The config tests it as the trained network was
    tested, with the stock loop.

    Args:
        net (AdaptiveModel): Network that has statistics of the subnet.
        subnet (str or Subnet): Such as ``'0.7x-160'``.
        path (str or Path): Checkpoint to write, ``.pth``; the config is
            written beside it as ``.py``.
        fuse_bn (bool): Fold batch norms into convolutions. Outputs then
            differ by rounding. Defaults to False.

    Returns:
        list[Path]: Checkpoint and config.

    Raises:
        UsageError: If the subnet is outside of the trained range, has no
            statistics or no static form, if the path does not end in
            ``.pth``, or if there is a file that is not an earlier export.
    """
    subnet = net.model.space.check(subnet)
    cfg = static_config(net.cfg, subnet, fuse_bn)
    return _save(net, _narrow(net, subnet, fuse_bn), cfg, subnet, path)


def save_stock(
    net: AdaptiveModel, subnet: Union[str, Subnet], path: Union[str, Path]
) -> List[Path]:
    """Write a subnet for the stock inferencers, which load weights only.

    The full network is written as the stock classes that it is made of, which
    do not need this package (our own networks aside). Any other subnet is
    written in its static form, which needs it: the inferencers import it as
    the config says.

    mmaction2's inferencer tests a stock 3D network on one clip, so the
    ``test_dataloader`` of a subnet's config samples one; use
    :func:`save_static` to test its accuracy on many.

    Args:
        net (AdaptiveModel): Network that has statistics of the subnet.
        subnet (str or Subnet): Such as ``'1.0x-224'``.
        path (str or Path): As for :func:`save_static`.

    Returns:
        list[Path]: Checkpoint and config.

    Raises:
        UsageError: As for :func:`save_static`.
    """
    model = net.model
    subnet = model.space.check(subnet)
    if (
        subnet == model.space.full == model.sampler.primary
        and subnet.width == model.slim_state.max_width
    ):
        cfg = stock_config(net.cfg, model)
    else:
        cfg = inferencer_config(net.cfg, model, subnet)
    return _save(net, _narrow(net, subnet), cfg, subnet, path)


def check_replaced(path: Union[str, Path]) -> None:
    """Refuse to replace anything but an earlier export.

    Args:
        path (str or Path): Checkpoint to write.

    Raises:
        UsageError: If there is something else, such as a trained checkpoint,
            an adaptive file or a config of the user; the message names it.
    """
    path, config = _pair(path)
    if not path.exists() and not config.exists():
        return
    try:
        is_export = 'subnet' in load_tensors(path)['meta']
    except Exception:  # what it raises depends on the file
        is_export = False
    if not is_export:
        found = path if path.exists() else config
        raise UsageError(
            f'{str(found)!r} exists and is not an exported network: name '
            'another file'
        )


def load_static(path: Union[str, Path]) -> nn.Module:
    """Build an exported network from the config beside its file.

    Args:
        path (str or Path): File of :func:`save_static` or :func:`save_stock`.
            Building runs what the config names: only open files that you
            trust.

    Returns:
        nn.Module: On the CPU, in evaluation mode.

    Raises:
        UsageError: If a file is missing or damaged, or if the two do not fit
            together.
    """
    path, config = _pair(path)
    for file in (path, config):
        if not file.is_file():
            raise UsageError(
                f'{str(file)!r} does not exist: an exported network is a '
                '.pth file and the .py file of the same name beside it'
            )
    try:
        content = load_tensors(path)
        weights = content['state_dict']
    except Exception as error:  # what it raises depends on the damage
        raise UsageError(
            f'{str(path)!r} is damaged, or not an exported network: '
            f'{type(error).__name__}'
        ) from error
    with as_usage_error(f'{str(config)!r} cannot be read'):
        cfg = Config.fromfile(config)
        settings = cfg.model
    _check_pair(path, content.get('meta') or {}, settings)
    with as_usage_error(f'the network of {str(config)!r} cannot be built'):
        model = _build(cfg, _known(content.get('meta') or {}))
    name = f'{str(path)!r}, with its config beside it,'
    assign = any(parameter.is_meta for parameter in model.parameters())
    if assign and not _can_take(model, weights):
        materialize(model)
        assign = False
    load_strictly(model, weights, name, assign=assign)
    model.eval()  # not chained: stock ``train`` may return nothing
    return model


def _check_pair(path: Path, meta: dict, settings: dict) -> None:
    """Refuse the weights of another network, whose shapes may fit.

    Such as one whose inputs are normalised in another way.
    """
    if 'cfg' not in meta:
        return
    if meta['cfg'] == path.with_suffix('.py').read_text(encoding='utf-8'):
        return
    with as_usage_error(f'the config in {str(path)!r} cannot be read'):
        trained = Config.fromstring(meta['cfg'], '.py').model
    remedy = 'put the two files of one export side by side'
    for name in _OF_SUBNET:
        found, expected = trained.get(name), settings.get(name)
        if found != expected:
            raise UsageError(
                f'{str(path)!r} is of {name}={found}, but the config beside '
                f'it says {expected}: {remedy}'
            )
    for name in sorted({*trained, *settings}.difference(_FREE)):
        if trained.get(name) != settings.get(name):
            raise UsageError(
                f'{str(path)!r} was written with another model.{name} than '
                f'the config beside it says: {remedy}'
            )


def _build(cfg: Config, known: Optional[KnownChannels]) -> nn.Module:
    """Build the network of an export; its weights are loaded then.

    A static one whose channels are known has none yet.
    """
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    if known is None:
        return MODELS.build(cfg.model)
    with known_channels(known), weights_on_meta():
        return MODELS.build(cfg.model)


def _can_take(model: nn.Module, weights: Any) -> bool:
    """Whether a network may take the tensors of a file for its own.

    Those that are tied are copied, and those of another type.
    """
    own = dict(model.named_parameters(remove_duplicate=False))
    return len(own) == len({*own.values()}) and all(
        getattr(weights.get(name), 'dtype', None) == parameter.dtype
        for name, parameter in own.items()
    )


def _known(meta: dict) -> Optional[KnownChannels]:
    """What the checkpoint says of the channels of a static network."""
    if 'cfg' not in meta or not isinstance(meta.get('channels'), str):
        return None
    known = KnownChannels.read(meta['channels'])
    return known if known is not None and known.is_of(meta['cfg']) else None


def _channels(
    net: AdaptiveModel, subnet: Subnet, cfg: Config, text: str
) -> Optional[str]:
    """What the config of a static network needs to be built without a trace.

    None of stock classes, and where it cannot be built so.
    """
    if 'subnet' not in cfg.model:
        return None
    known = KnownChannels.of(net.model, text)
    if known is None:
        return None
    known.add_sizes(sizes_of(net.model, subnet))
    found = known.text()
    with suppress(UsageError):
        _build(cfg, known)
    return found if known.given else None


def _narrow(
    net: AdaptiveModel, subnet: Subnet, fuse_bn: bool = False
) -> nn.Module:
    return static_model(net.model, subnet, net.statistics(subnet), fuse_bn)


def _save(
    net: AdaptiveModel,
    model: nn.Module,
    cfg: Config,
    subnet: Subnet,
    path: Union[str, Path],
) -> List[Path]:
    check_replaced(path)
    path, config = _pair(path)
    text = config_source(cfg)
    channels = _channels(net, subnet, cfg, text)
    found = model.state_dict()
    weights: Any = OrderedDict((k, v.cpu()) for k, v in found.items())
    weights._metadata = getattr(found, '_metadata', {})
    # A stock class does not note at which widths it was trained.
    noted = getattr(net.model.state_dict(), '_metadata', {}).get('', {})
    weights._metadata.setdefault('', {}).update(
        {k: noted[k] for k in ('widths', 'mutual') if k in noted}
    )
    content = dict(
        meta=dict(
            # Where inferencers look for names of classes, and for a config
            # if they are given none.
            dataset_meta=net.file.dataset_meta,
            cfg=text,
            versions=loaded_versions(),
            subnet=str(subnet),
            **({} if channels is None else dict(channels=channels)),
        ),
        state_dict=weights,
    )
    # Both are written before either takes its place.
    with atomic_write(config) as described, atomic_write(path) as file:
        described.write(text.encode())
        described.flush()
        save_tensors(content, file)
    return [path, config]


def _pair(path: Union[str, Path]) -> Tuple[Path, Path]:
    """The checkpoint and the config beside it."""
    path = Path(path)
    if path.suffix != '.pth':
        raise UsageError(
            f'{str(path)!r}: name a .pth file, the config beside it is .py'
        )
    return path, path.with_suffix('.py')
