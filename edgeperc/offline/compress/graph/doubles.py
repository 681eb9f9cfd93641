"""Sums and exponentials in double precision, each rounded to float32 once.

A float32 sum depends on its order, and an exponential on who wrote it, by a few millionths. A grid
of four bits turns that over into a whole step now and then, and the layers behind it make much of
one step. What is computed in double precision and rounded once is the same in every runtime. Slow:
for files that are for accuracy only. `edgeperc.offline.compress.doubles` does so in torch.
"""

from __future__ import annotations

import numpy as np
import onnx

from edgeperc.offline.compress.graph.editing import Graph, Shape, Values, attribute
from edgeperc.offline.compress.graph.weights import Rows, output_axis, stored

PRODUCTS = ("MatMul", "Gemm")
OTHERS = ("LayerNormalization", "Softmax", "Sigmoid", "Log", "ReduceMean", "Exp", "Sin", "Cos")


def in_doubles(graph: Graph, rows: Rows) -> int:
    """Change products, convolutions, norms and exponentials; how many there were.

    Weights in the table are stored as int8. Convolutions of groups, unless each channel is one,
    stay, as do transposed ones and GELU, which onnxruntime has in single precision alone.
    """
    done = 0
    for node in graph.all("Conv", *PRODUCTS, *OTHERS):
        if node.op_type == "Conv":
            done += _convolution(graph, node, rows)
        elif node.op_type in PRODUCTS:
            done += _product(graph, node, rows)
        else:
            made = graph.add(
                node.op_type,
                [_double(graph, name) for name in node.input],
                node.name,
                shape=graph.shapes.get(node.output[0]),
                **{each.name: attribute(node, each.name) for each in node.attribute},
            )
            graph.instead(node.output[0], _single(graph, made))
            done += 1
    return done


def _product(graph: Graph, node: onnx.NodeProto, rows: Rows) -> bool:
    """A product, rounded, and then the bias of a Gemm."""
    if attribute(node, "transA", 0) or {
        attribute(node, "alpha", 1.0),
        attribute(node, "beta", 1.0),
    } != {1.0}:
        return False
    right, shape = node.input[1], graph.shapes.get(node.output[0])
    if graph.constant(right):
        right = _weight(graph, right, output_axis(node), rows)
    if attribute(node, "transB", 0):
        right = graph.add("Transpose", [right], right, perm=[1, 0])
    inputs = [_double(graph, node.input[0]), _double(graph, right)]
    made = _single(graph, graph.add("MatMul", inputs, node.name, shape=shape))
    if len(node.input) > 2:
        made = graph.add("Add", [made, node.input[2]], node.name, shape=shape)
    graph.instead(node.output[0], made)
    return True


def _convolution(graph: Graph, node: onnx.NodeProto, rows: Rows) -> bool:
    """By shifted pictures: onnxruntime has no convolution in double precision."""
    weight, groups = node.input[1], attribute(node, "group", 1)
    shape, out = graph.shapes.get(node.input[0], ()), graph.shapes.get(node.output[0], ())
    if (
        not graph.constant(weight)
        or len(shape) != 4
        or len(out) != 4
        or groups not in (1, shape[1])
        or (groups > 1 and out[1] != groups)
        or set(attribute(node, "dilations", [1])) != {1}
        or attribute(node, "auto_pad", b"NOTSET") != b"NOTSET"
    ):
        return False
    kernel = graph.value(weight)
    shifted = _shifted(graph, node, shape, out, kernel.shape)
    if groups > 1:
        made = _by_channel(graph, node, shifted, kernel, out)
    else:
        made = _of_all(graph, node, shifted, kernel, out, rows)
    made = _single(graph, made)
    if len(node.input) > 2:
        bias = graph.keep(graph.value(node.input[2]).reshape(-1, 1, 1), "bias")
        made = graph.add("Add", [made, bias], node.name, shape=out)
    graph.instead(node.output[0], made)
    return True


def _shifted(
    graph: Graph, node: onnx.NodeProto, shape: Shape, out: Shape, kernel: Shape
) -> list[str]:
    """What each weight of the kernel sees, (B, C, h, w), row after row."""
    top, left, bottom, right = attribute(node, "pads", [0, 0, 0, 0])
    high, wide = kernel[2:]
    steps = list(attribute(node, "strides", [1, 1]))
    given = _double(graph, node.input[0])
    if top or left or bottom or right:
        zeros = graph.keep(np.array([0, 0, top, left, 0, 0, bottom, right], np.int64), "pads")
        padded = (*shape[:2], shape[2] + top + bottom, shape[3] + left + right)
        given = graph.add("Pad", [given, zeros], node.name, shape=padded)
    if (high, wide) == (1, 1) and steps == [1, 1]:
        return [given]
    axes, by = (
        graph.keep(np.array(each, np.int64), name)
        for each, name in (([2, 3], "axes"), (steps, "by"))
    )
    made = []
    for row in range(high):
        for column in range(wide):
            ends = [row + (out[2] - 1) * steps[0] + 1, column + (out[3] - 1) * steps[1] + 1]
            first = graph.keep(np.array([row, column], np.int64), "first")
            end = graph.keep(np.array(ends, np.int64), "end")
            seen = (*shape[:2], *out[2:])
            made.append(graph.add("Slice", [given, first, end, axes, by], node.name, shape=seen))
    return made


def _by_channel(
    graph: Graph, node: onnx.NodeProto, shifted: list[str], kernel: Values, out: Shape
) -> str:
    """Each channel by itself: products with one number for each."""
    columns = kernel.reshape(len(kernel), -1).T[:, :, None, None].astype(np.float64)
    parts = [
        graph.add("Mul", [seen, graph.keep(column, "weights")], node.name, shape=out)
        for seen, column in zip(shifted, columns, strict=True)
    ]
    return graph.add("Sum", parts, node.name, shape=out)


def _of_all(
    graph: Graph,
    node: onnx.NodeProto,
    shifted: list[str],
    kernel: Values,
    out: Shape,
    rows: Rows,
) -> str:
    """All channels together: one product with a matrix."""
    batch, _, high, wide = out
    inputs = kernel[0].size
    joined = shifted[0]
    if len(shifted) > 1:
        shape = (batch, inputs, high, wide)
        joined = graph.add("Concat", shifted, node.name, shape=shape, axis=1)
    flat = graph.keep(np.array([batch, inputs, high * wide], np.int64), "flat")
    joined = graph.add("Reshape", [joined, flat], node.name, shape=(batch, inputs, high * wide))
    found = rows.codes(kernel, 0)

    def arranged(values: Values) -> Values:
        """(outputs, places of the kernel * inputs)."""
        return np.moveaxis(values, 1, -1).reshape(len(values), -1)

    if found is None:
        weight = graph.keep(arranged(kernel), node.input[1])
    else:
        weight = stored(graph, node.input[1], arranged(found[0]), found[1], 0)
    product = graph.add(
        "MatMul",
        [_double(graph, weight), joined],
        node.name,
        shape=(batch, out[1], high * wide),
    )
    planes = graph.keep(np.array(out, np.int64), "planes")
    return graph.add("Reshape", [product, planes], node.name, shape=out)


def _weight(graph: Graph, name: str, axis: int, rows: Rows) -> str:
    found = rows.codes(graph.value(name), axis)
    return name if found is None else stored(graph, name, *found, axis)


def _double(graph: Graph, name: str) -> str:
    """A float32 tensor in double precision; others, and none, as they are."""
    if not name or (graph.constant(name) and graph.value(name).dtype != np.float32):
        return name
    shape = graph.shapes.get(name)
    return graph.add("Cast", [name], f"{name}.double", shape=shape, to=onnx.TensorProto.DOUBLE)


def _single(graph: Graph, name: str) -> str:
    shape = graph.shapes.get(name)
    return graph.add("Cast", [name], f"{name}.single", shape=shape, to=onnx.TensorProto.FLOAT)
