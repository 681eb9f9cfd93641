"""Products with weights of 4 bits in blocks, as onnxruntime's MatMulNBits.

    table = Blocks4()
    table.add(weight, quantizer)
    in_blocks(graph, table)

Two codes are in a byte, the first in its lower half: a smaller file, and less to read from memory
where few rows are multiplied. A weight is found by its values,
as in `weights`. Source: the schema of com.microsoft.MatMulNBits, version 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor

from edgeperc.offline.compress.graph.editing import Graph, Values, attribute, key_of
from edgeperc.offline.compress.quantizers.blocks import STORED_BITS, Blocks

DOMAIN = "com.microsoft"
FLOATS, BYTES = 1, 4
"""The operator's accuracy_level: what is multiplied are floats, as the network is simulated, or
rounded to int8 on the way, a scale for each block of each row.
"""

Codes: TypeAlias = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Row:
    """What the inputs of one output are multiplied by. codes: (inputs,), scales and zeros:
    (blocks,).
    """

    codes: Codes
    scales: Values
    zeros: Codes


@dataclass(slots=True)
class Blocks4:
    """Values of a row of weights, as bytes of float32 -> its codes."""

    rows: dict[bytes, Row] = field(default_factory=dict)

    def add(self, weight: Tensor, quantizer: Blocks) -> None:
        """weight: (outputs, inputs), on the quantizer's grid of 4 bits."""
        outputs = len(weight)
        codes = quantizer.quantize(weight).numpy().astype(np.uint8)
        scales = quantizer.grid.scale.reshape(outputs, -1).numpy().astype(np.float32)
        zeros = quantizer.grid.zero.reshape(outputs, -1).numpy().astype(np.uint8)
        for values, *row in zip(weight.numpy(), codes, scales, zeros, strict=True):
            self.rows[key_of(values)] = Row(*row)

    def of(self, weight: Values) -> list[Row] | None:
        """Of each output of a weight (outputs, inputs), or None if it is not in the table."""
        found = [self.rows[key] for values in weight if (key := key_of(values)) in self.rows]
        whole = len(found) == len(weight) and len({row.scales.shape for row in found}) == 1
        return found if whole else None


def in_blocks(graph: Graph, table: Blocks4, *, rounded: bool = False) -> int:
    """Change the products with weights of the table; how many there were.

    rounded: let what is multiplied be rounded to int8 while it runs.
    """
    done = 0
    for node in graph.all("MatMul", "Gemm") if table.rows else ():
        if not graph.constant(node.input[1]) or not _plain(node):
            continue
        weight = graph.value(node.input[1])
        rows = table.of(weight if attribute(node, "transB", 0) else weight.T)
        if rows is not None:
            _product(graph, node, rows, BYTES if rounded else FLOATS)
            done += 1
    if done:
        graph.model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return done


def _product(graph: Graph, node: onnx.NodeProto, rows: list[Row], level: int) -> None:
    """One MatMulNBits, and an Add behind it for the bias of a Gemm."""
    inputs, blocks = len(rows[0].codes), len(rows[0].scales)
    codes = _halves(np.stack([row.codes for row in rows]))
    block = inputs // blocks
    weight = node.input[1]
    parts = [
        graph.keep(codes.reshape(len(rows), blocks, block // 2), f"{weight}.codes"),
        graph.keep(np.concatenate([row.scales for row in rows]), f"{weight}.scales"),
        graph.keep(_halves(np.stack([row.zeros for row in rows])).reshape(-1), f"{weight}.zeros"),
    ]
    shape = graph.shapes.get(node.output[0])
    out = graph.add(
        "MatMulNBits",
        [node.input[0], *parts],
        node.name or node.output[0],
        shape=shape,
        domain=DOMAIN,
        K=inputs,
        N=len(rows),
        bits=STORED_BITS,
        block_size=block,
        accuracy_level=level,
    )
    if len(node.input) > 2:
        out = graph.add("Add", [out, node.input[2]], f"{node.name}.bias", shape=shape)
    graph.instead(node.output[0], out)


def _halves(codes: Codes) -> Codes:
    """Two codes of a row in each byte; an odd row ends with a 0."""
    even = np.pad(codes, ((0, 0), (0, codes.shape[1] % 2)))
    halves: Codes = even[:, ::2] | even[:, 1::2] << np.uint8(STORED_BITS)
    return halves


def _plain(node: onnx.NodeProto) -> bool:
    """Whether a product is x @ w, or x @ w.T, and no more."""
    return (
        not attribute(node, "transA", 0)
        and attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1.0
    )
