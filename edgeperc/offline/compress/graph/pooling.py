"""The largest of each 2 x 2 where the channels come last, without transposing.

onnxruntime would carry rounding up through a MaxPool, and pools codes many times slower than
floats; two largest-ofs along axes are fast, and codes stay below them.
"""

from __future__ import annotations

import numpy as np
import onnx

from edgeperc.offline.compress.graph.editing import Graph, attribute

TO_PLANES, BACK = [0, 3, 1, 2], [0, 2, 3, 1]


def pooled_in_place(graph: Graph) -> int:
    """Change transposed pools of even sides; how many there were."""
    done = 0
    for pool in graph.all("MaxPool"):
        before, behind = graph.maker(pool.input[0]), graph.only_taker(pool.output[0])
        if before is None or behind is None or not _fits(before, pool, behind):
            continue
        batch, height, width, channels = graph.shapes[before.input[0]]
        if height % 2 or width % 2:
            continue
        half = (batch * height, width // 2, channels)
        rows = _largest(graph, before.input[0], (batch * height * width // 2, 2, channels), half)
        pair = (batch * height // 2, 2, width // 2 * channels)
        out = (batch, height // 2, width // 2, channels)
        graph.instead(behind.output[0], _largest(graph, rows, pair, out))
        done += 1
    return done


def _largest(graph: Graph, name: str, pairs: tuple[int, ...], out: tuple[int, ...]) -> str:
    """The larger of each two along the middle axis, in shape `out`."""
    lengths = graph.keep(np.array(pairs, np.int64), "pairs")
    made = graph.add("Reshape", [name, lengths], "pairs", shape=pairs)
    axis = graph.keep(np.array([1], np.int64), "axis")
    made = graph.add("ReduceMax", [made, axis], "larger", shape=pairs[:1] + pairs[2:], keepdims=0)
    back = graph.keep(np.array(out, np.int64), "shape")
    return graph.add("Reshape", [made, back], "pooled", shape=out)


def _fits(before: onnx.NodeProto, pool: onnx.NodeProto, behind: onnx.NodeProto) -> bool:
    return (
        before.op_type == behind.op_type == "Transpose"
        and list(attribute(before, "perm")) == TO_PLANES
        and list(attribute(behind, "perm")) == BACK
        and list(attribute(pool, "kernel_shape")) == [2, 2]
        and list(attribute(pool, "strides", [1, 1])) == [2, 2]
        and not any(attribute(pool, "pads", [0]))
        and not attribute(pool, "ceil_mode", 0)
    )
