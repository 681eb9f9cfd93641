"""One network by one runtime, in an environment that has OpenVINO: timed by turns with another.

    paired(arm(python, "cpu", float_file), arm(python, "openvino", int8_file))

Runtimes are onnxruntime's CPU provider, its OpenVINO provider, and OpenVINO by itself ("native").
One thread, floats in f32; OpenVINO by itself would also round activations of float networks to
codes on its own, which it is told not to.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeperc.errors import ModelError

RUNTIMES = ("cpu", "openvino", "native")
NATIVE = {
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 1,
    "INFERENCE_PRECISION_HINT": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
}
"""Properties of OpenVINO's CPU device."""

Inputs: TypeAlias = list[NDArray[np.float32]]


def arm(python: Path, runtime: str, network: Path) -> list[str]:
    """The command of a process that runs a network for each line it reads; see `_serve`."""
    assert runtime in RUNTIMES
    return [str(python), "-m", "edgeperc.bench.openvino_arm", runtime, str(network)]


def opened(runtime: str, network: Path) -> tuple[Callable[[Inputs], list[Any]], list[Any]]:
    """What runs a network, and the shapes of its inputs. Raises ModelError if it does not run."""
    if runtime != "native":
        from edgeperc.inference.session import Session

        session = Session(network, threads=1, providers=(runtime,))  # whole, or not at all
        return lambda inputs: list(session.run(*inputs)), list(session.input_shapes.values())
    if not network.is_file():
        raise ModelError(f"{network}: no such file")
    import openvino

    compiled = openvino.Core().compile_model(str(network), "CPU", NATIVE)
    shapes = [tuple(each.shape) for each in compiled.inputs]
    return lambda inputs: list(compiled(inputs).values()), shapes


def _serve(runtime: str, network: Path) -> None:
    """Answer each line of standard input with the processor's time of one run in ms."""
    run, shapes = opened(runtime, network)
    rng = np.random.default_rng(0)
    inputs = [
        rng.normal(size=[n if isinstance(n, int) else 1 for n in shape]).astype(np.float32)
        for shape in shapes
    ]
    for _ in sys.stdin:
        started_ns = time.process_time_ns()
        run(inputs)
        print(1e-6 * (time.process_time_ns() - started_ns), flush=True)


def main(arguments: Sequence[str]) -> None:
    """`python -m edgeperc.bench.openvino_arm RUNTIME FILE`."""
    _serve(arguments[0], Path(arguments[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
