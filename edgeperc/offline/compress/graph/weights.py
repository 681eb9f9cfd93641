"""Weights that lie on a grid as the integers they are.

    table = Rows.of({"blocks.0.mlp.lin1": quantizer}, net)
    weights_as_codes(graph, table)

A weight is found by its values: each row of it, one for an output channel, is in the table with its
scale, whatever the export has transposed, cut or shared. A product of quantized values becomes a
Gemm with an integer bias, which onnxruntime runs in integers and hands on as float.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import Tensor

from edgeperc.offline.compress.graph.editing import Graph, Values, attribute, key_of
from edgeperc.offline.compress.graph.int4 import Blocks4

MOST = 2**31 - 1
"""Of a bias as a code."""


@dataclass(slots=True)
class Rows:
    """Values of a row of weights -> its scale, as bytes of float32. blocks: of those of 4 bits."""

    scales: dict[bytes, float] = field(default_factory=dict)
    blocks: Blocks4 = field(default_factory=Blocks4)

    def add(self, weight: Tensor, step: Tensor, axis: int) -> None:
        """weight: on its grid. step: as weight, what one code is. axis: of its outputs."""
        rows = _rows(weight.detach().numpy(), axis)
        steps = _rows(step.detach().expand_as(weight).numpy(), axis)[:, 0]
        for row, scale in zip(rows, steps, strict=True):
            self.scales[key_of(row)] = float(scale)

    def codes(self, weight: Values, axis: int) -> tuple[NDArray[np.int8], Values] | None:
        """Codes of weight's shape and scales (outputs,), or None if a row is not in the table."""
        rows = _rows(weight, axis)
        found = [self.scales.get(key_of(row)) for row in rows]
        if not found or None in found:
            return None
        scales = np.array(found, np.float32)
        codes = np.rint(rows / scales[:, None]).astype(np.int8)
        lengths = np.moveaxis(weight, axis, 0).shape
        return np.moveaxis(codes.reshape(lengths), 0, axis), scales


def weights_as_codes(graph: Graph, rows: Rows) -> int:
    """Store all weights that are in the table as int8; how many there were.

    Products whose other side is quantized become a Gemm of integers; see `_product`.
    """
    done = 0
    shared: dict[str, str] = {}
    for node in graph.all("MatMul", "Gemm", "Conv", "ConvTranspose"):
        name = node.input[1]
        if not graph.constant(name):
            continue
        axis = output_axis(node)
        found = rows.codes(graph.value(name), axis)
        if found is None:
            continue
        done += 1
        grid = quantized(graph, node.input[0])
        if node.op_type == "MatMul" and grid is not None:
            _product(graph, node, grid, *found, shared)
        else:
            graph.feed(node, 1, stored(graph, name, *found, axis))
            if node.op_type in ("Gemm", "Conv") and grid is not None and len(node.input) > 2:
                bias = _bias(graph, graph.value(node.input[2]), grid, found[1], name)
                graph.feed(node, 2, bias or node.input[2])
    return done


def handed_on_in_float(graph: Graph) -> int:
    """Keep the runtime from rounding within a product of codes; how many there were.

    onnxruntime's QGemm rounds its own output slowly, and cannot at all to codes with a sign; it
    gives floats fast, and rounding by itself is fast, too. A Flatten of what is flat costs nothing
    and is no step that rounding is moved across.
    """
    done = 0
    for node in graph.all("Gemm"):
        takers = graph.takers(node.output[0])
        rounding = [each for each in takers if each.op_type == "QuantizeLinear"]
        if not rounding or quantized(graph, node.input[0]) is None:
            continue
        shape = graph.shapes.get(node.output[0])
        flat = graph.add("Flatten", [node.output[0]], node.name, shape=shape, axis=1)
        for each in rounding:
            graph.feed(each, 0, flat)
        done += 1
    return done


def quantized(graph: Graph, name: str) -> onnx.NodeProto | None:
    """The DequantizeLinear, with one scale for all, that a tensor comes from."""
    node = graph.maker(name)
    if node is None or node.op_type != "DequantizeLinear" or graph.constant(node.input[0]):
        return None
    return node if graph.value(node.input[1]).ndim == 0 else None


def _product(
    graph: Graph,
    node: onnx.NodeProto,
    grid: onnx.NodeProto,
    codes: NDArray[np.int8],
    scales: Values,
    shared: dict[str, str],
) -> None:
    """Write x @ w, and the bias added to it, as a Gemm of two dimensions between reshapes."""
    name = node.name or node.output[0]
    shape = graph.shapes[node.input[0]]
    flat = (math.prod(shape[:-1]), shape[-1])
    if len(shape) == 2:
        shared[grid.output[0]] = grid.output[0]
    elif grid.output[0] not in shared:
        rows = graph.keep(np.array([-1, flat[1]], np.int64), "rows")
        made = graph.add("Reshape", [grid.input[0], rows], f"{name}.rows", shape=flat)
        shared[grid.output[0]] = graph.add(
            "DequantizeLinear", [made, *grid.input[1:]], f"{name}.x", shape=flat
        )
    inputs = [shared[grid.output[0]], stored(graph, node.input[1], codes, scales, 1)]
    last = node.output[0]
    adding = graph.only_taker(last)
    bias = _added(graph, adding, len(scales))
    if adding is not None and bias is not None:
        codes_of_bias = _bias(graph, bias, grid, scales, name)
        if codes_of_bias is not None:
            inputs.append(codes_of_bias)
            last = adding.output[0]
    wide = (flat[0], len(scales))
    made = graph.add("Gemm", inputs, name, shape=wide)
    if len(shape) == 2:
        graph.instead(last, made)
        return
    back = graph.keep(np.array([*shape[:-1], wide[1]], np.int64), "shape")
    graph.instead(last, graph.add("Reshape", [made, back], name, shape=(*shape[:-1], wide[1])))


def _added(graph: Graph, node: onnx.NodeProto | None, width: int) -> Values | None:
    """The constant for each of `width` channels that an Add adds."""
    if node is None or node.op_type != "Add":
        return None
    for name in node.input:
        if graph.constant(name) and graph.value(name).shape == (width,):
            return graph.value(name)
    return None


def stored(graph: Graph, name: str, codes: NDArray[np.int8], scales: Values, axis: int) -> str:
    """Codes and what makes values of them. Raises nothing: codes are in -127 to 127."""
    zeros = graph.keep(np.zeros(len(scales), np.int8), "zeros")
    inputs = [graph.keep(codes, f"{name}.codes"), graph.keep(scales, f"{name}.scales"), zeros]
    return graph.add("DequantizeLinear", inputs, f"{name}.values", shape=codes.shape, axis=axis)


def _bias(
    graph: Graph, bias: Values, grid: onnx.NodeProto, scales: Values, name: str
) -> str | None:
    """A bias in the unit of the products' sums, int32; None if it does not go in."""
    steps = (graph.value(grid.input[1]) * scales).astype(np.float32)
    codes = np.rint(bias.astype(np.float64) / steps)
    if np.abs(codes).max(initial=0) > MOST:
        return None
    zeros = graph.keep(np.zeros(len(scales), np.int32), "zeros")
    parts = [graph.keep(codes.astype(np.int32), f"{name}.bias"), graph.keep(steps, f"{name}.steps")]
    return graph.add("DequantizeLinear", [*parts, zeros], f"{name}.bias", shape=bias.shape, axis=0)


def output_axis(node: onnx.NodeProto) -> int:
    """The axis of a product's or convolution's weight that its outputs are on."""
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return 0 if node.op_type == "Conv" else 1


def _rows(weight: Values, axis: int) -> Values:
    """(outputs, values of each)."""
    moved = np.moveaxis(weight, axis, 0)
    return moved.reshape(len(moved), -1).astype(np.float32)
