"""Operations and bytes of each layer of an ONNX graph.

A layer is a node and the pointwise nodes behind it that alone take what it gives: what is between
them never goes to memory. Nodes that only rename the axes cost nothing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx

from edgeperc.offline.roofline import formulas
from edgeperc.offline.roofline.graph import Shaped, Tensor

CONVOLUTIONS = ("Conv", "ConvInteger", "QLinearConv", "ConvTranspose")
PRODUCTS = ("MatMul", "Gemm", "MatMulInteger", "QLinearMatMul")
VIEWS = ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Dropout")
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
_SPIKES_STAY = (*VIEWS, "Transpose", "Split", "Slice", "Gather", "MaxPool", "Cast")


def _table(costs: dict[int, str]) -> dict[str, int]:
    return {op: cost for cost, ops in costs.items() for op in ops.split()}


MOVES = _table(
    {
        0: "Transpose Concat Split Slice Gather GatherElements GatherND Pad Expand Tile "
        "DepthToSpace SpaceToDepth Where ScatterND ScatterElements ConstantOfShape"
    }
)
POINTWISE = _table(
    {
        1: "Add Sub Mul Relu Clip Neg Abs Max Min Cast Not And Or Sign Equal Greater Less "
        "GreaterOrEqual LessOrEqual LeakyRelu PRelu",
        2: "Div Sqrt Reciprocal Floor Ceil Round HardSigmoid HardSwish Mod",
        formulas.EXPONENTIAL: "Exp Log Erf Tanh Sigmoid Sin Cos Pow Softplus Elu",
        formulas.EXPONENTIAL + 4: "Gelu Mish",
    }
)
"""Operations an element; a division is two, functions made of polynomials as in `formulas`."""
_AN_INPUT = _table(
    {
        1: "ReduceMean ReduceSum ReduceMax ReduceMin GlobalAveragePool GlobalMaxPool ArgMax ArgMin "
        "CumSum",
        2: "ReduceL2 BatchNormalization",
        8: "LayerNormalization InstanceNormalization GroupNormalization",
        formulas.SOFTMAX: "Softmax LogSoftmax",
    }
)
"""Operations for each element of the first input."""


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor that a layer takes from memory or brings there.

    weight: a constant that is multiplied. quantizable: all who take it are layers with weights, so
    that it may be kept in their few bits.
    """

    name: str
    elements: int
    bits: int
    real: bool
    weight: bool = False
    quantizable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What one layer does. macs: multiply-adds; other: further operations, not part of any.

    op: operators, joined by "+". nodes: their names in the graph. factor_bits: of the wider of what
    it multiplies, in the file. spikes: its input is 0 or 1.
    """

    name: str
    op: str
    nodes: tuple[str, ...]
    macs: int
    other: int
    reads: tuple[Operand, ...]
    writes: tuple[Operand, ...]
    factor_bits: int = 32
    spikes: bool = False

    @property
    def has_weights(self) -> bool:
        """Whether it multiplies by constants: what a quantizer takes hold of."""
        return bool(self.macs) and any(each.weight for each in self.reads)

    @property
    def ops(self) -> int:
        """All operations, two for a multiply-add."""
        return 2 * self.macs + self.other


@dataclass(frozen=True, slots=True)
class Counted:
    """The layers of a graph in order, and operators taken for one operation an element."""

    layers: tuple[Layer, ...]
    guessed: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        """Of all layers."""
        return sum(layer.macs for layer in self.layers)


def count(graph: Shaped, *, fuse: bool = True) -> Counted:
    """Count a graph's layers. fuse: see the module; without, each node is a layer."""
    return _Counting(graph, fuse=fuse).result()


class _Counting:
    def __init__(self, graph: Shaped, *, fuse: bool) -> None:
        self._graph, self._tensors, self._fuse = graph, graph.tensors, fuse
        self._nodes = [
            node for node in graph.model.graph.node if not graph.constant.issuperset(node.output)
        ]
        self._root = self._roots()
        self._takers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self._nodes:
            if node.op_type not in (*VIEWS, *QUANTIZERS):
                for name in dict.fromkeys(self._root.get(n, n) for n in node.input if n):
                    self._takers[name].append(node)
        self._outputs = {self._root.get(v.name, v.name) for v in graph.model.graph.output}
        self._spikes = self._spiking()
        self._guessed: dict[str, None] = {}

    def result(self) -> Counted:
        layers: list[Layer] = []
        maker: dict[str, int] = {}
        for node in self._nodes:
            if node.op_type in (*VIEWS, *QUANTIZERS):
                continue
            layer = self._layer(node)
            at = self._to_fuse_with(node, layers, maker)
            if at is None:
                layers.append(layer)
                at = len(layers) - 1
            else:
                layers[at] = _joined(layers[at], layer)
            maker.update((self._root.get(name, name), at) for name in node.output)
        return Counted(tuple(layers), tuple(self._guessed))

    def _to_fuse_with(
        self, node: onnx.NodeProto, layers: Sequence[Layer], maker: dict[str, int]
    ) -> int | None:
        """The latest layer that alone this pointwise node takes from, if there is one."""
        if not self._fuse or node.op_type not in POINTWISE:
            return None
        given = [self._root.get(name, name) for name in node.input if name]
        size = self._tensors[node.output[0]].elements
        return max(
            (
                maker[name]
                for name in given
                if name in maker
                and len(self._takers[name]) == 1
                and name not in self._outputs
                and self._tensors[name].elements == size
                and _takes_more(layers[maker[name]])
            ),
            default=None,
        )

    def _layer(self, node: onnx.NodeProto) -> Layer:
        macs, other = self._work(node)
        data = [name for name in node.input if name and not self._is_argument(name)]
        taken = dict.fromkeys(self._root.get(name, name) for name in data)
        factors = [self._root.get(name, name) for name in _factors(node)] if macs else []
        return Layer(
            name=node.name,
            op=node.op_type,
            nodes=(node.name,),
            macs=macs,
            other=other,
            reads=tuple(self._read(node, name, weight=name in factors) for name in taken),
            writes=tuple(self._operand(self._root.get(n, n)) for n in node.output if n),
            factor_bits=max((self._stored(name).bits for name in factors), default=32),
            spikes=bool(factors) and factors[0] in self._spikes,
        )

    def _is_argument(self, name: str) -> bool:
        """Lengths, axes, bounds: constants that a runtime reads once and keeps."""
        return name in self._graph.constant and self._tensors[name].bits == 64

    def _read(self, node: onnx.NodeProto, name: str, *, weight: bool) -> Operand:
        """An operand; of what a slice or gather takes from, only as much as it gives is read."""
        operand = self._operand(name, weight=weight)
        if node.op_type not in ("Slice", "Gather", "GatherElements", "GatherND"):
            return operand
        given = self._tensors[node.output[0]].elements
        return replace(operand, elements=min(operand.elements, given))

    def _operand(self, name: str, *, weight: bool = False) -> Operand:
        tensor = self._stored(name)
        constant = name in self._graph.constant
        takers = self._takers[name]
        return Operand(
            name,
            tensor.elements,
            tensor.bits,
            tensor.real,
            weight=constant and weight,
            quantizable=not constant and bool(takers) and all(map(self._weighted, takers)),
        )

    def _stored(self, name: str) -> Tensor:
        """The tensor as it lies in memory: behind its dequantizer, or quantized by who takes it."""
        return self._tensors[self._quantized.get(name, name)]

    def _weighted(self, node: onnx.NodeProto) -> bool:
        multiplies = node.op_type in (*CONVOLUTIONS, *PRODUCTS)
        return multiplies and any(name in self._graph.constant for name in _factors(node))

    def _roots(self) -> dict[str, str]:
        """Name of a tensor -> of the one it is a view of; quantizers are views with fewer bits."""
        roots: dict[str, str] = {}
        self._quantized: dict[str, str] = {}
        for node in self._graph.model.graph.node:
            if node.op_type not in (*VIEWS, *QUANTIZERS):
                continue
            first = roots.get(node.input[0], node.input[0])
            if node.op_type == "QuantizeLinear":
                self._quantized[first] = node.output[0]
            elif node.op_type == "DequantizeLinear":
                self._quantized.setdefault(first, node.input[0])
            roots[node.output[0]] = first
        return roots

    def _spiking(self) -> set[str]:
        """Tensors of ones and zeros: a step, which is `Greater` or a steep `Clip` to [0, 1]."""
        found: set[str] = set()
        values = _values(self._graph.model)
        for node in self._graph.model.graph.node:
            given = [self._root.get(name, name) for name in node.input if name]
            if node.op_type == "Clip":
                step = [values.get(name) for name in node.input[1:3]] == [0.0, 1.0]
            elif node.op_type == "Concat":
                step = found.issuperset(given)
            else:
                step = node.op_type in ("Greater", "Less", "GreaterOrEqual") or (
                    node.op_type in _SPIKES_STAY and bool(given) and given[0] in found
                )
            if step:
                found.update(self._root.get(name, name) for name in node.output)
        return found

    def _work(self, node: onnx.NodeProto) -> tuple[int, int]:
        """Multiply-adds, and operations apart from them."""
        op = node.op_type
        shapes = [self._tensors[n].shape if n else () for n in node.input]
        out = self._tensors[node.output[0]]
        if op == "ConvTranspose":
            return formulas.transposed_convolution(shapes[0], shapes[1]), 0
        if op in CONVOLUTIONS:
            return formulas.convolution(out.shape, shapes[3 if op == "QLinearConv" else 1]), 0
        if op in PRODUCTS:
            a = shapes[0][::-1] if _attribute(node, "transA", 0) else shapes[0]
            return formulas.product(a, out.shape), 0
        if op in ("CrossScan", "SelectiveScan"):
            return _scan(op, shapes)
        if op == "Einsum":
            return _einsum(str(_attribute(node, "equation", b"").decode()), shapes), 0
        return 0, self._other(node, shapes, out)

    def _other(self, node: onnx.NodeProto, shapes: Sequence[tuple[int, ...]], out: Tensor) -> int:
        op = node.op_type
        if op in MOVES:
            return 0
        if op in POINTWISE:
            pairs = len(shapes) - 1 if op in ("Max", "Min") else 1
            return POINTWISE[op] * out.elements * max(1, pairs)
        if op in _AN_INPUT:
            return _AN_INPUT[op] * int(math.prod(shapes[0]))
        if op in ("MaxPool", "AveragePool"):
            kernel: list[int] = _attribute(node, "kernel_shape", [1])
            return out.elements * math.prod(kernel)
        if op == "Resize":
            axes = sum(a != b for a, b in zip(shapes[0], out.shape, strict=True))
            mode: bytes = _attribute(node, "mode", b"nearest")
            # Linear: three operations for each of the pairs that are joined; cubic: 4 x 4 taps.
            each: int = {b"nearest": 0, b"linear": 3 * (2**axes - 1)}.get(mode, 2 * 4**axes)
            return each * out.elements
        self._guessed[op] = None
        return out.elements


def _takes_more(layer: Layer) -> bool:
    """Whether a pointwise node may go behind it."""
    return bool(layer.macs) or all(op in POINTWISE for op in layer.op.split("+"))


def _joined(layer: Layer, behind: Layer) -> Layer:
    """Two layers as one: what the first gave to the second stays off memory."""
    between = {each.name for each in layer.writes}
    known = {each.name for each in layer.reads}
    further = [each for each in behind.reads if each.name not in between | known]
    return replace(
        layer,
        op=f"{layer.op}+{behind.op}",
        nodes=layer.nodes + behind.nodes,
        other=layer.other + behind.other,
        reads=layer.reads + tuple(further),
        writes=behind.writes,
    )


def _scan(op: str, shapes: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    """Of a node of our own: a scan of sequences, or of a plane in four directions, which also
    brings its steps from their rank to the channels. Each step has a softplus.
    """
    if op == "SelectiveScan":
        batch, channels, length = shapes[0]
        states, lifted = shapes[2][1], 0
    else:
        batch, length, channels = shapes[0][0], math.prod(shapes[0][1:3]), shapes[3][0]
        states, lifted = shapes[3][1], batch * length * channels * shapes[2][2]
    work = formulas.selective_scan(length=length, channels=channels, states=states, batch=batch)
    softplus = 2 * formulas.EXPONENTIAL * batch * length * channels
    return work.macs + lifted, work.other + softplus


def _einsum(equation: str, shapes: Sequence[tuple[int, ...]]) -> int:
    """Multiply-adds of a product of two tensors: the lengths of all letters, multiplied."""
    terms = equation.replace(" ", "").split("->")[0].split(",")
    letters: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        letters.update(zip(term, shape, strict=True))
    return math.prod(letters.values())


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return onnx.helper.get_attribute_value(attribute)
    return default


def _factors(node: onnx.NodeProto) -> list[str]:
    """The two inputs that are multiplied; the others are biases, scales and zeros."""
    second = 3 if node.op_type in ("QLinearConv", "QLinearMatMul") else 1
    return [node.input[0], node.input[second]]


def _values(model: onnx.ModelProto) -> dict[str, float]:
    """Constants of one number."""
    named = [(each.name, each) for each in model.graph.initializer]
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            named.append((node.output[0], node.attribute[0].t))
    return {
        name: float(onnx.numpy_helper.to_array(tensor).reshape(-1)[0])
        for name, tensor in named
        if math.prod(tensor.dims) == 1
    }
