"""An ONNX file cut at the operators that we run ourselves, without the onnx package.

    parts = cut(read(path.read_bytes()))                     # pieces for onnxruntime, scans between

A node of the domain "edgeperc" has a function of plain operators in the file, so any runtime can
run the whole; where a kernel of ours does the node, the graph falls into the pieces around such
nodes. Nodes that do not wait for each other share a gap, so that pieces are few.

The messages below are the part of onnx.proto (Apache-2.0, github.com/onnx/onnx) that this needs,
by the numbers that its format fixes; what they leave out is kept as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from numpy.typing import NDArray

from edgeperc.errors import ModelError

DOMAIN = "edgeperc"
_FLOAT = 1  # TensorProto.DataType

_MESSAGES = {
    "Model": {"graph": (7, "Graph"), "functions": (25, "Function*"), "opset_import": (8, "Opset*")},
    "Opset": {"domain": (1, "string"), "version": (2, "int")},
    "Function": {"name": (1, "string"), "domain": (10, "string")},
    "Graph": {
        "node": (1, "Node*"),
        "name": (2, "string"),
        "initializer": (5, "Tensor*"),
        "input": (11, "Value*"),
        "output": (12, "Value*"),
        "value_info": (13, "Value*"),
    },
    "Node": {
        "input": (1, "string*"),
        "output": (2, "string*"),
        "name": (3, "string"),
        "op_type": (4, "string"),
        "attribute": (5, "Attribute*"),
        "domain": (7, "string"),
    },
    "Attribute": {
        "name": (1, "string"),
        "i": (3, "int"),
        "t": (5, "Tensor"),
        "g": (6, "Graph"),
    },
    "Tensor": {
        "dims": (1, "int*"),
        "data_type": (2, "int32"),
        "float_data": (4, "float*"),
        "name": (8, "string"),
        "raw_data": (9, "bytes"),
    },
    "Value": {"name": (1, "string"), "type": (2, "Type")},
    "Type": {"tensor_type": (1, "TensorType")},
    "TensorType": {"elem_type": (1, "int32")},
}


@dataclass(frozen=True)
class Scan:
    """A node that a kernel of ours runs. tables: its constant inputs, by their place."""

    kind: str
    inputs: tuple[str, ...]
    output: str
    tables: dict[int, NDArray[np.float32]]
    attributes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Piece:
    """A graph for onnxruntime, and the scans for which it was waited. model: serialised."""

    model: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    scans: tuple[Scan, ...]


@dataclass(frozen=True)
class Cut:
    """inputs, outputs: of the whole. pieces: in order, each made when it is asked for, because it
    holds its weights; the scans of one follow it.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    pieces: Iterator[Piece]


def cut(model: Any) -> Cut:
    """Cut a model of `read` at the nodes of our domain.

    Raises ModelError if a weight is NaN or infinite.
    """
    check_finite(model.graph.initializer)
    return _Cutter(model).cut()


def read(content: bytes) -> Any:
    """Parse a serialised model. Raises ModelError if it is none."""
    model = _types()["Model"]()
    try:
        model.ParseFromString(content)
    except Exception:  # protobuf's DecodeError has no public home in all of its versions
        raise ModelError("it is not an ONNX file") from None
    if not model.graph.node:
        raise ModelError("it is an ONNX file without operators")
    return model


def check_finite(tensors: Iterable[Any]) -> None:
    """Raise ModelError that names the first float32 weight with a NaN or an infinity."""
    for tensor in tensors:
        if tensor.data_type == _FLOAT and not np.isfinite(values(tensor)).all():
            raise ModelError(
                f"weight '{tensor.name}' holds values that are not finite",
                hint="its training went astray, or the file is damaged; export it again",
            )


def values(tensor: Any) -> NDArray[np.float32]:
    """The numbers of a float32 tensor in the file."""
    if tensor.raw_data:
        flat = np.frombuffer(tensor.raw_data, np.float32)
    else:
        flat = np.array(tensor.float_data, np.float32)
    return flat.reshape(tuple(tensor.dims))


class _Cutter:
    """Each tensor has a level, the scans on the longest way to it; a node is in its level's piece.

    What depends on no input, such as constants, is repeated in each piece that wants it.
    """

    def __init__(self, model: Any) -> None:
        self._model, graph = model, model.graph
        self._weights = {each.name: each for each in graph.initializer}
        self._known = {v.name: v for v in (*graph.value_info, *graph.input, *graph.output)}
        self._inputs = tuple(v.name for v in graph.input if v.name not in self._weights)
        self._outputs = tuple(v.name for v in graph.output)
        self._level = dict.fromkeys(self._inputs, 0)
        self._constant: dict[str, Any] = {}  # tensor -> the node that makes it of constants
        self._same = dict(self._weights)  # as far as the scans care; with other names of weights
        self._nodes: list[list[Any]] = [[]]
        self._scans: list[list[Any]] = [[]]
        for node in graph.node:
            self._place(node)

    def cut(self) -> Cut:
        return Cut(self._inputs, self._outputs, self._pieces())

    def _pieces(self) -> Iterator[Piece]:
        made_in: dict[str, int] = {}
        for level, nodes in enumerate(self._nodes):
            made_in |= {name: level for node in nodes for name in node.output}
        wanted_by = [set(self._needs(level)) for level in range(len(self._nodes))]
        scanned = [{n for s in scans for n in s.input if n in self._level} for scans in self._scans]
        for level in range(len(self._nodes)):
            later = set(self._outputs).union(*wanted_by[level + 1 :], *scanned[level:])
            outputs = [name for name in made_in if made_in[name] == level and name in later]
            scans = tuple(self._scan(node) for node in self._scans[level])
            inputs = tuple(sorted(wanted_by[level]))
            yield Piece(self._piece(level, inputs, outputs), inputs, tuple(outputs), scans)

    def _place(self, node: Any) -> None:
        names = [name for name in _reads(node) if name in self._level]
        ours = node.domain == DOMAIN
        if not names and not ours:
            if node.op_type == "Identity" and node.input[0] in self._same:
                self._same[node.output[0]] = self._same[node.input[0]]
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self._same[node.output[0]] = node.attribute[0].t
            self._constant |= dict.fromkeys(node.output, node)
            return
        level = max((self._level[name] for name in names), default=0)
        (self._scans if ours else self._nodes)[level].append(node)
        self._level |= dict.fromkeys(node.output, level + ours)
        while len(self._nodes) <= level + ours:
            self._nodes.append([])
            self._scans.append([])

    def _needs(self, level: int) -> Iterator[str]:
        """What a piece reads that it does not make."""
        made = {name for node in self._nodes[level] for name in node.output}
        for node in self._nodes[level]:
            yield from (n for n in _reads(node) if n in self._level and n not in made)

    def _scan(self, node: Any) -> Scan:
        constant = [k for k, name in enumerate(node.input) if name not in self._level]
        if computed := [node.input[k] for k in constant if node.input[k] not in self._same]:
            raise ModelError(f"input '{computed[0]}' of a scan is neither a weight nor computed")
        tables = {k: values(self._same[node.input[k]]) for k in constant}
        attributes = {each.name: each.i for each in node.attribute}
        return Scan(node.op_type, tuple(node.input), node.output[0], tables, attributes)

    def _piece(self, level: int, inputs: tuple[str, ...], outputs: list[str]) -> bytes:
        """A model of one level's nodes."""
        model = _types()["Model"]()
        model.CopyFrom(self._without_graph())
        graph = model.graph
        graph.name = f"piece {level}"
        body = self._nodes[level]
        wanted = {name for node in body for name in _reads(node)}
        helpers: list[Any] = []
        self._constants_of(wanted, helpers, set())
        graph.node.extend([*helpers, *body])
        wanted |= {name for node in helpers for name in node.input}
        graph.input.extend(self._value(name) for name in inputs)
        graph.output.extend(self._value(name) for name in outputs)
        weights = (self._weights[name] for name in sorted(wanted & set(self._weights)))
        return b"".join([model.SerializeToString(), *(p for w in weights for p in _appended(w))])

    def _constants_of(self, names: set[str], found: list[Any], seen: set[str]) -> None:
        """Append the nodes that make these of constants, in order."""
        for name in sorted(names):
            node = self._constant.get(name)
            if node is not None and node.output[0] not in seen:
                seen.add(node.output[0])
                self._constants_of(set(node.input), found, seen)
                found.append(node)

    def _without_graph(self) -> Any:
        """Versions and what else stands beside the graph; plain operators need no functions."""
        if not hasattr(self, "_frame"):
            frame = _types()["Model"]()
            frame.ParseFromString(_field_free(self._model))
            self._frame = frame
        return self._frame

    def _value(self, name: str) -> Any:
        value = _types()["Value"]()
        if name in self._known:
            value.CopyFrom(self._known[name])
        else:
            value.name = name
            value.type.tensor_type.elem_type = _FLOAT
        return value


def _appended(weight: Any) -> list[bytes]:
    """What adds an initializer to the graph when it stands behind a serialised model.

    The format joins the parts of a message that comes twice; so weights need not be copied into
    one, which takes twice their size in memory.
    """
    content: bytes = weight.SerializeToString()
    tensor = [b"\x2a", _varint(len(content)), content]  # field 5 of the graph
    return [b"\x3a", _varint(sum(map(len, tensor))), *tensor]  # field 7 of the model


def _varint(value: int) -> bytes:
    """A number as protobuf writes it: seven bits a byte, the low ones first."""
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def _field_free(model: Any) -> bytes:
    """A model's bytes without graph and functions."""
    whole = type(model)()
    whole.opset_import.extend(model.opset_import)
    content: bytes = whole.SerializeToString()
    return b"\x08" + bytes([_IR_VERSION]) + content


_IR_VERSION = 8
"""Of the pieces: they have no functions, which need a later one."""


def _reads(node: Any) -> Iterator[str]:
    """Inputs of a node, with those that a graph within it takes from outside."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _reads(inner)


@lru_cache
def _types() -> dict[str, Any]:
    """Message classes of `_MESSAGES`."""
    kinds = {"string": 9, "bytes": 12, "int": 3, "int32": 5, "float": 2}
    file = descriptor_pb2.FileDescriptorProto(
        name="edgeperc/onnx_part.proto", package="edgeperc.onnx"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for key, (number, kind) in fields.items():
            plain = kind.rstrip("*")
            entry = message.field.add(name=key, number=number)
            entry.label = 3 if kind.endswith("*") else 1
            entry.type = kinds.get(plain, 11)
            if plain not in kinds:
                entry.type_name = f".edgeperc.onnx.{plain}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"edgeperc.onnx.{name}"))
        for name in _MESSAGES
    }
