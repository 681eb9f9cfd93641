"""One network, or a part of one, as one ONNX file that is held to it.

    entry, off = write_part(part, folder, storage="half")

A file is refused where an engine builder would stumble over it, or where it answers otherwise than
the network.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from edgeperc.config import FileEntry
from edgeperc.errors import ModelError
from edgeperc.inference.session import Session
from edgeperc.offline.export import OPSET, file_entry
from edgeperc.offline.onnx_tidy import tidy, unfit
from edgeperc.offline.storage import Storage, stored

TOLERANCE: dict[Storage, float] = {"single": 1e-3, "half": 5e-2, "byte": 0.2}
"""Largest difference of an output between file and network, in standard deviations of the output:
of rounding, and of weights that are kept in fewer bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file to be. net: takes `inputs`, which are examples, in order. outputs: names. open_axes:
    of inputs whose length the file leaves open.
    """

    role: str
    net: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    open_axes: Mapping[str, dict[int, str]] = field(default_factory=dict)


def write_part(part: Part, folder: Path, *, storage: Storage = "single") -> tuple[FileEntry, float]:
    """Write one file and hold it to its network; its entry, and how far an output is off at most.

    Raises ModelError if it has what engine builders stumble over, or is off by more than rounding.
    """
    path = folder / f"{part.role}.onnx"
    model, answers = traced(part, folder)
    onnx.save(stored(model, storage), str(path))
    del model  # of the largest network 2.5 GB, which the comparison wants for itself
    off = _difference(part, answers, path)
    if not off <= TOLERANCE[storage]:
        raise ModelError(
            f"the file of the {part.role} answers otherwise than the network: "
            f"an output is off by {off:.2g} standard deviations"
        )
    return file_entry(path, part.role), off


def traced(
    part: Part, folder: Path, *, opset: int = OPSET
) -> tuple[onnx.ModelProto, tuple[Tensor, ...]]:
    """A part as a graph, and what its network answers to the examples. folder: for scratch files.

    Raises ModelError if it has what engine builders stumble over.
    """
    part.net.eval()  # all of it: the exporter puts the mode of the whole back on every part
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        draft = Path(scratch) / f"{part.role}.onnx"  # of a large network several files
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in edgeperc.offline.export
            torch.onnx.export(
                part.net,
                tuple(part.inputs.values()),
                str(draft),
                dynamo=False,
                opset_version=opset,
                input_names=list(part.inputs),
                output_names=list(part.outputs),
                dynamic_axes={name: dict(axes) for name, axes in part.open_axes.items()},
            )
        model = tidy(onnx.load(str(draft)))
    answers = part.net(*part.inputs.values())
    answers = answers if isinstance(answers, tuple) else (answers,)
    _name_tensors(model, part, answers)
    if complaints := unfit(model, open_axes=bool(part.open_axes)):
        raise ModelError(f"the {part.role} cannot be written: it has {complaints[0]}")
    return model, answers


def _name_tensors(model: onnx.ModelProto, part: Part, answers: Sequence[Tensor]) -> None:
    """State shapes of all inputs, those a network does not look at included, and of outputs."""
    del model.graph.value_info[:]
    del model.graph.input[:]
    del model.graph.output[:]
    for name, values in part.inputs.items():
        shape: list[int | str] = list(values.shape)
        for axis, length in part.open_axes.get(name, {}).items():
            shape[axis] = length
        model.graph.input.append(_float_tensor(name, shape))
    for name, values in zip(part.outputs, answers, strict=True):
        model.graph.output.append(_float_tensor(name, list(values.shape)))


def _float_tensor(name: str, shape: list[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def _difference(part: Part, answers: Sequence[Tensor], path: Path) -> float:
    """How far an output of the file is from the network's, in standard deviations of the output."""
    found = Session(path, threads=1).run(*(value.numpy() for value in part.inputs.values()))
    off = 0.0
    for answer, value in zip(answers, found, strict=True):
        wanted = answer.numpy()
        scale = max(float(wanted.std()), 1e-6) if wanted.size > 1 else max(abs(wanted.item()), 1.0)
        off = max(off, float(np.abs(value - wanted).max()) / scale)
    return off
