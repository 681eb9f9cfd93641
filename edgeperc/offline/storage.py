"""How the weights of an ONNX file are kept: as they are, in two bytes each, or in one.

    onnx.save(stored(model, "byte"), path)

They are brought back to float32 when the file is loaded; the network computes as before.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Storage: TypeAlias = Literal["single", "half", "byte"]
"""half: float16, an error of 2**-11 of each weight. byte: int8 and a scale for each row or column,
an error of 1/254 of the largest weight there; half for small weights."""

_SMALL = 64
"""Weights of fewer numbers stay as they are: nothing is won."""
_FEW = 8192
"""Convolutions of so few numbers, and matrices of half as many, lose much as bytes, win little."""


def stored(model: onnx.ModelProto, storage: Storage) -> onnx.ModelProto:
    """The same network with its large weights kept in another way; changes `model`."""
    if storage == "single":
        return model
    nodes, added = [], []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < _SMALL:
            continue
        name = weight.name
        few = values.size <= (_FEW if values.ndim == 4 else _FEW // 2)
        if storage == "half" or values.ndim < 2 or few:
            kept = f"{name}_half"
            weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), kept))
            nodes.append(helper.make_node("Cast", [kept], [name], to=TensorProto.FLOAT))
            continue
        codes, scale = _in_bytes(values)
        kept, scales, whole = f"{name}_byte", f"{name}_scale", f"{name}_whole"
        weight.CopyFrom(numpy_helper.from_array(codes, kept))
        added.append(numpy_helper.from_array(scale, scales))
        nodes.append(helper.make_node("Cast", [kept], [whole], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", [whole, scales], [name]))
    model.graph.initializer.extend(added)
    nodes.extend(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _in_bytes(values: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[Any]]:
    """Codes -127 to 127, and the scales that make weights of them: one for each index of the first
    or of the last axis, whichever loses less.
    """
    choices = []
    for axis in (0, values.ndim - 1):
        others = tuple(a for a in range(values.ndim) if a != axis)
        largest = np.abs(values).max(axis=others, keepdims=True)
        scale = np.maximum(largest / 127, np.finfo(np.float32).tiny).astype(np.float32)
        codes = np.rint(values / scale).astype(np.int8)
        error = float(np.square(values - codes * scale).sum())
        choices.append((error, codes, scale))
    _, codes, scale = min(choices, key=lambda choice: choice[0])
    return codes, scale
