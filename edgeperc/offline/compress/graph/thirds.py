"""Queries, keys and values by three products instead of one that is split.

A split copies all of what the product gave, in float; three products of the same codes give three
tensors to begin with. What each gives is the same to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import onnx

from edgeperc.offline.compress.graph.editing import Graph, Values, attribute


@dataclass(frozen=True, slots=True)
class Found:
    """A product, its bias, and how its channels go to the parts of the split behind it.

    move: what is between them, reshape and transpose. channels: for each part, those it gets.
    """

    product: onnx.NodeProto
    bias: str
    move: tuple[onnx.NodeProto, onnx.NodeProto] | None
    split: onnx.NodeProto
    channels: list[Values]
    axis: int


def thirds(graph: Graph) -> int:
    """Part the products that are split; how many there were."""
    found = [each for node in graph.all("Split") if (each := _found(graph, node))]
    for each in found:
        for index, channels in enumerate(each.channels):
            graph.instead(each.split.output[index], _part(graph, each, index, channels))
    return len(found)


def _part(graph: Graph, found: Found, index: int, channels: Values) -> str:
    """One part's product, bias and move; the name of what it gives."""
    product = found.product
    name = f"{product.name}.{index}"
    weight = graph.keep(graph.value(product.input[1])[:, channels], f"{product.input[1]}.{index}")
    lead = graph.shapes[product.output[0]][:-1]
    out = graph.add("MatMul", [product.input[0], weight], name, shape=(*lead, len(channels)))
    if found.bias:
        bias = graph.keep(graph.value(found.bias)[channels], f"{found.bias}.{index}")
        out = graph.add("Add", [out, bias], name, shape=(*lead, len(channels)))
    if found.move is None:
        return out
    reshape, transpose = found.move
    lengths = list(graph.shapes[reshape.output[0]])
    lengths[found.axis] = 1
    wanted = graph.keep(np.array(lengths, np.int64), "shape")
    out = graph.add("Reshape", [out, wanted], reshape.name, shape=tuple(lengths))
    perm = attribute(transpose, "perm")
    shape = tuple(lengths[axis] for axis in perm)
    return graph.add("Transpose", [out], transpose.name, shape=shape, perm=perm)


def _found(graph: Graph, split: onnx.NodeProto) -> Found | None:
    """What a split is of, if it is of a product's channels; each of one length where moved."""
    last = graph.maker(split.input[0])
    sizes = [int(size) for size in graph.value(split.input[1])]
    axis = int(attribute(split, "axis", 0)) % len(graph.shapes[split.input[0]])
    move = None
    if last is not None and last.op_type == "Transpose":
        reshape = graph.maker(last.input[0])
        if reshape is None or reshape.op_type != "Reshape" or set(sizes) != {1}:
            return None
        move = (reshape, last)
        axis = attribute(last, "perm")[axis]
        last = graph.maker(reshape.input[0])
    product, bias = _linear(graph, last)
    if product is None:
        return None
    lead = len(graph.shapes[product.output[0]]) - 1
    width = graph.shapes[product.output[0]][-1]
    if move is None:
        if axis != lead:
            return None
        ends = np.cumsum([0, *sizes])
        channels = [np.arange(a, b) for a, b in pairwise(ends)]
        return Found(product, bias, None, split, channels, axis)
    shape = graph.shapes[move[0].output[0]]
    tail = next((n for n in range(len(shape)) if int(np.prod(shape[n:])) == width), None)
    if tail is None or axis < tail:
        return None
    ids = np.arange(width).reshape(shape[tail:])
    channels = [ids.take(index, axis - tail).reshape(-1) for index in range(len(sizes))]
    return Found(product, bias, move, split, channels, axis)


def _linear(graph: Graph, last: onnx.NodeProto | None) -> tuple[onnx.NodeProto | None, str]:
    """The product with constant weights that a node is, or adds a bias to."""
    bias = ""
    if last is not None and last.op_type == "Add":
        constants = [name for name in last.input if graph.constant(name)]
        others = [name for name in last.input if not graph.constant(name)]
        if len(constants) != 1 or graph.value(constants[0]).ndim != 1:
            return None, ""
        bias, last = constants[0], graph.maker(others[0])
    if last is None or last.op_type != "MatMul" or not graph.constant(last.input[1]):
        return None, ""
    return last, bias
