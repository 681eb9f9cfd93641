"""How far the wall clock is from the clock that packets are stamped by."""

from __future__ import annotations

import time

_NEAR_NS = 60 * 10**9
_YEAR_2000_NS = 946_684_800 * 10**9


def wall_offset_ns(time_ns: int) -> int:
    """Wall clock minus the clock by which something was stamped `time_ns` a moment ago.

    Stamps of this host's CLOCK_MONOTONIC and those in Unix time are known by their size; of any
    other clock, as that of the twin, it is taken that `time_ns` is now.
    """
    wall_ns, monotonic_ns = time.time_ns(), time.monotonic_ns()
    if abs(time_ns - monotonic_ns) < _NEAR_NS:
        return wall_ns - monotonic_ns
    if time_ns > _YEAR_2000_NS:
        return 0
    return wall_ns - time_ns
