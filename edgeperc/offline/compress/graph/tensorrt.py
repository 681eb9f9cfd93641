"""A traced graph of a simulated network as TensorRT takes it: INT8 with a sign, zero points 0.

    model, counts = for_tensorrt(model, rows)

Codes are rounded to right before the products and convolutions whose weights are codes, too, which
is where TensorRT fuses; biases stay floats, since its parser takes no DequantizeLinear of int32.
Only standard operators, opset 17, which TensorRT 8.6 and 10 read. Not run on hardware. Sources:
NVIDIA, TensorRT documentation, "Explicit Quantization"; onnx/onnx-tensorrt issue 850.
"""

from __future__ import annotations

import numpy as np
import onnx

from edgeperc.errors import ModelError
from edgeperc.offline.compress.graph.editing import Graph
from edgeperc.offline.compress.graph.weights import Rows, output_axis, quantized, stored

OPSET = 17
SHIFT = 128
PRODUCTS = ("MatMul", "Gemm", "Conv", "ConvTranspose")


def for_tensorrt(model: onnx.ModelProto, rows: Rows) -> tuple[onnx.ModelProto, dict[str, int]]:
    """Change the model and return it, with how many products and convolutions run on codes, of how
    many. rows: of the weights that are on a grid.

    Raises ModelError where a grid is not symmetric, or codes are taken by anything else.
    """
    graph = Graph(model)
    on_codes = 0
    for node in graph.all(*PRODUCTS):
        grid = quantized(graph, node.input[0])
        if grid is None or not graph.constant(node.input[1]):
            continue
        axis = output_axis(node)
        found = rows.codes(graph.value(node.input[1]), axis)
        if found is None:
            raise ModelError(f"{node.name}: its input is rounded, and its weight is not")
        graph.feed(node, 1, stored(graph, node.input[1], *found, axis))
        on_codes += 1
    for node in graph.all("DequantizeLinear"):
        if quantized(graph, node.output[0]) is not None:
            _signed(graph, node)
    products = len(graph.all(*PRODUCTS))
    return graph.close(), {"products": products, "in integers": on_codes, "in 4 bits": 0}


def _signed(graph: Graph, values: onnx.NodeProto) -> None:
    """Codes with a sign and zero point 0 in place of those without, for all that take them."""
    others = {node.op_type for node in graph.takers(values.output[0])} - set(PRODUCTS)
    if others:
        raise ModelError(
            f"{values.name}: {others.pop()} takes what is rounded, and TensorRT rounds before "
            "layers alone",
            hint='matmul = "none" and softmax = "none" in the quantize passes',
        )
    rounded = graph.maker(values.input[0])
    assert rounded is not None
    if rounded.op_type != "QuantizeLinear" or int(graph.value(values.input[2])) != SHIFT:
        raise ModelError(
            f"{values.name}: its codes are not all of int8 around zero, TensorRT takes no others",
            hint='act = "centred8" in the quantize passes',
        )
    zero = graph.keep(np.asarray(0, np.int8), "zero")
    graph.feed(rounded, 2, zero)
    graph.feed(values, 2, zero)
