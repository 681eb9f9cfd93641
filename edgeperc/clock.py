"""A clock for sensors with a time of their own: recordings and the twin, at some speed."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Paces a sensor whose packets carry their own time."""

    def wait_until(self, time_ns: int) -> bool:
        """Sleep until sensor time `time_ns` is reached; False once the clock was stopped."""

    def stop(self) -> None:
        """Wake every waiter for good."""


class ReplayClock:
    """A recording's time, anchored at the first wait and run at `speed` × real time.

    `speed` = None never waits: as fast as possible. One ReplayClock is shared by all sensors of a
    run, so that they stay on one clock.
    """

    def __init__(self, speed: float | None = 1.0) -> None:
        if speed is not None and not speed > 0:
            raise ValueError(f"speed is {speed}, must be above 0")
        self.speed = speed
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._anchor: tuple[int, int] | None = None

    def wait_until(self, time_ns: int) -> bool:
        """Sleep until sensor time `time_ns` is reached; False once the clock was stopped."""
        if self.speed is None:
            return not self._stopped.is_set()
        with self._lock:
            if self._anchor is None:
                self._anchor = (time_ns, time.monotonic_ns())
            sensor_ns, monotonic_ns = self._anchor
        due_ns = monotonic_ns + (time_ns - sensor_ns) / self.speed
        wait_s = max(0.0, (due_ns - time.monotonic_ns()) * 1e-9)
        return not self._stopped.wait(wait_s)

    def stop(self) -> None:
        """Wake every waiter for good."""
        self._stopped.set()
