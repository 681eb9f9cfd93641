"""A clock for sensors with a time of their own: recordings and the twin, at some speed."""

from __future__ import annotations

import threading
import time
from typing import Protocol

_ONE_DAY_NS = 86_400 * 10**9


class Clock(Protocol):
    """Paces a sensor whose packets carry their own time."""

    def wait_until(self, time_ns: int) -> bool:
        """Sleep until sensor time `time_ns` is reached; False once the clock was stopped."""

    def stop(self) -> None:
        """Wake every waiter for good."""


class ReplayClock:
    """A recording's time, anchored at the first wait and run at `speed` × real time.

    `speed` = None never waits: as fast as possible. One ReplayClock is shared by all sensors of a
    run, so that they stay on one clock; a sensor whose times are over a day away (a recording in
    Unix time beside the twin, which starts at 0) has no clock in common and gets its own anchor.
    """

    def __init__(self, speed: float | None = 1.0) -> None:
        if speed is not None and not speed > 0:
            raise ValueError(f"speed is {speed}, must be above 0")
        self.speed = speed
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._anchors: list[tuple[int, int]] = []

    def wait_until(self, time_ns: int) -> bool:
        """Sleep until sensor time `time_ns` is reached; False once the clock was stopped."""
        if self.speed is None:
            return not self._stopped.is_set()
        sensor_ns, monotonic_ns = self._anchor(time_ns)
        due_ns = monotonic_ns + (time_ns - sensor_ns) / self.speed
        wait_s = max(0.0, (due_ns - time.monotonic_ns()) * 1e-9)
        return not self._stopped.wait(wait_s)

    def stop(self) -> None:
        """Wake every waiter for good."""
        self._stopped.set()

    def _anchor(self, time_ns: int) -> tuple[int, int]:
        """A sensor time near `time_ns`, and the monotonic time that it stands for."""
        with self._lock:
            for anchor in self._anchors:
                if abs(time_ns - anchor[0]) < _ONE_DAY_NS:
                    return anchor
            self._anchors.append((time_ns, time.monotonic_ns()))
            return self._anchors[-1]
