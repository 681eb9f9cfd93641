"""Wall-clock times of calls, alone and in pairs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Call = Callable[[], object]

_STEADY = 0.03
"""Two runs of a baseline that differ by more than this void the pair around them."""


def times_ms(call: Call, *, reps: int) -> list[float]:
    """Wall time of each of `reps` calls in ms, after one that is not counted."""
    call()
    return [_once_ms(call) for _ in range(reps)]


def core_ms(call: Call, *, reps: int) -> float:
    """Median time of a call in ms on the calling thread's core, waits for the core left out."""
    call()
    took_ms = []
    for _ in range(reps):
        started_ns = time.thread_time_ns()
        call()
        took_ms.append((time.thread_time_ns() - started_ns) * 1e-6)
    return float(np.median(took_ms))


def median_ms(call: Call, *, reps: int) -> float:
    """Median wall time of a call in ms."""
    return float(np.median(times_ms(call, reps=reps)))


@dataclass(frozen=True)
class Pair:
    """What one call takes, and how many times as fast it is as the baseline of its rounds."""

    median_ms: float
    speedup: float


@dataclass(frozen=True)
class Comparison:
    """Pairs in the order of the calls, and the baseline's median in ms.

    steady: share of the rounds in which the baseline took the same time before and after.
    """

    pairs: tuple[Pair, ...]
    baseline_ms: float
    steady: float


def compare(
    baseline: Call, *others: Call, rounds: int, baseline_reps: int, reps: int
) -> Comparison:
    """Time calls in rounds of A B C … C B A, so that all see the same moods of the machine.

    A speed-up is the median over the rounds of a ratio of medians within one; rounds whose two
    baselines differ by more than 3 % count only if all do.
    """
    for call in (baseline, *others):
        call()
    rows, steady = [], []
    for _ in range(rounds):
        there = [_block_ms(baseline, baseline_reps), *(_block_ms(o, reps) for o in others)]
        back = [*(_block_ms(o, reps) for o in others[::-1]), _block_ms(baseline, baseline_reps)]
        rows.append(np.add(there, back[::-1]) / 2)
        steady.append(abs(back[-1] / there[0] - 1) <= _STEADY)
    kept = np.array(rows)[steady if any(steady) else slice(None)]
    medians = np.median(kept, axis=0)
    speedups = np.median(kept[:, :1] / kept, axis=0)
    pairs = tuple(Pair(float(m), float(s)) for m, s in zip(medians, speedups, strict=True))
    return Comparison(pairs[1:], pairs[0].median_ms, sum(steady) / rounds)


def _block_ms(call: Call, reps: int) -> float:
    time.sleep(0.05)  # until the threads of the other library have stopped spinning
    return float(np.median([_once_ms(call) for _ in range(reps)]))


def _once_ms(call: Call) -> float:
    started_ns = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - started_ns) * 1e-6
