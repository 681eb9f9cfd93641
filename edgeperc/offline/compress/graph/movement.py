"""Moving data about as codes of one byte, not as floats of four.

What only moves data gives the same before rounding as behind it: so a QuantizeLinear goes up
through transposes, reshapes, slices and padding, and a DequantizeLinear goes down through them.
"""

from __future__ import annotations

import numpy as np
import onnx

from edgeperc.offline.compress.graph.editing import Graph, attribute

MOVES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Pad", "Resize")


def codes_first(graph: Graph) -> int:
    """Round before moving, and undo it behind; how many moves were changed."""
    return _up(graph) + _down(graph) + _cancelled(graph)


def _up(graph: Graph) -> int:
    done = 0
    waiting = graph.all("QuantizeLinear")
    while waiting:
        node = waiting.pop()
        move = graph.maker(node.input[0])
        if move is not None and move.op_type == "Concat":
            waiting += _above_joining(graph, node, move)
            continue
        if move is None or move.op_type not in MOVES:
            continue
        if graph.only_taker(move.output[0]) is not node or not _can_move(graph, move):
            continue
        inputs = [move.input[0], *node.input[1:]]
        codes = graph.add("QuantizeLinear", inputs, node.name, shape=graph.shapes[move.input[0]])
        last = graph.add(
            move.op_type,
            [codes, *_others(graph, move, node)],
            move.name,
            shape=graph.shapes[move.output[0]],
            **_attributes(move),
        )
        graph.instead(node.output[0], last)
        graph.drop(node)
        maker = graph.maker(codes)
        assert maker is not None
        waiting.append(maker)
        done += 1
    return done


def _above_joining(
    graph: Graph, node: onnx.NodeProto, join: onnx.NodeProto
) -> list[onnx.NodeProto]:
    """Round each of what is joined, in place of all; the new roundings, none if others take it."""
    if any(each.op_type != "QuantizeLinear" for each in graph.takers(join.output[0])):
        return []
    made = []
    for name in join.input:
        inputs = [name, *node.input[1:]]
        made.append(graph.add("QuantizeLinear", inputs, node.name, shape=graph.shapes[name]))
    shape = graph.shapes[join.output[0]]
    last = graph.add("Concat", made, join.name, shape=shape, **_attributes(join))
    graph.instead(node.output[0], last)
    graph.drop(node)
    return [maker for name in made if (maker := graph.maker(name)) is not None]


def _down(graph: Graph) -> int:
    """Behind a DequantizeLinear, moves are done on what it takes."""
    done = 0
    waiting = [node for node in graph.all("DequantizeLinear") if not graph.constant(node.input[0])]
    while waiting:
        node = waiting.pop()
        if graph.value(node.input[1]).ndim:
            continue
        for move in graph.takers(node.output[0]):
            if move.op_type not in ("Reshape", "Transpose", "Squeeze", "Unsqueeze"):
                continue
            shape = graph.shapes.get(move.output[0])
            inputs = [node.input[0], *move.input[1:]]
            codes = graph.add(move.op_type, inputs, move.name, shape=shape, **_attributes(move))
            values = graph.add("DequantizeLinear", [codes, *node.input[1:]], node.name, shape=shape)
            graph.instead(move.output[0], values)
            maker = graph.maker(values)
            assert maker is not None
            waiting.append(maker)
            done += 1
    return done


def _cancelled(graph: Graph) -> int:
    """Two transposes that undo each other, and reshapes of reshapes, are one step or none."""
    done = 0
    for node in graph.all("Transpose", "Reshape"):
        before = graph.maker(node.input[0])
        if before is None or before.op_type != node.op_type:
            continue
        if node.op_type == "Reshape":
            graph.feed(node, 0, before.input[0])
            done += 1
            continue
        first, second = attribute(before, "perm"), attribute(node, "perm")
        if [first[axis] for axis in second] == sorted(first):
            graph.instead(node.output[0], before.input[0])
            done += 1
    return done


def _can_pad(move: onnx.NodeProto) -> bool:
    """Whether padding, if it is that, is with zeros."""
    if move.op_type != "Pad":
        return True
    return attribute(move, "mode", b"constant") == b"constant" and not _third(move)


def _third(move: onnx.NodeProto) -> str:
    return move.input[2] if len(move.input) > 2 else ""


def _can_move(graph: Graph, move: onnx.NodeProto) -> bool:
    if move.op_type == "Resize":
        return bool(attribute(move, "mode", b"nearest") == b"nearest")
    return _can_pad(move)


def _others(graph: Graph, move: onnx.NodeProto, node: onnx.NodeProto) -> list[str]:
    """What a move takes beside the data; padding is with the code of zero."""
    if move.op_type != "Pad":
        return list(move.input[1:])
    zero = graph.value(node.input[2])
    return [move.input[1], graph.keep(np.asarray(zero), "zero")]


def _attributes(node: onnx.NodeProto) -> dict[str, object]:
    return {each.name: attribute(node, each.name) for each in node.attribute}
