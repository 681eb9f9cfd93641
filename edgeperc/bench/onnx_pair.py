"""Two ONNX files against each other: each in a process of its own, by turns, A B B A.

    timed = paired(before, after)
    timed.speedup, timed.before_ms, timed.after_ms

Times are of the processor, of one thread: what other processes take of the core is not in them, but
what they take of caches and clock is. So on a busy machine ratios are rough, and the times more so.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeperc.errors import ModelError

NAMES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Timed:
    """Medians in ms of the processor, and the median over rounds of their ratio. uneven: the
    largest difference of two runs of `before` in one round, as a share. load: of the machine.
    """

    before_ms: float
    after_ms: float
    speedup: float
    uneven: float
    load: float


def paired(before: Path | Sequence[str], after: Path | Sequence[str], *, rounds: int = 3) -> Timed:
    """Run both on the same noise: files by the CPU provider of this environment, or commands that
    answer each line of standard input with a time in ms. Raises ModelError if one does not run.
    """
    rows, uneven = [], 0.0
    with ExitStack() as stack:
        a, b = (stack.enter_context(_process(each)) for each in (before, after))
        for process in (a, b):
            _once_ms(process)
        for _ in range(rounds):
            first, second, third, fourth = (_once_ms(each) for each in (a, b, b, a))
            rows.append((min(first, fourth), min(second, third)))
            uneven = max(uneven, abs(fourth / first - 1))
    times = np.array(rows)
    return Timed(
        before_ms=float(np.median(times[:, 0])),
        after_ms=float(np.median(times[:, 1])),
        speedup=float(np.median(times[:, 0] / times[:, 1])),
        uneven=uneven,
        load=os.getloadavg()[0],
    )


@contextmanager
def _process(what: Path | Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    own = [sys.executable, "-m", "edgeperc.bench.onnx_pair", str(what)]
    with subprocess.Popen(
        own if isinstance(what, Path) else list(what),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | dict.fromkeys(NAMES, "1"),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _once_ms(process: subprocess.Popen[str]) -> float:
    assert process.stdin
    assert process.stdout
    assert process.stderr
    try:
        process.stdin.write("\n")
        process.stdin.flush()
    except BrokenPipeError:
        pass
    answer = process.stdout.readline()
    if not answer:
        process.wait()
        said = process.stderr.read().strip().splitlines() or ["no reason given"]
        raise ModelError(f"a network does not run: {said[-1]}")
    return float(answer)


def _serve(path: Path) -> None:
    """Answer each line of standard input with the processor's time of one run in ms."""
    from edgeperc.inference.session import Session

    session = Session(path, threads=1)
    rng = np.random.default_rng(0)
    inputs = [
        rng.normal(size=[n if isinstance(n, int) else 1 for n in shape]).astype(np.float32)
        for shape in session.input_shapes.values()
    ]
    for _ in sys.stdin:
        started_ns = time.process_time_ns()
        session.run(*inputs)
        print(1e-6 * (time.process_time_ns() - started_ns), flush=True)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
