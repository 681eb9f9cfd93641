"""Both products of attention in integers.

onnxruntime multiplies codes without a sign by codes with one; of two without, or two with, it is
several times slower on x86. So keys and values, which stand on the right, are stored with a sign:
128 less, and so is their zero point. A scale of the queries goes into that of their codes.
"""

from __future__ import annotations

import numpy as np
import onnx

from edgeperc.offline.compress.graph.editing import Graph
from edgeperc.offline.compress.graph.weights import quantized

SHIFT = 128


def integer_products(graph: Graph) -> int:
    """Prepare products of two quantized tensors; how many there are."""
    done = 0
    for node in graph.all("MatMul"):
        if graph.constant(node.input[1]):
            continue
        _scale_into_grid(graph, node)
        left, right = quantized(graph, node.input[0]), _right(graph, node)
        if left is not None and right is not None:
            _signed(graph, right)
            done += 1
    return done


def _scale_into_grid(graph: Graph, node: onnx.NodeProto) -> None:
    """A product's left side times a constant: into the scale that makes values of its codes."""
    scaled = graph.maker(node.input[0])
    if scaled is None or scaled.op_type != "Mul":
        return
    constants = [name for name in scaled.input if graph.constant(name)]
    others = [name for name in scaled.input if not graph.constant(name)]
    if len(constants) != 1 or graph.value(constants[0]).size != 1:
        return
    grid = quantized(graph, others[0])
    if grid is None:
        return
    scale = graph.value(grid.input[1]) * graph.value(constants[0]).reshape(())
    inputs = [grid.input[0], graph.keep(np.asarray(scale, np.float32), "scale"), grid.input[2]]
    shape = graph.shapes[node.input[0]]
    graph.feed(node, 0, graph.add("DequantizeLinear", inputs, scaled.name, shape=shape))


def _right(graph: Graph, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """The DequantizeLinear of a product's right side, perhaps transposed behind it."""
    name = node.input[1]
    maker = graph.maker(name)
    if maker is not None and maker.op_type == "Transpose":
        name = maker.input[0]
    return quantized(graph, name)


def _signed(graph: Graph, values: onnx.NodeProto) -> None:
    """Codes with a sign in place of those without; nothing if they have one."""
    zero = graph.value(values.input[2])
    if zero.dtype != np.uint8:
        return
    signed = graph.keep(np.asarray(int(zero) - SHIFT, np.int8), "zero")
    chain = []
    maker = graph.maker(values.input[0])
    while maker is not None and maker.op_type == "Clip":
        chain.append(maker)
        maker = graph.maker(maker.input[0])
    assert maker is not None
    assert maker.op_type == "QuantizeLinear"
    shape = graph.shapes[values.output[0]]
    codes = graph.add("QuantizeLinear", [*maker.input[:2], signed], maker.name, shape=shape)
    for clip in chain:
        limits = [_less(graph, name) for name in clip.input[1:]]
        codes = graph.add("Clip", [codes, *limits], clip.name, shape=shape)
    new = graph.add("DequantizeLinear", [codes, values.input[1], signed], values.name, shape=shape)
    graph.instead(values.output[0], new)
    graph.drop(values)


def _less(graph: Graph, name: str) -> str:
    return graph.keep(np.asarray(int(graph.value(name)) - SHIFT, np.int8), "limit")
