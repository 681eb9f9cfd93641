"""A traced graph of a simulated network to one that onnxruntime runs in integers.

model = in_integers(model, rows)

All changes keep what the graph computes, up to rounding of float32 and, of biases, to the unit of
the sums. Their order is that of the calls below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import onnx
import onnxruntime as ort
from onnx import helper

from edgeperc.offline.compress.graph.attention import integer_products
from edgeperc.offline.compress.graph.convolutions import Range, convolutions
from edgeperc.offline.compress.graph.editing import Graph, Values
from edgeperc.offline.compress.graph.int4 import in_blocks
from edgeperc.offline.compress.graph.movement import codes_first
from edgeperc.offline.compress.graph.patches import patches
from edgeperc.offline.compress.graph.pixels import convolutions_as_products
from edgeperc.offline.compress.graph.pooling import pooled_in_place
from edgeperc.offline.compress.graph.thirds import thirds
from edgeperc.offline.compress.graph.weights import Rows, handed_on_in_float, weights_as_codes

TRACED_OPSET = 20
KINDS = ("MatMul", "Gemm", "Conv", "ConvTranspose")
IR_VERSIONS = {17: 8, 18: 8, 19: 9, 20: 9, 21: 10}
"""Opset -> the least version of the format that has it."""


def in_integers(
    model: onnx.ModelProto,
    rows: Rows,
    ranges: Mapping[str, Range] = MappingProxyType({}),
    *,
    rounded: bool = False,
) -> tuple[onnx.ModelProto, dict[str, int]]:
    """Change the model and return it, with how many products and convolutions run on codes, or with
    weights of 4 bits, of how many. rows: of the weights that are on a grid. ranges: see `observed`.
    rounded: what is multiplied by weights of 4 bits, too: faster, see `in_blocks`.
    """
    graph = Graph(model)
    thirds(graph)
    patches(graph)
    in_4_bits = in_blocks(graph, rows.blocks, rounded=rounded)
    pooled_in_place(graph)
    convolutions_as_products(graph, rows, ranges)
    integer_products(graph)
    weights_as_codes(graph, rows)
    convolutions(graph, ranges)
    codes_first(graph)
    handed_on_in_float(graph)
    model = graph.close()  # before it is counted: what was replaced is gone
    on_codes = [node for node in graph.all(*KINDS) if _on_codes(graph, node)]
    products = len(graph.all(*KINDS)) + in_4_bits
    counts = {"products": products, "in integers": len(on_codes), "in 4 bits": in_4_bits}
    return model, counts


def observed(model: onnx.ModelProto, samples: Sequence[Mapping[str, Values]]) -> dict[str, Range]:
    """Least and largest value of what each convolution gives for some inputs, by its name.

    A convolution runs in integers only if what it gives is rounded, too. None at all where the
    network rounds what some of them give by itself: then it knows what is rounded.
    """
    names = [node.output[0] for node in model.graph.node if node.op_type == "Conv"]
    if not names or _simulated(model, names):
        return {}
    looked = onnx.ModelProto()
    looked.CopyFrom(model)
    known = {value.name for value in model.graph.output}
    looked.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in names
        if name not in known
    )
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    providers = ["CPUExecutionProvider"]
    session = ort.InferenceSession(looked.SerializeToString(), options, providers=providers)
    ranges: dict[str, Range] = {}
    for sample in samples:
        for name, values in zip(names, session.run(names, dict(sample)), strict=True):
            low, high = ranges.get(name, (0.0, 0.0))
            ranges[name] = (min(low, float(values.min())), max(high, float(values.max())))
    return ranges


def _simulated(model: onnx.ModelProto, names: Sequence[str]) -> bool:
    rounded = {n.input[0] for n in model.graph.node if n.op_type == "QuantizeLinear"}
    others = {x for n in model.graph.node if n.op_type != "QuantizeLinear" for x in n.input}
    return any(name in rounded - others for name in names)


def _on_codes(graph: Graph, node: onnx.NodeProto) -> bool:
    makers = [graph.maker(name) for name in node.input[:2]]
    return all(each is not None and each.op_type == "DequantizeLinear" for each in makers)


def with_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Say that a model of opset 20 is of 21, which has the same operators with more types."""
    model.opset_import[0].version = opset
    model.ir_version = IR_VERSIONS[opset]
    return model
