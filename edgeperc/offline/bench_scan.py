"""The selective scan against its reference, at the shapes of MambaSeg at 346 × 200 px.

The reference is `sequential_scan`, which discretises the whole sequence first, as the method is
written. `stepwise` discretises each step when it comes, so that numbers stay in the cache: the
fastest that a loop in torch gets, and a second baseline. All on one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor

from edgeperc.bench.figures import Figures
from edgeperc.bench.timing import Comparison, compare
from edgeperc.offline.nets.selective_scan import sequential_scan
from edgeperc.offline.scan_onnx import DOMAIN, NAME, with_portable_scan
from edgeperc.scan.selective import selective_scan

Shape = tuple[int, int, int, int]

SHAPES: dict[str, tuple[float, dict[str, Shape]]] = {
    "scan_speedup_encoder": (
        10,
        {"encoder stage 1": (4, 96, 1, 4350), "encoder stage 3": (4, 384, 1, 286)},
    ),
    "scan_speedup_16state": (
        30,
        {"fusion, spatial": (4, 192, 16, 4350), "fusion, channel": (2, 4350, 16, 192)},
    ),
}
"""Key -> aim, and its scans: groups, channels of each, states, steps."""


KEYS = tuple(SHAPES)


def measure(figures: Figures, only: tuple[str, ...] | None = None) -> None:
    """Add the lowest speed-up of each key's shapes, each of them as a detail, and their times.

    only: keys, all of them if None.
    """
    wanted = {key: found for key, found in SHAPES.items() if only is None or key in only}
    if not wanted:
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = []
    try:
        for key, (aim, shapes) in wanted.items():
            speedups = []
            for name, shape in shapes.items():
                figures.progress(f"the scan of {name}")
                timed = _timed(shape)
                rows.append(_row(name, shape, timed))
                speedups.append(timed.pairs[0].speedup)
                suffix = name.split()[-1]
                figures.detail(f"{key}_{suffix}", timed.pairs[0].speedup)
                figures.detail(
                    f"{key}_{suffix}_vs_stepwise",
                    timed.pairs[1].median_ms / timed.pairs[0].median_ms,
                )
            what = f"selective scan, times the reference: {', '.join(shapes)}"
            figures.add(key, min(speedups), what, aim=aim)
    finally:
        torch.set_num_threads(threads)
    figures.tables.append(("Selective scans on one thread, ms", rows))


def stepwise(*tensors: Tensor) -> Tensor:
    """As `sequential_scan` with softplus, without ever holding (batch, channels, N, L)."""
    u, delta, A, B, C, D, bias = tensors  # noqa: N806
    batch, channels, length = u.shape
    groups, states = B.shape[1:3]
    step = torch.nn.functional.softplus(delta + bias[:, None])
    sizes = step.reshape(batch, groups, -1, 1, length)
    values = (step * u).reshape(sizes.shape)
    pace = A.reshape(groups, -1, states)
    state = u.new_zeros(batch, groups, channels // groups, states)
    y = []
    for t in range(length):
        added = values[..., t] * B[:, :, None, :, t]
        state = torch.exp(sizes[..., t] * pace) * state + added
        y.append((state * C[:, :, None, :, t]).sum(-1))
    return torch.stack(y, -1).reshape(u.shape) + D[:, None] * u


def arrays_of(shape: Shape) -> tuple[NDArray[np.float32], ...]:
    """Arguments of a scan with softplus, as a fresh network has them: steps of 0.001 to 0.1."""
    groups, each, states, length = shape
    rng = np.random.default_rng(0)
    channels = groups * each
    first_step = np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), channels))
    arrays = (
        rng.standard_normal((1, channels, length)),
        0.1 * rng.standard_normal((1, channels, length)),
        -np.tile(np.arange(1.0, states + 1), (channels, 1)),
        rng.standard_normal((1, groups, states, length)),
        rng.standard_normal((1, groups, states, length)),
        np.ones(channels),
        np.log(np.expm1(first_step)),
    )
    return tuple(array.astype(np.float32) for array in arrays)


def _timed(shape: Shape) -> Comparison:
    """The reference, and against it the kernel, the stepwise loop and the portable form."""
    arrays = arrays_of(shape)
    tensors = tuple(map(torch.from_numpy, arrays))
    return compare(
        partial(_inferred, partial(sequential_scan, softplus=True), tensors),
        partial(selective_scan, *arrays, softplus=True, out=np.empty_like(arrays[0])),
        partial(_inferred, stepwise, tensors),
        _portable(arrays),
        rounds=3,
        baseline_reps=1,
        reps=3,
    )


def _inferred(scan: Callable[..., Tensor], tensors: tuple[Tensor, ...]) -> Tensor:
    with torch.inference_mode():
        return scan(*tensors)


def _portable(arrays: tuple[NDArray[np.float32], ...]) -> Callable[[], object]:
    """The portable ONNX form in onnxruntime, ready to run."""
    names = ("u", "delta", "A", "B", "C", "D", "delta_bias")
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape)
        for name, array in zip(names, arrays, strict=True)
    ]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, arrays[0].shape)
    node = helper.make_node(NAME, names, ["y"], domain=DOMAIN, softplus=1)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
    graph = helper.make_graph([node], "scan", inputs, [y])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        with_portable_scan(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return partial(session.run, None, dict(zip(names, arrays, strict=True)))


def _row(name: str, shape: Shape, timed: Comparison) -> dict[str, str]:
    ours, loop, portable = timed.pairs
    return {
        "scan": name,
        "K, C, N, L": ", ".join(map(str, shape)),
        "reference": f"{timed.baseline_ms:.1f}",
        "stepwise": f"{loop.median_ms:.1f}",
        "portable ONNX": f"{portable.median_ms:.1f}",
        "kernel": f"{ours.median_ms:.2f}",
        "times the reference": f"{ours.speedup:.1f}",
        "rounds kept": f"{timed.steady:.0%}",
    }
