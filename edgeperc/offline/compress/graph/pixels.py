"""1 x 1 convolutions of codes as products of rows: one row for each pixel, its channels along it.

onnxruntime has no convolution that takes codes and gives floats, but such a product it has. So what
a 1 x 1 convolution gives need not be rounded, and its activation works on what the product gives.
What stands between such convolutions (activations, sums, rounding, joined channels, enlargement)
is done on rows as well; pixels go back into planes only before what needs its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
import onnx

from edgeperc.offline.compress.graph.editing import Graph, attribute
from edgeperc.offline.compress.graph.weights import Rows, quantized

TO_PLANES, TO_PIXELS = [0, 3, 1, 2], [0, 2, 3, 1]
EACH = ("Add", "Clip", "DequantizeLinear", "Gelu", "Mul", "QuantizeLinear", "Sigmoid", "Sub")
"""Operators that do the same to each value, wherever it stands."""


def convolutions_as_products(graph: Graph, rows: Rows, rounded: Collection[str] = ()) -> int:
    """Change 1 x 1 convolutions whose input and weight are on grids; how many there were.

    rounded: what some convolutions give that is rounded anyway; these stay.
    """
    found = [
        node
        for node in graph.all("Conv")
        if node.output[0] not in rounded
        and _is_product(graph, node)
        and _on_grids(graph, node, rows)
    ]
    if not found:
        return 0
    pixels = _Pixels(graph)
    chosen = {node.output[0] for node in found}
    for node in list(graph.model.graph.node):
        if node.output and node.output[0] in chosen:
            pixels.multiply(node)
        elif len(node.output) == 1:
            pixels.follow(node)
    pixels.back()
    return len(found)


class _Pixels:
    """Which tensors (B, C, H, W) are there as rows (B * H * W, C), too."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.rows: dict[str, str] = {}
        self.entered: set[str] = set()

    def multiply(self, node: onnx.NodeProto) -> None:
        """A 1 x 1 convolution as a product, and a sum with its bias."""
        graph, name = self.graph, node.name or node.output[0]
        weight = graph.value(node.input[1])
        matrix = graph.keep(weight.reshape(weight.shape[:2]).T, f"{node.input[1]}.matrix")
        shape = self._flat(node.output[0])
        made = graph.add("MatMul", [self.of(node.input[0]), matrix], name, shape=shape)
        if len(node.input) > 2:
            made = graph.add("Add", [made, node.input[2]], name, shape=shape)
        self.rows[node.output[0]] = made

    def follow(self, node: onnx.NodeProto) -> None:
        """Whatever can be done on rows as well, where what it takes is there as rows."""
        if not any(name in self.rows for name in node.input):
            return
        out, graph = node.output[0], self.graph
        if node.op_type == "Transpose" and attribute(node, "perm") == TO_PIXELS:
            graph.instead(out, self._reshaped(self.rows[node.input[0]], graph.shapes[out]))
        elif (node.op_type in EACH and self._alike(node)) or (
            node.op_type == "Concat" and attribute(node, "axis") == 1
        ):
            self._same(node)
        elif node.op_type == "Resize" and attribute(node, "mode", b"nearest") == b"nearest":
            self._enlarge(node)

    def back(self) -> None:
        """To planes for all that is not done on rows."""
        for name, made in list(self.rows.items()):
            if name not in self.entered:
                self.graph.instead(name, self._planes(made, name))

    def of(self, name: str) -> str:
        """A tensor as rows."""
        if name not in self.rows:
            graph, shape = self.graph, self.graph.shapes[name]
            maker = graph.maker(name)
            if maker is not None and maker.op_type in ("QuantizeLinear", "DequantizeLinear"):
                inputs = [self.of(maker.input[0]), *maker.input[1:]]
                rows = graph.add(maker.op_type, inputs, maker.name, shape=self._flat(name))
            elif maker is not None and _to_planes(maker):
                rows = self._reshaped(maker.input[0], self._flat(name))
            else:
                to = tuple(shape[axis] for axis in TO_PIXELS)
                wide = graph.add("Transpose", [name], name, shape=to, perm=TO_PIXELS)
                rows = self._reshaped(wide, self._flat(name))
            self.rows[name] = rows
            self.entered.add(name)
        return self.rows[name]

    def _alike(self, node: onnx.NodeProto) -> bool:
        """Whether all that it takes is of one shape, or one number, or one for each channel."""
        shape = self.graph.shapes.get(node.output[0], ())
        return all(
            not name
            or (
                self.graph.value(name).size == 1
                or self.graph.value(name).shape == (*shape[1:2], 1, 1)
                if self.graph.constant(name)
                else self.graph.shapes.get(name) == shape
            )
            for name in node.input
        )

    def _same(self, node: onnx.NodeProto) -> None:
        inputs = [
            self._constant(n) if self.graph.constant(n) else n and self.of(n) for n in node.input
        ]
        given = {each.name: attribute(node, each.name) for each in node.attribute}
        self.rows[node.output[0]] = self.graph.add(
            node.op_type, inputs, node.name, shape=self._flat(node.output[0]), **given
        )

    def _constant(self, name: str) -> str:
        """A constant as it goes with rows."""
        value = self.graph.value(name)
        return name if value.ndim != 3 else self.graph.keep(value.reshape(-1), name)

    def _enlarge(self, node: onnx.NodeProto) -> None:
        graph = self.graph
        batch, channels, height, width = graph.shapes[node.input[0]]
        out = graph.shapes[node.output[0]]
        scales = np.array([1, out[2] / height, out[3] / width, 1], np.float32)
        wide = self._reshaped(self.of(node.input[0]), (batch, height, width, channels))
        inputs = [wide, "", graph.keep(scales, "scales")]
        given = {each.name: attribute(node, each.name) for each in node.attribute}
        to = (out[0], out[2], out[3], out[1])
        made = graph.add("Resize", inputs, node.name, shape=to, **given)
        self.rows[node.output[0]] = self._reshaped(made, self._flat(node.output[0]))

    def _planes(self, rows: str, name: str) -> str:
        """Rows as planes again; codes where it is codes that the values are made of."""
        graph, shape = self.graph, self.graph.shapes[name]
        batch, channels, height, width = shape
        grid = quantized(graph, rows)
        codes = rows if grid is None else grid.input[0]
        wide = self._reshaped(codes, (batch, height, width, channels))
        made = graph.add("Transpose", [wide], name, shape=shape, perm=TO_PLANES)
        if grid is None:
            return made
        return graph.add("DequantizeLinear", [made, *grid.input[1:]], name, shape=shape)

    def _reshaped(self, name: str, shape: tuple[int, ...]) -> str:
        if self.graph.shapes.get(name) == shape:
            return name
        lengths = self.graph.keep(np.array(shape, np.int64), "shape")
        return self.graph.add("Reshape", [name, lengths], name, shape=shape)

    def _flat(self, name: str) -> tuple[int, int]:
        batch, channels, *rest = self.graph.shapes[name]
        return batch * math.prod(rest), channels


def _to_planes(node: onnx.NodeProto) -> bool:
    return node.op_type == "Transpose" and attribute(node, "perm") == TO_PLANES


def _is_product(graph: Graph, node: onnx.NodeProto) -> bool:
    return (
        set(attribute(node, "kernel_shape", [0])) == {1}
        and set(attribute(node, "strides", [1])) == {1}
        and not any(attribute(node, "pads", [0]))
        and attribute(node, "group", 1) == 1
        and graph.constant(node.input[1])
        and all(graph.constant(name) for name in node.input[2:])
        and len(graph.shapes.get(node.input[0], ())) == 4
    )


def _on_grids(graph: Graph, node: onnx.NodeProto, rows: Rows) -> bool:
    found = rows.codes(graph.value(node.input[1]), 0)
    return found is not None and quantized(graph, node.input[0]) is not None
