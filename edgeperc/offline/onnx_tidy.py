"""Make a graph that small runtimes can build an engine of: constants computed, kept once, no traps.

model = tidy(onnx.load(path))
complaints = unfit(model)        # none, if it may be written
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

UNWANTED = frozenset({"OneHot", "If", "Loop", "Scan", "NonZero", "Range", "Where", "ScatterND"})
"""Operators on which engine builders of edge devices stumble."""

_SHAPE_ARGUMENTS = {
    "Reshape": (1,),
    "Expand": (1,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Unsqueeze": (1,),
    "Squeeze": (1,),
    "Pad": (1, 3),
    "Resize": (3,),
    "Tile": (1,),
    "ReduceSum": (1,),
    "ReduceMin": (1,),
    "ReduceMax": (1,),
    "ReduceMean": (1,),
    "ReduceL2": (1,),
    "ConstantOfShape": (0,),
    "Gather": (1,),
}
"""Operator -> its inputs that may be integers: shapes, axes, bounds, constant places."""

_LARGE = 1024
"""Constants of more numbers are no shapes."""


def tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Compute what does not depend on the inputs, keep equal constants once, drop what is unused.

    Changes the model and returns it.
    """
    _constants_to_initializers(model.graph)
    _fold(model)
    while _known_shapes(model) | _decided(model.graph):
        _constants_to_initializers(model.graph)
        _fold(model)
    return trimmed(model)


def trimmed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Keep equal constants once and drop what is unused; changes the model and returns it."""
    _skip_identities(model.graph)
    _share(model.graph)
    _drop_unused(model.graph)
    return model


def shapes_of(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Name of a tensor -> its lengths, 0 where one is open; only of those that can be told."""
    graph = _inferred(model)
    shapes = {each.name: tuple(each.dims) for each in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        if value.type.tensor_type.HasField("shape"):
            shapes[value.name] = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    return shapes


def unfit(model: onnx.ModelProto, *, open_axes: bool = False) -> list[str]:
    """What in a graph engine builders stumble over, one line each; none if all is well.

    open_axes: some lengths are not fixed, so that shapes are computed from those of the inputs.
    """
    known = {initializer.name for initializer in model.graph.initializer}
    types = _types(model)
    found = [
        f"{node.op_type} '{node.name}'" for node in model.graph.node if node.op_type in UNWANTED
    ]
    for node in () if open_axes else model.graph.node:
        if node.op_type in ("Tile", "Expand", "Reshape", "Slice") and not set(
            node.input[1:]
        ).issubset({*known, ""}):
            found.append(f"{node.op_type} '{node.name}' of a shape that depends on the data")
        for index, name in enumerate(node.input):
            if types.get(name) == TensorProto.INT64 and index not in _SHAPE_ARGUMENTS.get(
                node.op_type, ()
            ):
                found.append(f"{node.op_type} '{node.name}' computes with the integers '{name}'")
    found += [
        f"'{value.name}' is of integers"
        for value in (*model.graph.input, *model.graph.output)
        if value.type.tensor_type.elem_type != TensorProto.FLOAT
    ]
    return found


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """Name of a tensor -> its element type, as far as it can be told."""
    graph = _inferred(model)
    types = {each.name: each.data_type for each in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        types[value.name] = value.type.tensor_type.elem_type
    return types


def _inferred(model: onnx.ModelProto) -> onnx.GraphProto:
    """The graph with all shapes that can be told.

    Large constants are inputs of it, since no shape depends on their values: inference copies all
    that it is given, and takes no more than 2 GB.
    """
    graph = model.graph
    large = [each for each in graph.initializer if math.prod(each.dims) > _LARGE]
    values = [helper.make_tensor_value_info(each.name, each.data_type, each.dims) for each in large]
    light = onnx.GraphProto(name=graph.name, node=graph.node, value_info=graph.value_info)
    light.input.extend([*graph.input, *values])
    light.output.extend(graph.output)
    light.initializer.extend(each for each in graph.initializer if math.prod(each.dims) <= _LARGE)
    part = helper.make_model(light, opset_imports=model.opset_import, ir_version=model.ir_version)
    return shape_inference.infer_shapes(part).graph


def _constants_to_initializers(graph: onnx.GraphProto) -> None:
    others = []
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = node.attribute[0].t
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
        else:
            others.append(node)
    _replace_nodes(graph, others)


def _fold(model: onnx.ModelProto) -> None:
    """Run the nodes that see only constants, and keep what the others take of them."""
    graph = model.graph
    known = {initializer.name for initializer in graph.initializer}
    constant, others = [], []
    for node in graph.node:
        if known.issuperset(_needs(node)):
            constant.append(node)
            known.update(node.output)
        else:
            others.append(node)
    made = {name for node in constant for name in node.output}
    wanted = made & {
        *(name for node in others for name in _needs(node)),
        *(value.name for value in graph.output),
    }
    if not wanted:
        return
    values = _computed(model, constant, sorted(wanted))
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values)
    _replace_nodes(graph, others)


def _known_shapes(model: onnx.ModelProto) -> bool:
    """Let the shapes of tensors that have but one be constants; whether there were any."""
    del model.graph.value_info[:]
    inferred = _inferred(model)
    shapes = {value.name: value.type.tensor_type.shape for value in inferred.value_info}
    shapes |= {value.name: value.type.tensor_type.shape for value in inferred.input}
    others = []
    for node in model.graph.node:
        shape = shapes.get(node.input[0]) if node.op_type == "Shape" else None
        if shape is None or not all(each.HasField("dim_value") for each in shape.dim):
            others.append(node)
            continue
        lengths = np.array([each.dim_value for each in shape.dim], np.int64)
        model.graph.initializer.append(numpy_helper.from_array(lengths, node.output[0]))
    found = len(others) < len(model.graph.node)
    _replace_nodes(model.graph, others)
    return found


def _decided(graph: onnx.GraphProto) -> bool:
    """Put the branch in place of each If whose condition is constant; whether there were any."""
    known = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "If" or node.input[0] not in known:
            nodes.append(node)
            continue
        taken = bool(numpy_helper.to_array(known[node.input[0]]))
        branches = {attribute.name: attribute.g for attribute in node.attribute}
        branch = branches["then_branch" if taken else "else_branch"]
        nodes += branch.node
        graph.initializer.extend(branch.initializer)
        nodes += [
            helper.make_node("Identity", [inner.name], [name])
            for inner, name in zip(branch.output, node.output, strict=True)
        ]
    found = any(node.op_type == "If" and node.input[0] in known for node in graph.node)
    _replace_nodes(graph, nodes)
    return found


def _computed(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], names: list[str]
) -> Iterator[tuple[str, NDArray[np.generic]]]:
    used = {name for node in nodes for name in _needs(node)}
    types = _types(model)
    graph = helper.make_graph(
        nodes,
        "constants",
        [],
        [helper.make_tensor_value_info(name, types[name], None) for name in names],
        [each for each in model.graph.initializer if each.name in used],
    )
    part = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        part.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    yield from zip(names, session.run(names, {}), strict=True)


def _needs(node: onnx.NodeProto) -> set[str]:
    """Names of what a node takes, the graphs of its branches included."""
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            inner = attribute.g
            made = {name for each in inner.node for name in each.output}
            made |= {each.name for each in inner.initializer}
            names |= {name for each in inner.node for name in _needs(each)} - made
    return names


def _share(graph: onnx.GraphProto) -> None:
    """Let equal constants be one."""
    first: dict[bytes, str] = {}
    instead: dict[str, str] = {}
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        digest = hashlib.sha256(f"{values.dtype}{values.shape}".encode())
        digest.update(np.ascontiguousarray(values).data)
        instead[tensor.name] = first.setdefault(digest.digest(), tensor.name)
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = instead.get(name, name)


def _skip_identities(graph: onnx.GraphProto) -> None:
    """Let nodes take from before an Identity; one that makes an output of the graph stays."""
    outputs = {value.name for value in graph.output}
    before: dict[str, str] = {}
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = before.get(name, name)
        if node.op_type == "Identity" and node.output[0] not in outputs:
            before[node.output[0]] = node.input[0]


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if used.intersection(node.output):
            kept.append(node)
            used.update(_needs(node))
    _replace_nodes(graph, kept[::-1])
    constants = [each for each in graph.initializer if each.name in used]
    del graph.initializer[:]
    graph.initializer.extend(constants)


def _replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    del graph.node[:]
    graph.node.extend(nodes)
