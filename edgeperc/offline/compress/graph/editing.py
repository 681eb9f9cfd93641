"""A graph under change: who makes a tensor, who takes it, and new nodes beside the old ones.

    graph = Graph(model)
    for node in graph.all("Transpose"):
        graph.instead(node.output[0], node.input[0])
    graph.close()

Shapes are those of the graph as it was opened, and those that new nodes were given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgeperc.offline.onnx_tidy import shapes_of, trimmed

Values: TypeAlias = NDArray[Any]
Shape: TypeAlias = tuple[int, ...]


class Graph:
    """A model whose nodes are changed in place; `close` drops what nobody takes and sorts."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.shapes: dict[str, Shape] = shapes_of(model)
        self.outputs = {value.name for value in model.graph.output}
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._dropped: set[str] = set()
        self._made = 0
        self._index()

    def all(self, *kinds: str) -> list[onnx.NodeProto]:
        """The nodes of some operators, in order."""
        nodes = [node for node in self.model.graph.node if node.op_type in kinds]
        return [node for node in nodes if node.output[0] not in self._dropped]

    def maker(self, name: str) -> onnx.NodeProto | None:
        """The node that a tensor comes from; None for constants and inputs."""
        return self._makers.get(name)

    def takers(self, name: str) -> list[onnx.NodeProto]:
        """The nodes that take a tensor."""
        return self._takers.get(name, [])

    def only_taker(self, name: str) -> onnx.NodeProto | None:
        """The one node that takes a tensor; None if there are more, or it is an output."""
        takers = self.takers(name)
        return takers[0] if len(takers) == 1 and name not in self.outputs else None

    def constant(self, name: str) -> bool:
        """Whether a tensor is a constant."""
        return name in self._constants

    def value(self, name: str) -> Values:
        """Numbers of a constant."""
        return numpy_helper.to_array(self._constants[name])

    def keep(self, value: Values, name: str) -> str:
        """A new constant; its name, which begins with `name`."""
        tensor = numpy_helper.from_array(np.ascontiguousarray(value), self._fresh(name))
        if value.ndim == 0:
            tensor = numpy_helper.from_array(value, tensor.name)
        self.model.graph.initializer.append(tensor)
        self._constants[tensor.name] = tensor
        return tensor.name

    def add(
        self,
        kind: str,
        inputs: Sequence[str],
        name: str,
        *,
        shape: Shape | None = None,
        **attributes: Any,
    ) -> str:
        """A new node; the name of its output, which begins with `name`."""
        out = self._fresh(name)
        node = helper.make_node(kind, list(inputs), [out], name=out, **attributes)
        self.model.graph.node.append(node)
        if shape is not None:
            self.shapes[out] = shape
        self._note(self.model.graph.node[-1])
        return out

    def instead(self, old: str, new: str) -> None:
        """Let all that take `old` take `new`. An output of the graph keeps its name."""
        if old in self.outputs:
            self._rename(new, old)
            return
        for node in list(self.takers(old)):
            for index, name in enumerate(node.input):
                if name == old:
                    self.feed(node, index, new)

    def feed(self, node: onnx.NodeProto, index: int, name: str) -> None:
        """Let a node take another tensor as one of its inputs."""
        before = node.input[index]
        node.input[index] = name
        if before not in node.input:
            takers = self._takers[before]
            takers[:] = [each for each in takers if each is not node]
        takers = self._takers.setdefault(name, [])
        if not any(each is node for each in takers):
            takers.append(node)

    def drop(self, node: onnx.NodeProto) -> None:
        """Let a node whose outputs nobody takes take nothing, and so on up; `close` removes it."""
        if any(self.takers(name) or name in self.outputs for name in node.output):
            return
        self._dropped.add(node.output[0])
        for name in dict.fromkeys(node.input):
            takers = self.takers(name)
            takers[:] = [each for each in takers if each is not node]
            maker = self.maker(name)
            if maker is not None:
                self.drop(maker)

    def close(self) -> onnx.ModelProto:
        """Sort the nodes, drop constants and nodes that nobody takes, keep equal ones once."""
        nodes = _sorted(list(self.model.graph.node))
        del self.model.graph.node[:]
        self.model.graph.node.extend(nodes)
        return trimmed(self.model)

    def _rename(self, new: str, old: str) -> None:
        """`old`, an output of the graph, is made by whoever made `new`."""
        maker = self._makers[new]
        former = self._makers[old]
        former.output[list(former.output).index(old)] = self._fresh(old)
        maker.output[list(maker.output).index(new)] = old
        for node in self.takers(new):
            for index, name in enumerate(node.input):
                if name == new:
                    node.input[index] = old
        self._index()

    def _fresh(self, name: str) -> str:
        self._made += 1
        return f"{name}.{self._made}"

    def _index(self) -> None:
        self._makers: dict[str, onnx.NodeProto] = {}
        self._takers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.model.graph.node:
            self._note(node)

    def _note(self, node: onnx.NodeProto) -> None:
        for name in node.output:
            self._makers[name] = node
        for name in dict.fromkeys(node.input):
            self._takers.setdefault(name, []).append(node)


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """An attribute of a node, as plain numbers."""
    for each in node.attribute:
        if each.name == name:
            return helper.get_attribute_value(each)
    return default


def _sorted(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Nodes so that each comes behind those it takes from, otherwise as they were."""
    made = {name for node in nodes for name in node.output}
    ready: set[str] = set()
    ordered: list[onnx.NodeProto] = []
    waiting = nodes
    while waiting:
        left = []
        for node in waiting:
            if all(name in ready or name not in made for name in node.input):
                ordered.append(node)
                ready.update(node.output)
            else:
                left.append(node)
        if len(left) == len(waiting):
            raise ValueError(f"'{left[0].name}' depends on itself")
        waiting = left
    return ordered


def key_of(row: Values) -> bytes:
    """What equal rows of weights have in common: their bytes as float32, no negative zeros."""
    values: bytes = (np.ascontiguousarray(row, np.float32) + np.float32(0)).tobytes()
    return values
