from __future__ import annotations

import threading
import time

import pytest

from edgeperc.clock import ReplayClock, SteppedClock, host_clock


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


def test_now_is_what_the_anchor_says_however_long_the_host_has_run() -> None:
    month_ns = 30 * 86_400 * 10**9
    clock = ReplayClock(2.0)
    clock.anchor(month_ns, time.monotonic_ns() - 10**9)
    assert 2 * 10**9 <= clock.now_ns() - month_ns < 60 * 10**9
    before_ns, now_ns, after_ns = time.monotonic_ns(), host_clock().now_ns(), time.monotonic_ns()
    assert before_ns <= now_ns <= after_ns + 10**6


def test_now_is_where_a_wait_without_pacing_has_come_to() -> None:
    clock = ReplayClock(None)
    clock.wait_until(7)
    assert clock.now_ns() == 7


def test_a_stepped_clock_stands_still_between_waits_and_never_goes_back() -> None:
    clock = SteppedClock(ReplayClock(None))
    assert clock.wait_until(10)
    time.sleep(0.001)
    assert clock.now_ns() == 10
    assert clock.wait_until(4)
    assert clock.now_ns() == 10
    clock.stop()
    assert not clock.wait_until(20)
