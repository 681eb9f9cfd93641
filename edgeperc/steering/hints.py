"""Results of other pipelines on their way into the search.

In a live run they are taken as they come. In a deterministic one each is taken a fixed time after
its last photon, and the loop waits until everything that is due by then has been said.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Protocol

from edgeperc.result import Result

_EVER_NS = 1 << 62
LEAD_NS = 2_000_000_000
"""How far pipelines may run ahead of the loop before they wait for it."""


class Hints(Protocol):
    """Where the loop takes hints from."""

    def take(self, now_ns: int) -> Iterable[Result]:
        """The hints that have arrived by `now_ns` and were not taken yet, in order of time."""


class TimedHints:
    """Hints in order of their stamps, whichever thread is faster.

    pipelines: who gives hints; each says how far it has come. delay_ns: from the last photon to
    the arrival.
    """

    def __init__(self, pipelines: Sequence[str], *, delay_ns: int) -> None:
        self._delay_ns = delay_ns
        self._reached_ns = dict.fromkeys(pipelines, -_EVER_NS)
        self._waiting: list[tuple[int, str, Result]] = []
        self._loop_ns = 0
        self._changed = threading.Condition()
        self._stopped = False

    def put(self, pipeline: str, result: Result) -> None:
        """Hand over a result; waits for the loop if that is far behind."""
        end_ns = result.stamp.end_ns
        with self._changed:
            self._waiting.append((end_ns, pipeline, result))
        self.passed(pipeline, end_ns)

    def passed(self, pipeline: str, end_ns: int) -> None:
        """A pipeline has answered for, or passed over, everything up to a time."""
        with self._changed:
            self._reached_ns[pipeline] = max(self._reached_ns[pipeline], end_ns)
            self._changed.notify_all()
            self._changed.wait_for(lambda: end_ns - self._loop_ns <= LEAD_NS or self._stopped)

    def ended(self, pipeline: str) -> None:
        """Nothing more will come from a pipeline."""
        with self._changed:
            self._reached_ns[pipeline] = _EVER_NS
            self._changed.notify_all()

    def stop(self) -> None:
        """Wake everybody for good."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def take(self, now_ns: int) -> list[Result]:
        """What is due by `now_ns`; waits until every pipeline has come so far."""
        due_ns = now_ns - self._delay_ns
        with self._changed:
            self._loop_ns = now_ns
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: min(self._reached_ns.values(), default=_EVER_NS) >= due_ns or self._stopped
            )
            taken = [each for each in self._waiting if each[0] <= due_ns]
            self._waiting = [each for each in self._waiting if each[0] > due_ns]
        return [result for *_, result in sorted(taken, key=lambda each: each[:2])]
