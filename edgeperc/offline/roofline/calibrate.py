"""This machine as a device: products, a softmax, copies and tiny layers, measured.

Measured once and kept in the user's cache folder, by processor, onnxruntime and threads.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeperc.bench import machine
from edgeperc.bench.timing import times_ms
from edgeperc.config import Strict
from edgeperc.offline.roofline import formulas
from edgeperc.offline.roofline.devices import HERE, Device

_SIDE = 768
_ROWS = (256, 512)
_COPIES = tuple(1 << power for power in range(14, 28))
_LAUNCHES = 64


class Calibration(Strict, frozen=True, kw_only=True):
    """What was measured, on what and when.

    gemm_gops: fp32 and int8 (unsigned by signed) products, 10^9 operations a second. softmax_gops:
    of its operations as `formulas` counts them. copies: (bytes moved, GB/s), read and written bytes
    both count. launch_us: of a layer that adds one number.
    """

    cpu: str
    onnxruntime: str
    threads: int
    date: str
    load: float
    gemm_gops: dict[str, float]
    softmax_gops: float
    copies: tuple[tuple[float, float], ...]
    launch_us: float

    def device(self) -> Device:
        """As predictions want it."""
        gops = ", ".join(f"{name} {rate:.0f}" for name, rate in self.gemm_gops.items())
        return Device(
            key=HERE,
            name=f"{self.cpu}, {self.threads} thread{'s' * (self.threads > 1)}, onnxruntime",
            ops_s={name: rate * 1e9 for name, rate in self.gemm_gops.items()},
            vector_ops_s=self.softmax_gops * 1e9,
            bandwidth=tuple((moved, rate * 1e9) for moved, rate in self.copies),
            launch_s=self.launch_us * 1e-6,
            notes=(
                f"measured {self.date} at load {self.load:.1f}, onnxruntime {self.onnxruntime}: "
                f"products {gops} GOPS, softmax {self.softmax_gops:.1f} GOPS, copies "
                f"{self.copies[0][1]:.0f} (in cache) to {self.copies[-1][1]:.1f} GB/s (in memory), "
                f"{self.launch_us:.1f} µs a layer",
            ),
        )


def here(*, threads: int = 1, again: bool = False) -> Device:
    """This machine, measured now if it never was, or `again`."""
    facts = machine.facts()
    identity = (str(facts["cpu"]), ort.__version__, threads)
    kept = None if again else _kept(identity)
    if kept is None:
        kept = measured(threads)
        _keep(kept)
    return kept.device()


def measured(threads: int) -> Calibration:
    """Measure; takes a few seconds."""
    load = machine.load()
    return Calibration(
        cpu=str(machine.facts()["cpu"]),
        onnxruntime=ort.__version__,
        threads=threads,
        date=datetime.date.today().isoformat(),
        load=load,
        gemm_gops={"fp32": _product_gops(threads), "int8": _integer_product_gops(threads)},
        softmax_gops=_softmax_gops(threads),
        copies=tuple((2.0 * size, _copy_gb_s(size)) for size in _COPIES),
        launch_us=_launch_us(threads),
    )


def cache_file() -> Path:
    """Where calibrations are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "edgeperc" / "roofline.json"


def _kept(identity: tuple[str, str, int]) -> Calibration | None:
    for each in _all_kept():
        if (each.cpu, each.onnxruntime, each.threads) == identity:
            return each
    return None


def _all_kept() -> list[Calibration]:
    """None where the file is missing or of another version: it is only a cache."""
    try:
        return msgspec.json.decode(cache_file().read_bytes(), type=list[Calibration])
    except (OSError, msgspec.MsgspecError):
        return []


def _keep(new: Calibration) -> None:
    others = [
        each
        for each in _all_kept()
        if (each.cpu, each.onnxruntime, each.threads) != (new.cpu, new.onnxruntime, new.threads)
    ]
    path = cache_file()
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(msgspec.to_builtins([*others, new]), indent=1))
        part.replace(path)
    except OSError:  # a home that cannot be written to: measured anew next time
        part.unlink(missing_ok=True)


def _product_gops(threads: int) -> float:
    weight = np.random.default_rng(0).standard_normal((_SIDE, _SIDE), np.float32)
    return _best_gops("MatMul", weight, np.float32, threads)


def _integer_product_gops(threads: int) -> float:
    weight = np.random.default_rng(0).integers(-64, 64, (_SIDE, _SIDE)).astype(np.int8)
    return _best_gops("MatMulInteger", weight, np.uint8, threads)


def _best_gops(op: str, weight: NDArray[Any], kind: type, threads: int) -> float:
    rates = []
    for rows in _ROWS:
        given: NDArray[Any] = np.random.default_rng(1).integers(0, 64, (rows, _SIDE)).astype(kind)
        run = _runner([(op, ["x", "w"], "y")], given, {"w": weight}, threads)
        rates.append(2 * rows * _SIDE**2 / min(times_ms(run, reps=15)) * 1e-6)
    return max(rates)


def _softmax_gops(threads: int) -> float:
    given = np.random.default_rng(2).standard_normal((256, 256), np.float32)
    run = _runner([("Softmax", ["x"], "y")], given, {}, threads)
    return formulas.SOFTMAX * given.size / min(times_ms(run, reps=50)) * 1e-6


def _copy_gb_s(size: int) -> float:
    """Best of many copies of so many bytes; they are read and written."""
    source = np.ones(size, np.uint8)
    target = np.zeros(size, np.uint8)
    times = max(1, (1 << 20) // size)

    def copy() -> None:
        for _ in range(times):
            np.copyto(target, source)

    return 2 * size * times / min(times_ms(copy, reps=9)) * 1e-6


def _launch_us(threads: int) -> float:
    one = np.ones((1, 1), np.float32)
    few = [("Add", [f"x{k}" if k else "x", "w"], f"x{k + 1}") for k in range(_LAUNCHES + 1)]
    long = min(times_ms(_runner(few, one, {"w": one}, threads), reps=50))
    short = min(times_ms(_runner(few[:1], one, {"w": one}, threads), reps=50))
    return max(0.0, long - short) / _LAUNCHES * 1e3


def _runner(
    nodes: list[tuple[str, list[str], str]],
    given: NDArray[Any],
    constants: dict[str, NDArray[Any]],
    threads: int,
) -> Callable[[], object]:
    """A graph of a few nodes in onnxruntime; takes "x", gives what the last node does."""
    last = nodes[-1]
    kind = TensorProto.INT32 if last[0] == "MatMulInteger" else TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(op, names, [name]) for op, names, name in nodes],
        "calibration",
        [
            helper.make_tensor_value_info(
                "x", helper.np_dtype_to_tensor_dtype(given.dtype), given.shape
            )
        ],
        [helper.make_tensor_value_info(last[2], kind, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = open_session(model, threads)
    return lambda: session.run(None, {"x": given})


def open_session(
    model: onnx.ModelProto, threads: int, *, profile: str = ""
) -> ort.InferenceSession:
    """A session as the daemon opens it, on the CPU. profile: prefix of a file of node times."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
