"""From a run's time to the wall clock's, by an offset that stays what it first was.

    wall = Wall()
    offset_ns = wall.offset_ns(result.stamp.end_ns)    # add it to any time of that sensor

Live cameras are stamped by the host's monotonic clock; a recording may be in Unix time already, and
the digital twin begins at 0. Which of these a time is shows when it comes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_DAY_NS = 86_400 * 10**9
_NEAR_NS = 10 * 10**9
_UNIX_NS = 10**18
"""From 2001 on; a host that has run for thirty years has no such monotonic time."""


class Wall:
    """Offsets, one for each clock that sensors of a run go by. May be used from any thread."""

    def __init__(
        self,
        *,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._wall_ns, self._monotonic_ns = wall_ns, monotonic_ns
        self.host_ns = wall_ns() - monotonic_ns()
        """Wall clock minus the host's monotonic clock, when this began."""
        self._known: list[tuple[int, int]] = []
        self._lock = threading.Lock()

    def offset_ns(self, time_ns: int) -> int:
        """Wall clock minus the clock of `time_ns`, a time that has just been.

        A clock is known again by its times: two in a row are less than a day apart.
        """
        with self._lock:
            for k, (last_ns, offset_ns) in enumerate(self._known):
                if abs(time_ns - last_ns) < _DAY_NS:
                    self._known[k] = (time_ns, offset_ns)
                    return offset_ns
            if abs(time_ns - self._monotonic_ns()) < _NEAR_NS:
                offset_ns = self.host_ns
            elif time_ns > _UNIX_NS:
                offset_ns = 0
            else:
                offset_ns = self._wall_ns() - time_ns
            self._known.append((time_ns, offset_ns))
            return offset_ns
