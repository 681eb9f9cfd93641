"""What the layers of a graph really take on this machine, by onnxruntime's own profiler."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeperc.bench import machine
from edgeperc.offline.roofline.calibrate import open_session
from edgeperc.offline.roofline.count import Layer
from edgeperc.offline.roofline.graph import Shaped

_KINDS = {
    onnx.TensorProto.FLOAT16: np.float16,
    onnx.TensorProto.DOUBLE: np.float64,
    onnx.TensorProto.INT64: np.int64,
    onnx.TensorProto.INT32: np.int32,
    onnx.TensorProto.INT8: np.int8,
    onnx.TensorProto.UINT8: np.uint8,
    onnx.TensorProto.BOOL: np.bool_,
}
_SUFFIX = "_kernel_time"


@dataclass(frozen=True)
class Measured:
    """The best of some runs, node by node, in seconds: as the machine was calibrated.

    layers: name of a layer -> its nodes' time. other: nodes that the runtime has made (casts of
    layouts, fused functions), which no layer's name tells. total: of all nodes. load: of the
    machine before the runs; a busy one is slower than it can be, most of all in long layers.
    """

    layers: dict[str, float]
    other: float
    total: float
    load: float


def measure(graph: Shaped, layers: Sequence[Layer], *, threads: int, runs: int = 15) -> Measured:
    """Run a graph on noise and sum the node times by layer."""
    load = machine.load()
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(graph.model, threads, profile=f"{folder}/nodes")
        given = _noise(graph.model.graph)
        for _ in range(runs + 2):
            session.run(None, given)
        events = json.loads(Path(session.end_profiling()).read_text())
    times = _best(events, skip=2)
    owner = {node: layer.name for layer in layers for node in layer.nodes}
    found: dict[str, float] = defaultdict(float)
    other = 0.0
    for node, seconds in times.items():
        if name := _owner(node, owner):
            found[name] += seconds
        else:
            other += seconds
    return Measured(dict(found), other, sum(times.values()), load)


def _best(events: Sequence[dict[str, object]], *, skip: int) -> dict[str, float]:
    """Name of a node -> the fewest seconds over its runs but the first few."""
    times: dict[str, list[float]] = defaultdict(list)
    for event in events:
        name = str(event["name"])
        if event["cat"] == "Node" and name.endswith(_SUFFIX):
            times[name.removesuffix(_SUFFIX)].append(float(str(event["dur"])) * 1e-6)
    return {name: min(each[skip:] or each) for name, each in times.items()}


def _owner(node: str, owner: dict[str, str]) -> str:
    """The layer of a node of the runtime, which has its name or a longer one around it."""
    if node in owner:
        return owner[node]
    inside = [name for name in owner if name in node]
    return owner[max(inside, key=len)] if inside else ""


def _noise(graph: onnx.GraphProto) -> dict[str, NDArray[np.generic]]:
    random = np.random.default_rng(0)
    known = {each.name for each in graph.initializer}
    found: dict[str, NDArray[np.generic]] = {}
    for value in graph.input:
        if value.name in known:
            continue
        kind = value.type.tensor_type
        shape = [axis.dim_value for axis in kind.shape.dim]
        if kind.elem_type == onnx.TensorProto.FLOAT:
            found[value.name] = random.standard_normal(shape, np.float32)
        else:
            found[value.name] = np.zeros(shape, _KINDS.get(kind.elem_type, np.float32))
    return found
