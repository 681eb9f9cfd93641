"""Stage times, counts and drops of one pipeline; cheap enough to be always on."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

import numpy as np

from edgeperc.result import Timings

STAGES = ("wait", "represent", "infer", "write", "total")
"""In the order in which a packet meets them; `total` is arrival to handed to the sinks."""

_KEPT = 1024
"""How many recent results the percentiles are taken over."""


@dataclass(frozen=True, slots=True)
class StageRow:
    """Times of one stage over the recent results, in ms."""

    stage: str
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class MeterSnapshot:
    """A pipeline's counts since the start and its stage times of late."""

    results: int
    dropped: int
    failed: int
    rate_hz: float
    stages: tuple[StageRow, ...]


class Meter:
    """Counts what one pipeline does. Written by its threads, read by anyone.

    stages: what `record` is given the times of; `finished` is for the usual ones.
    """

    def __init__(self, stages: tuple[str, ...] = STAGES) -> None:
        self._stages = stages
        self._lock = threading.Lock()
        self._times_ns: deque[tuple[int, ...]] = deque(maxlen=_KEPT)
        self._finished_ns: deque[int] = deque(maxlen=_KEPT)
        self._results = 0
        self._dropped = 0
        self._failed = 0

    def finished(self, timings: Timings, write_ns: int) -> None:
        """One result went out."""
        self.record(
            *(timings.wait_ns, timings.represent_ns, timings.infer_ns, write_ns, timings.total_ns)
        )

    def record(self, *times_ns: int) -> None:
        """One result went out after so long in each stage."""
        with self._lock:
            self._times_ns.append(times_ns)
            self._finished_ns.append(time.monotonic_ns())
            self._results += 1

    def dropped(self, count: int = 1) -> None:
        """A newer packet took the place of one that nobody had looked at."""
        with self._lock:
            self._dropped += count

    def failed(self) -> None:
        """A model could not answer for a packet."""
        with self._lock:
            self._failed += 1

    def snapshot(self) -> MeterSnapshot:
        """The figures now. rate_hz is over the last two seconds."""
        with self._lock:
            times_ms = np.array(self._times_ns, np.float64).reshape(-1, len(self._stages)) * 1e-6
            finished_ns = np.array(self._finished_ns, dtype=np.int64)
            counts = (self._results, self._dropped, self._failed)
        return MeterSnapshot(*counts, _rate_hz(finished_ns), _rows(times_ms, self._stages))


def _rate_hz(finished_ns: np.ndarray[tuple[int], np.dtype[np.int64]]) -> float:
    now_ns = time.monotonic_ns()
    recent = finished_ns[finished_ns > now_ns - 2_000_000_000]
    if recent.size < 2:
        return 0.0
    return float((recent.size - 1) / ((now_ns - recent[0]) * 1e-9))


def _rows(
    times_ms: np.ndarray[tuple[int, int], np.dtype[np.float64]], stages: tuple[str, ...]
) -> tuple[StageRow, ...]:
    if not times_ms.size:
        return ()
    p50, p99 = np.percentile(times_ms, [50, 99], axis=0)
    return tuple(StageRow(stage, float(p50[i]), float(p99[i])) for i, stage in enumerate(stages))
