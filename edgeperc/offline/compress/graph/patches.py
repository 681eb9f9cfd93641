"""Embedding of patches as a product: a convolution whose windows lie side by side.

What a convolution gives has a layout of its own in OpenVINO, which all that follows inherits and
which is undone before every norm. A product of rows has none.
"""

from __future__ import annotations

import numpy as np
import onnx

from edgeperc.offline.compress.graph.editing import Graph, Shape, attribute
from edgeperc.offline.compress.graph.weights import quantized

PATCHES_LAST, TO_PLANES = [0, 2, 4, 1, 3, 5], [0, 3, 1, 2]


def patches(graph: Graph) -> int:
    """Change convolutions of floats whose stride is their kernel; how many there were."""
    found = [node for node in graph.all("Conv") if _side_by_side(graph, node)]
    for node in found:
        _product(graph, node)
    return len(found)


def _product(graph: Graph, conv: onnx.NodeProto) -> None:
    batch, channels, height, width = graph.shapes[conv.input[0]]
    kernel = graph.value(conv.input[1])
    outputs, _, high, wide = kernel.shape
    rows, columns = height // high, width // wide
    cut = (batch, channels, rows, high, columns, wide)
    made = _reshaped(graph, conv.input[0], cut)
    moved = tuple(cut[axis] for axis in PATCHES_LAST)
    made = graph.add("Transpose", [made], conv.name, shape=moved, perm=PATCHES_LAST)
    made = _reshaped(graph, made, (batch, rows, columns, channels * high * wide))
    weight = graph.keep(kernel.reshape(outputs, -1).T, f"{conv.input[1]}.rows")
    shape = (batch, rows, columns, outputs)
    made = graph.add("MatMul", [made, weight], conv.name, shape=shape)
    if len(conv.input) > 2:
        made = graph.add("Add", [made, conv.input[2]], conv.name, shape=shape)
    planes = (batch, outputs, rows, columns)
    made = graph.add("Transpose", [made], conv.name, shape=planes, perm=TO_PLANES)
    graph.instead(conv.output[0], made)


def _reshaped(graph: Graph, name: str, shape: Shape) -> str:
    lengths = graph.keep(np.array(shape, np.int64), "patches")
    return graph.add("Reshape", [name, lengths], "patches", shape=shape)


def _side_by_side(graph: Graph, conv: onnx.NodeProto) -> bool:
    if not graph.constant(conv.input[1]) or quantized(graph, conv.input[0]) is not None:
        return False
    kernel = list(graph.value(conv.input[1]).shape[2:])
    shape = graph.shapes.get(conv.input[0], ())
    return (
        max(kernel, default=0) > 1
        and list(attribute(conv, "strides", [1, 1])) == kernel
        and attribute(conv, "group", 1) == 1
        and not any(attribute(conv, "pads", [0]))
        and attribute(conv, "auto_pad", b"NOTSET") == b"NOTSET"
        and set(attribute(conv, "dilations", [1])) == {1}
        and len(shape) == 4
        and all(shape)
        and not any(length % size for length, size in zip(shape[2:], kernel, strict=True))
    )
