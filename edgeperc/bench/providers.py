"""One network by several providers: CPU time of a run, each arm in a process of its own, A B B A.

    python -m edgeperc.bench.providers models/promptable/encoder.onnx cpu openvino openvino:bf16

For the environment of `make openvino`. CPU time, since other processes may be about; one thread.
Inputs are random, of the network's own shapes, whose open lengths are 1.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeperc.config import ProviderTable
from edgeperc.errors import ModelError
from edgeperc.inference.session import Session

RUNS = 15


def compare(
    network: Path, arms: Sequence[str], *, python: str = sys.executable
) -> dict[str, list[float]]:
    """Medians in ms of CPU time, two for each arm: from the way there and the way back.

    arms: "provider" or "provider:precision". python: that runs them. Raises ModelError if an arm
    cannot run.
    """
    found: dict[str, list[float]] = {arm: [] for arm in arms}
    for arm in (*arms, *reversed(arms)):
        call = [python, "-m", "edgeperc.bench.providers", "--one", str(network), arm]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ModelError(f"{network} by {arm}: {done.stderr.strip().splitlines()[-1]}")
        found[arm].append(float(json.loads(done.stdout)))
    return found


def one(network: Path, arm: str) -> float:
    """Median CPU time of a run in ms, on one thread."""
    name, _, precision = arm.partition(":")
    table = ProviderTable(name=name, precision=precision or "f32")  # type: ignore[arg-type]
    session = Session(network, threads=1, providers=(table,))
    rng = np.random.default_rng(0)
    inputs = [
        rng.random([n if isinstance(n, int) else 1 for n in shape], np.float32)
        for shape in session.input_shapes.values()
    ]
    session.run(*inputs)
    times = []
    for _ in range(RUNS):
        started_s = time.process_time()
        session.run(*inputs)
        times.append(time.process_time() - started_s)
    return 1e3 * float(np.median(times))


def main(arguments: Sequence[str]) -> None:
    """Print a line for each arm."""
    if arguments[0] == "--one":
        print(json.dumps(one(Path(arguments[1]), arguments[2])))
        return
    network, *arms = arguments
    for arm, times_ms in compare(Path(network), arms).items():
        print(f"{arm:16} " + "  ".join(f"{each:.2f} ms" for each in times_ms))


if __name__ == "__main__":
    main(sys.argv[1:])
