"""An ONNX graph with the lengths of all tensors, made of its inputs' lengths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import TensorProto, shape_inference

from edgeperc.errors import ConfigError, ModelError
from edgeperc.offline import onnx_tidy

_BITS: dict[int, int] = {
    TensorProto.FLOAT: 32,
    TensorProto.DOUBLE: 64,
    TensorProto.FLOAT16: 16,
    TensorProto.BFLOAT16: 16,
    TensorProto.INT64: 64,
    TensorProto.INT32: 32,
    TensorProto.INT16: 16,
    TensorProto.UINT16: 16,
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
}
"""Bits of an element; others take a byte."""
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_LOOPS = ("Loop", "If", "Scan", "SequenceMap")
SCANS = "edgeperc"
"""Domain of nodes that stand for a whole scan, whose work is known."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """Lengths of the axes, bits of an element in the file, and whether it is of real numbers."""

    shape: tuple[int, ...]
    bits: int
    real: bool

    @property
    def elements(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Shaped:
    """A graph whose nodes have names and whose tensors have lengths.

    constant: names of tensors that do not depend on the inputs, which a runtime computes once.
    """

    model: onnx.ModelProto
    tensors: Mapping[str, Tensor]
    constant: frozenset[str]


def shaped(model: onnx.ModelProto, lengths: Mapping[str, Sequence[int]] | None = None) -> Shaped:
    """Fix open lengths, and tell those of all tensors.

    lengths: name of an input -> its lengths, or name of an open axis -> its one length. Changes the
    model. Raises ConfigError for a name that the graph has not, or if an input's length stays open;
    ModelError for loops, or if a tensor's length cannot be told.
    """
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
        if node.op_type in _LOOPS:
            raise ModelError(
                f"{node.op_type} '{node.name}': how often it runs is not in the graph",
                hint="export it without, or count it by edgeperc.offline.roofline.formulas",
            )
    _fix(model.graph, lengths or {})
    inferred = _inferred(model)
    if unknown := _unknown(inferred):
        if all(node.op_type != "DequantizeLinear" for node in model.graph.node):
            # It would compute quantized weights too, and their bits would be lost.
            onnx_tidy.tidy(model)
            inferred = _inferred(model)
            unknown = _unknown(inferred)
        if unknown:
            raise ModelError(f"the lengths of what {unknown} gives cannot be told from the graph")
    return Shaped(model, _tensors(inferred), _constants(model.graph))


def takes(graph: onnx.GraphProto, name: str, given: Sequence[int]) -> bool:
    """Whether the graph has an input, or an open axis, of that name which the lengths are for."""
    if any(name in axes for axes in open_axes(graph).values()):
        return True
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in graph.input}
    return name in ranks and not _of_axis(given, ranks[name])


def _of_axis(given: Sequence[int], rank: int) -> bool:
    """Whether lengths are those of an axis, though an input of several axes has its name."""
    return len(given) == 1 < rank


def open_axes(graph: onnx.GraphProto) -> dict[str, list[str]]:
    """Name of an input -> its axes of no fixed length, by name or by number."""
    known = {each.name for each in graph.initializer}
    found = {
        value.name: [
            axis.dim_param or f"axis {number}"
            for number, axis in enumerate(value.type.tensor_type.shape.dim)
            if not axis.HasField("dim_value") or axis.dim_value < 1
        ]
        for value in graph.input
        if value.name not in known
    }
    return {name: axes for name, axes in found.items() if axes}


def _fix(graph: onnx.GraphProto, lengths: Mapping[str, Sequence[int]]) -> None:
    unused = set(lengths)
    for value in graph.input:
        axes = value.type.tensor_type.shape.dim
        if (given := lengths.get(value.name)) and not _of_axis(given, len(axes)):
            unused.discard(value.name)
            fixed = [axis.dim_value for axis in axes]
            if len(given) != len(axes) or any(
                f and f != g for f, g in zip(fixed, given, strict=True)
            ):
                wanted = ",".join(
                    str(f or axis.dim_param) for f, axis in zip(fixed, axes, strict=True)
                )
                raise ConfigError(
                    f"input '{value.name}' is {wanted}, not {','.join(map(str, given))}"
                )
            for axis, length in zip(axes, given, strict=True):
                axis.dim_value = length
        for axis in axes:
            if axis.dim_param in lengths:
                unused.discard(axis.dim_param)
                axis.dim_value = lengths[axis.dim_param][0]
    if unused:
        known = [value.name for value in graph.input]
        known += [axis for axes in open_axes(graph).values() for axis in axes]
        raise ConfigError(
            f"the graph has no input and no open axis '{min(unused)}'",
            hint=f"it has {', '.join(dict.fromkeys(known))}",
        )
    if still := open_axes(graph):
        name, axes = next(iter(still.items()))
        raise ConfigError(
            f"input '{name}' has no fixed length: {', '.join(axes)}",
            hint=f"give it: --shape {name}=1,3,256,256 for an input, or --shape {axes[0]}=256",
        )
    # Lengths that the exporter has noted may be names of axes, which are numbers now.
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")


def _inferred(model: onnx.ModelProto) -> onnx.GraphProto:
    if any(node.domain == SCANS for node in model.graph.node):
        model = _without_scans(model)
    try:
        return shape_inference.infer_shapes(model, data_prop=True).graph
    except (shape_inference.InferenceError, ValueError):
        return onnx_tidy._inferred(model)


def _without_scans(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which a scan hands on its first input, which has its output's lengths."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        if node.domain == SCANS:
            node.domain, node.op_type = "", "Identity"
            del node.input[1:], node.attribute[:]
    return copy


def _unknown(graph: onnx.GraphProto) -> str:
    """The first node of whose outputs a length is not known; empty if there is none."""
    known = {
        value.name
        for value in (*graph.value_info, *graph.output)
        if value.type.tensor_type.HasField("shape")
        and all(axis.HasField("dim_value") for axis in value.type.tensor_type.shape.dim)
    }
    for node in graph.node:
        if not known.issuperset(name for name in node.output if name):
            return f"{node.op_type} '{node.name}'"
    return ""


def _tensors(graph: onnx.GraphProto) -> dict[str, Tensor]:
    found = {each.name: _tensor(each.data_type, tuple(each.dims)) for each in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        kind = value.type.tensor_type
        found[value.name] = _tensor(
            kind.elem_type, tuple(axis.dim_value for axis in kind.shape.dim)
        )
    return found


def _tensor(data_type: int, shape: tuple[int, ...]) -> Tensor:
    return Tensor(shape, _BITS.get(data_type, 8), data_type in _FLOATS)


def _constants(graph: onnx.GraphProto) -> frozenset[str]:
    """Initializers and what is computed of them; lengths too, which are all fixed by now."""
    found = {each.name for each in graph.initializer}
    for node in graph.node:
        if node.op_type in ("Shape", "Size") or found.issuperset(n for n in node.input if n):
            found.update(node.output)
    return frozenset(found)
