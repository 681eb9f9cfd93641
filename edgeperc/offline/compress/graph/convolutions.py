"""Convolutions in integers: what they give is rounded as well.

onnxruntime has no convolution that takes codes and gives floats, other than products have. So one
whose input and weight are codes gets a grid of 8 bits for what it gives, from the least to the
largest value that was seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from edgeperc.offline.compress.graph.editing import Graph
from edgeperc.offline.compress.graph.weights import quantized

Range: TypeAlias = tuple[float, float]
CODES = 255


def convolutions(graph: Graph, ranges: Mapping[str, Range]) -> int:
    """Round what convolutions of codes give; how many there were. ranges: by what they give."""
    done = 0
    for node in graph.all("Conv"):
        name = node.output[0]
        weight = graph.maker(node.input[1])
        if weight is None or quantized(graph, node.input[0]) is None or name not in ranges:
            continue
        takers = list(graph.takers(name))
        if name in graph.outputs or all(each.op_type == "QuantizeLinear" for each in takers):
            continue
        low, high = ranges[name]
        scale = max((high - low) / CODES, 1e-30)
        zero = np.asarray(np.clip(np.rint(-low / scale), 0, CODES), np.uint8)
        grid = [graph.keep(np.asarray(scale, np.float32), "scale"), graph.keep(zero, "zero")]
        shape = graph.shapes[name]
        codes = graph.add("QuantizeLinear", [name, *grid], node.name, shape=shape)
        values = graph.add("DequantizeLinear", [codes, *grid], node.name, shape=shape)
        for taker in takers:
            for index, given in enumerate(taker.input):
                if given == name:
                    graph.feed(taker, index, values)
        done += 1
    return done
