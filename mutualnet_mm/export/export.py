# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""A subnet in a file of its own, proven equal to the adaptive network."""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Iterator, Union

from ..deploy.adaptive_model import AdaptiveModel
from ..errors import UsageError
from ..models.tasks.samples import Batch
from ..query_table import Cascade
from ..subnet import Subnet
from .checkpoint_file import (
    check_replaced,
    load_static,
    save_static,
    save_stock,
)
from .metadata import program_metadata
from .onnx_file import check_onnx, load_onnx, save_onnx
from .program_file import (
    SubnetProgram,
    check_torch,
    load_program,
    save_program,
    tensors_of,
)
from .verify import Exported, Verification, resize_batch, verify
from .verify_inputs import verification_batches

# Formats and their file extensions.
FORMATS = dict(onnx='.onnx', torch='.pt2', static='.pth', stock='.pth')
TOLERANCE = 1e-3


def export_subnet(
    net: AdaptiveModel,
    subnet: Union[str, Subnet],
    format: str,
    out: Union[str, Path],
    inputs: Any = None,
    fuse_bn: bool = False,
    tolerance: float = TOLERANCE,
) -> Verification:
    """Write one subnet to a file, and prove that it is the same network.

    The written file is loaded again (with ONNX Runtime, with
    ``torch.export.load``, or by the config beside the checkpoint). It and the
    sliced adaptive network are run on real inputs: one alone, and all in a
    batch. The file is put in its place only if the outputs agree.

    Args:
        net (AdaptiveModel): On the CPU. It is not changed.
        subnet (str or Subnet): Such as ``'0.7x-160'``.
        format (str): ``'onnx'`` and ``'torch'`` are programs that map a
            preprocessed batch of the subnet's own size to logits, or for
            detectors to the maps of the neck. ``'static'`` is a checkpoint
            and the config of a small network of stock layers. ``'stock'`` is
            the same for the stock inferencers; the full network is then made
            of stock classes.
        out (str or Path): File to write, ``.onnx``, ``.pt2`` or ``.pth`` with
            a ``.py`` beside it. An earlier export is replaced.
        inputs (optional): Inputs to compare on, as
            :class:`~.inputs.InputPipeline` takes them; at most two views of a
            video are run. Defaults to the first samples of the config's test
            data set.
        fuse_bn (bool): Fold batch norms into convolutions. ONNX files always
            have them folded. Defaults to False.
        tolerance (float): Largest difference that passes, relative to the
            largest value of an output. Defaults to 1e-3; in single precision,
            rounding caused up to 4e-5, and the statistics of another subnet
            more than 1e-2.

    Returns:
        Verification: What was compared, and how well it agrees.

    Raises:
        UsageError: If something given is wrong, if the subnet has no such
            form, or if the outputs differ by more than ``tolerance``. Then no
            new file is left.
    """
    out = Path(out)
    _check(net, format, out, fuse_bn)
    if isinstance(subnet, Cascade):
        raise UsageError(
            f'a cascade ({subnet}) is no network of its own: export both of '
            'its subnets, and run the second where the largest probability '
            'of the first is below the threshold'
        )
    net = net.handle()
    net.slice()
    subnet = net.use(subnet)
    batches = verification_batches(net, inputs)
    with _draft(out) as draft:
        if format in ('onnx', 'torch'):
            exported = _export_program(
                net, subnet, format, draft, batches[0], fuse_bn
            )
        else:
            exported = _export_network(net, subnet, format, draft, fuse_bn)
        difference = verify(net, exported, batches)
        if not difference.relative <= tolerance:
            raise UsageError(
                f'the exported subnet {subnet} differs from the adaptive '
                f'network by {difference.absolute:.2g}, '
                f'{difference.relative:.2g} of the largest value, but '
                f'tolerance={tolerance:g}: nothing was written'
            )
        names = [file.name for file in sorted(draft.parent.iterdir())]
    files = [out.with_name(name) for name in names]
    what = (
        'logits' if net.model.task.cost_includes_head else 'maps of the neck'
    )
    return Verification(
        difference,
        what if exported.network is None else f'{what} and predictions',
        tuple(len(inputs) for inputs, _ in batches),
        exported.params,
        {file: file.stat().st_size for file in files},
    )


def _check(net: AdaptiveModel, format: str, out: Path, fuse_bn: bool) -> None:
    if format not in FORMATS:
        raise UsageError(
            f'format={format!r} is unknown: use one of {", ".join(FORMATS)}'
        )
    if out.suffix != FORMATS[format]:
        raise UsageError(
            f'{str(out)!r}: name a {FORMATS[format]} file for format {format}'
        )
    if format == 'stock' and fuse_bn:
        raise UsageError(
            'format stock keeps batch norms, as stock classes have them: '
            'leave fuse_bn out, or use format static'
        )
    if out.suffix == '.pth':
        check_replaced(out)
    elif out.is_dir():
        raise UsageError(f'{str(out)!r} is a folder: name a file')
    if net.device.type != 'cpu':
        raise UsageError(
            f'the network is on {net.device}: load it on the CPU to export it'
        )
    if format in ('onnx', 'torch'):
        check_torch()
    if format == 'onnx':
        check_onnx()


@contextmanager
def _draft(out: Path) -> Iterator[Path]:
    """Yield a path in a draft folder; then move its files beside ``out``."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(mkdtemp(prefix=f'{out.name}.', dir=out.parent))
    except OSError as error:
        raise UsageError(
            f'{str(out)!r} cannot be written: {error.strerror}'
        ) from error
    try:
        yield folder / out.name
        for file in sorted(folder.iterdir()):
            with file.open('rb') as written:
                os.fsync(written.fileno())
            os.replace(file, out.with_name(file.name))
    finally:
        shutil.rmtree(folder)


def _export_program(
    net: AdaptiveModel,
    subnet: Subnet,
    format: str,
    path: Path,
    batch: Batch,
    fuse_bn: bool,
) -> Exported:
    full, shape = batch[0].shape, resize_batch(net, batch).shape
    program = SubnetProgram(
        net.model,
        subnet,
        net.statistics(subnet),
        shape,
        # Torch's exporter would fold them anyway, but take longer.
        fuse_bn=fuse_bn or format == 'onnx',
    )
    metadata = program_metadata(net, subnet)
    metadata.update(input_shape=list(shape[1:]))
    if subnet.frames is None:
        metadata.update(full_input_shape=list(full[1:]))
    if format == 'onnx':
        save_onnx(program, path, metadata)
        return Exported(load_onnx(path), program.params)
    save_program(program, path, metadata)
    return Exported(load_program(path), program.params)


def _export_network(
    net: AdaptiveModel, subnet: Subnet, format: str, path: Path, fuse_bn: bool
) -> Exported:
    if format == 'static':
        save_static(net, subnet, path, fuse_bn)
    else:
        save_stock(net, subnet, path)
    network = load_static(path)
    task = net.model.task
    return Exported(
        lambda inputs: tensors_of(task.forward_cost(network, inputs)),
        sum(p.numel() for p in network.parameters()),
        network,
    )
