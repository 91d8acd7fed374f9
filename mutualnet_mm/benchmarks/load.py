# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Opening of files against building a narrow stock network."""

from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Callable, Dict, Tuple

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint

from ..config.source import config_source
from ..cost import SubnetCosts
from ..deploy import AdaptiveFile, AdaptiveModel
from ..deploy.stored_model import find_channels
from ..engine.calibration import calibrate
from ..errors import UsageError
from ..export.checkpoint_file import load_static, save_static
from ..models import static_model
from ..models.build import without_teacher
from ..query_table import QueryTable, TableEntry
from .children import Works, both
from .subjects import build_subject, open_config, training_batch
from .turns import Call, ratio, report

# The stock class, those of its arguments that follow the width, and a subnet
# whose very channels it has then.
_STOCK: Dict[str, Tuple[str, Dict[str, Any], str]] = {
    'mobilenet-v1': (
        'mutualnet_mm.MobileNetV1',
        dict(widen_factor=1.0),
        '0.5x-160',
    ),
    'resnet50': (
        'mmpretrain.ResNet',
        dict(stem_channels=64, base_channels=64),
        '0.75x-160',
    ),
}


def benchmark_load(
    network: str = 'mobilenet-v1', rounds: int = 3
) -> Dict[str, Any]:
    """Compare files of this package with a stock class and its weights.

    Args:
        network (str): ``'mobilenet-v1'`` or ``'resnet50'``.
        rounds (int): Processes of each. Defaults to 3.

    Returns:
        dict: See :func:`~.turns.report`; ``mebibytes`` are medians.

    Raises:
        UsageError: If no stock class is known that has a subnet's channels.
    """
    if network not in _STOCK:
        raise UsageError(
            f'network {network!r}: how its stock class is built narrow is '
            f'known of {" and ".join(_STOCK)}'
        )
    cfg = open_config(network)
    chosen = _STOCK[network][2]
    with TemporaryDirectory() as name:
        folder = Path(name)
        _write(cfg, folder, network)
        works: Works = {
            'adaptive': partial(_opening, _open_adaptive, folder, chosen),
            'static': partial(_opening, _open_static, folder, chosen),
            'stock': partial(_opening, _open_stock, folder, chosen),
        }
        seconds, mebibytes = both(works, rounds)
    ratios = []
    for kind in ('static', 'adaptive'):
        for what, found in (('time', seconds), ('memory', mebibytes)):
            ratios.append(
                ratio(
                    f'{what}, {kind} file / stock network',
                    *(found[kind], found['stock'], 1.5),
                )
            )
    return report(
        'load',
        seconds,
        ratios,
        network=network,
        subnet=chosen,
        mebibytes={name: median(found) for name, found in mebibytes.items()},
    )


def _write(cfg: Config, folder: Path, network: str) -> None:
    """Write an adaptive file, a static one and a stock one."""
    backbone, arguments, subnet = _STOCK[network]
    model = build_subject(cfg).eval()
    narrow = model.space.check(subnet)
    chosen = [model.space.full, narrow]
    bank = calibrate(model, chosen, [training_batch(model, 2)])
    costs = SubnetCosts(model, None)
    entries = [
        TableEntry(one, metrics={'metric': 1.0}, **costs.of(one))
        for one in chosen
    ]
    portable = Config(cfg.to_dict())
    for key in ('launcher', 'load_from', 'resume', 'work_dir'):
        portable.pop(key, None)
    portable.model = without_teacher(portable.model, model)
    portable.model.pop('init_cfg', None)
    portable.model.backbone.pop('init_cfg', None)
    text = config_source(portable)
    file = AdaptiveFile(
        config=text,
        weights=model.state_dict(),
        statistics=bank,
        table=QueryTable(entries, 'metric', model.task.name, model.space.full),
        width=(model.space.min_width, model.space.max_width),
        rounding=model.slim_state.rounding,
        calibration={},
        dataset_meta={},
        channels=find_channels(text),
    )
    file.save(folder / 'adaptive.pth')
    net = AdaptiveModel(file)
    save_static(net, narrow, folder / 'static.pth')
    weights = static_model(model, narrow, bank[str(narrow)]).state_dict()
    torch.save(dict(state_dict=weights), folder / 'stock.pth')
    stock = portable.model
    stock.type = stock.pop('wraps')
    stock.pop('mutual')
    stock.backbone.type = backbone
    for name, default in arguments.items():
        whole = stock.backbone.get(name, default)
        stock.backbone[name] = type(default)(whole * narrow.width)
    stock.head.in_channels = int(stock.head.in_channels * narrow.width)
    portable.dump(folder / 'stock.py')


def _opening(
    how: Callable[[Path, str], Any], folder: Path, subnet: str
) -> Call:
    return partial(how, folder, subnet)


def _open_adaptive(folder: Path, subnet: str) -> Any:
    net = AdaptiveModel.from_file(folder / 'adaptive.pth')
    net.use(subnet)
    return net


def _open_static(folder: Path, subnet: str) -> Any:
    del subnet
    return load_static(folder / 'static.pth')


def _open_stock(folder: Path, subnet: str) -> Any:
    """The stock network of the subnet's channels, as stock tools open it."""
    del subnet
    cfg = Config.fromfile(folder / 'stock.py')
    init_default_scope('mmpretrain')
    model = MODELS.build(cfg.model)
    load_checkpoint(model, str(folder / 'stock.pth'), 'cpu', strict=True)
    return model.eval()
