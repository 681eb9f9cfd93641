"""Clocks: the host's, that of sensors with a time of their own, and one that steps."""

from __future__ import annotations

import threading
import time
from typing import Protocol

_ONE_DAY_NS = 86_400 * 10**9


class Clock(Protocol):
    """Paces a sensor whose packets carry their own time."""

    def wait_until(self, time_ns: int) -> bool:
        """Sleep until sensor time `time_ns` is reached; False once the clock was stopped."""

    def now_ns(self) -> int:
        """The sensor time now."""

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
        self._reached_ns = 0

    def wait_until(self, time_ns: int) -> bool:
        """Sleep until sensor time `time_ns` is reached; False once the clock was stopped."""
        if self.speed is None:
            self._reached_ns = time_ns
            return not self._stopped.is_set()
        sensor_ns, monotonic_ns = self.anchored(time_ns)
        due_ns = monotonic_ns + (time_ns - sensor_ns) / self.speed
        wait_s = max(0.0, (due_ns - time.monotonic_ns()) * 1e-9)
        return not self._stopped.wait(wait_s)

    def now_ns(self) -> int:
        """The sensor time now; without pacing, the one that was last waited for."""
        if self.speed is None:
            return self._reached_ns
        sensor_ns, monotonic_ns = self.origin()
        return sensor_ns + round((time.monotonic_ns() - monotonic_ns) * self.speed)

    def origin(self) -> tuple[int, int]:
        """The first anchor: a sensor time and the monotonic time that it stands for."""
        return self._anchors[0] if self._anchors else self.anchored(0)

    def anchor(self, sensor_ns: int, monotonic_ns: int) -> None:
        """Say which monotonic time a sensor time stands for, before anybody waits."""
        with self._lock:
            self._anchors.insert(0, (sensor_ns, monotonic_ns))

    def stop(self) -> None:
        """Wake every waiter for good."""
        self._stopped.set()

    def anchored(self, time_ns: int) -> tuple[int, int]:
        """A sensor time near `time_ns`, and the monotonic time that it stands for."""
        with self._lock:
            anchor = self._near(time_ns)
            if anchor is None:
                anchor = (time_ns, time.monotonic_ns())
                self._anchors.append(anchor)
            return anchor

    def _near(self, time_ns: int) -> tuple[int, int] | None:
        for anchor in self._anchors:
            if abs(time_ns - anchor[0]) < _ONE_DAY_NS:
                return anchor
        return None


def host_clock() -> ReplayClock:
    """The host's CLOCK_MONOTONIC, in which live cameras are stamped."""
    clock = ReplayClock()
    clock.anchor(time.monotonic_ns(), time.monotonic_ns())
    return clock


class SteppedClock:
    """Time that stands still between two waits, so that a run is the same each time.

    pace: how fast it may step. Used from one thread.
    """

    def __init__(self, pace: Clock) -> None:
        self._pace = pace
        self._now_ns = 0

    def wait_until(self, time_ns: int) -> bool:
        """Step to `time_ns`, if that is later; False once the clock was stopped."""
        goes_on = self._pace.wait_until(time_ns)
        self._now_ns = max(self._now_ns, time_ns)
        return goes_on

    def now_ns(self) -> int:
        """The time that was stepped to."""
        return self._now_ns

    def stop(self) -> None:
        """Wake every waiter for good."""
        self._pace.stop()
