from __future__ import annotations

import threading
import time

import pytest

from edgeperc.clock import ReplayClock


def test_as_fast_as_possible_never_waits() -> None:
    clock = ReplayClock(None)
    assert clock.wait_until(0)
    assert clock.wait_until(10**15)


def test_speed_scales_time_between_packets() -> None:
    clock = ReplayClock(4.0)
    clock.wait_until(1_000_000_000)
    started_s = time.monotonic()
    clock.wait_until(1_400_000_000)
    assert time.monotonic() - started_s >= 0.09


def test_stop_wakes_a_waiter() -> None:
    clock = ReplayClock(1.0)
    clock.wait_until(0)
    threading.Timer(0.05, clock.stop).start()
    assert not clock.wait_until(3_600 * 10**9)
    assert not ReplayClock.wait_until(clock, 0)


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan")])
def test_a_speed_that_is_no_speed_is_refused(speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        ReplayClock(speed)


def test_sensors_without_a_common_clock_do_not_wait_for_each_other() -> None:
    clock = ReplayClock(1.0)
    started_s = time.monotonic()
    clock.wait_until(0)
    clock.wait_until(1_700_000_000 * 10**9)
    clock.wait_until(1_000_000)
    clock.wait_until(1_700_000_000 * 10**9 + 1_000_000)
    assert time.monotonic() - started_s < 1
