"""From a sensor's time to the wall clock's: one rule, for what is published and what is recorded.

    wall = Wall()
    offset_ns = wall.offset_ns(result.stamp)    # add it to any time of that stamp

Live cameras are stamped by the host's monotonic clock; a recording of another maker may be in Unix
time already, and the digital twin begins at 0. Which of these a time is shows when it comes, and
the offset stays what it first was, but where somebody sets the host's wall clock: then live cameras
go by the new one, as all other programs do. A recording of ours says what its offset was, and it is
played with that one: `recorded`, see `edgeperc.recording.clocks`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from edgeperc.packet import Stamp

log = logging.getLogger("edgeperc")

_DAY_NS = 86_400 * 10**9
_STEP_NS = 10**9
"""By so much the wall clock is set, and not only led: NTP leads both clocks alike. A machine that
slept is the same: its monotonic clock stood still."""
_NEVER_NS = -(1 << 62)
_NEAR_NS = 10 * 10**9
_UNIX_NS = 10**18
"""From 2001 on; a host that has run for thirty years has no such monotonic time."""


class Wall:
    """Offsets, one for each clock that sensors of a run go by. May be used from any thread.

    recorded: of sensors that are played from a recording of ours: a time of theirs, and the offset
    that it was recorded with. May be set anew when the sensors change.
    """

    def __init__(
        self,
        recorded: Mapping[str, tuple[int, int]] | None = None,
        *,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.recorded = dict(recorded or {})
        self._wall_ns, self._monotonic_ns = wall_ns, monotonic_ns
        self._host_ns = wall_ns() - monotonic_ns()
        self._known: dict[str, tuple[int, int | None]] = {}
        """By source: its newest time, and its offset; None where that is the host's."""
        self._lock = threading.Lock()

    def offset_ns(self, stamp: Stamp) -> int:
        """Wall clock minus the clock of a stamp, whose end has just been.

        Sensors whose times are less than a day apart go by one clock, unless it is the host's. So
        what is simulated beside a recording, on its clock, has the recording's offset.
        """
        if recorded := self.recorded.get(stamp.source):
            return recorded[1]
        time_ns, host_ns = stamp.end_ns, self.host_ns
        with self._lock:
            last_ns, offset_ns = self._known.get(stamp.source, (_NEVER_NS, 0))
            if abs(time_ns - last_ns) >= _DAY_NS:
                offset_ns = self._first_offset(time_ns)
            self._known[stamp.source] = (time_ns, offset_ns)
        return host_ns if offset_ns is None else offset_ns

    @property
    def host_ns(self) -> int:
        """Wall clock minus the host's monotonic clock; the same until the wall clock is set."""
        now_ns = self._wall_ns() - self._monotonic_ns()
        if abs(now_ns - self._host_ns) > _STEP_NS:
            moved_s = (now_ns - self._host_ns) * 1e-9
            log.warning("the wall clock was set by %+.1f s; stamps go by it from now on", moved_s)
            self._host_ns = now_ns
        return self._host_ns

    def _first_offset(self, time_ns: int) -> int | None:
        """That of a sensor which was not met before, or not with such times; None: the host's."""
        if abs(time_ns - self._monotonic_ns()) < _NEAR_NS:
            return None
        for other_ns, offset_ns in (*self.recorded.values(), *self._known.values()):
            if offset_ns is not None and abs(time_ns - other_ns) < _DAY_NS:
                return offset_ns
        return 0 if time_ns > _UNIX_NS else self._wall_ns() - time_ns
