# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""One subnet as an ONNX file."""

import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Dict

import torch

from ..errors import UsageError, first_line
from .program_file import Run, SubnetProgram


def check_onnx() -> None:
    """Refuse to start where a package is missing.

    Raises:
        UsageError: If so; the message names it and what to install.
    """
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        if find_spec(name) is None:
            raise UsageError(
                f'format onnx needs {name}: pip install "mutualnet_mm[deploy]"'
            )


def save_onnx(
    program: SubnetProgram, path: Path, metadata: Dict[str, Any]
) -> None:
    """Write an ONNX file.

    Args:
        program (SubnetProgram): What to write.
        path (Path): File, ``.onnx``. Weights beyond 2 GB, which it cannot
            hold, go into a second file beside it.
        metadata (dict): Becomes properties of the model: text as it is,
            anything else as JSON.

    Raises:
        UsageError: If an operator of the network has no counterpart.
    """
    try:
        with warnings.catch_warnings():
            # Of torch 2.13 to itself.
            warnings.filterwarnings('ignore', '.*LeafSpec', FutureWarning)
            exported = torch.onnx.export(
                program.program,
                dynamo=True,
                input_names=['inputs'],
                output_names=program.outputs,
                dynamic_shapes=dict(inputs=program.axes),  # only names
                verbose=False,
            )
    except Exception as error:  # of many kinds; the first cause says it
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise UsageError(
            f'torch.onnx cannot export this network: {first_line(cause)}; '
            'use format torch or static'
        ) from error
    exported.model.metadata_props.update(
        {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in metadata.items()
        }
    )
    exported.save(str(path))


def load_onnx(path: Path) -> Run:
    """Load an ONNX file into ONNX Runtime, on the CPU.

    Raises:
        UsageError: If it is damaged, or has an operator that is unknown.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only; its warnings are harmless
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=['CPUExecutionProvider']
        )
    except Exception as error:  # a class for each code, without a base
        raise UsageError(
            f'ONNX Runtime cannot load {str(path)!r}: {first_line(error)}'
        ) from error
    return lambda inputs: [
        torch.from_numpy(output)
        for output in session.run(None, dict(inputs=inputs.numpy()))
    ]
