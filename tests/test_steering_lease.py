"""The lease by which one client steers the mirror, and the loop that obeys it."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from edgeperc.control import ControlError
from edgeperc.errors import ConfigError, DeviceError
from edgeperc.packet import Gaze, GazeRange
from edgeperc.steering.lease import MirrorLease, Order

from .test_steering_loop import GRID, Recorder, Rig, places

REACH = GazeRange(lowest=Gaze(pan_rad=-0.5, tilt_rad=-0.2), highest=Gaze(pan_rad=0.5, tilt_rad=0.2))
HERE, THERE = Gaze(pan_rad=0.1, tilt_rad=0.0), Gaze(pan_rad=-0.4, tilt_rad=0.1)


class Held:
    """A lease on a mirror that only remembers its orders, and a clock that is set by hand."""

    def __init__(self, reach: GazeRange | None = REACH) -> None:
        self.now_s = 100.0
        self.is_here = True
        self.orders: list[Order | None] = []
        self.steering = MirrorLease(
            self.orders.append,
            reach=lambda: reach,
            gaze=lambda: HERE,
            is_here=lambda: self.is_here,
            now_s=lambda: self.now_s,
        )


@pytest.fixture
def held() -> Held:
    return Held()


def test_a_lease_takes_the_mirror_points_it_and_gives_it_back(held: Held) -> None:
    lease = held.steering.acquire("me", 2.0)
    held.now_s += 1.0
    held.steering.point(lease, THERE)
    assert held.steering.state().holder == "me"
    assert held.steering.state().lease_s == pytest.approx(2.0)  # renewed by use
    held.steering.release(lease)
    assert held.orders == [Order(None, 102.0), Order(THERE, 103.0), None]
    assert held.steering.state().holder == ""
    held.steering.release(lease)
    assert len(held.orders) == 3


def test_while_nobody_obeys_a_gaze_is_refused_and_the_lease_is_renewed(held: Held) -> None:
    lease = held.steering.acquire("me", 2.0)
    held.steering.point(lease, THERE)
    held.is_here = False
    held.now_s += 1.5
    with pytest.raises(DeviceError, match="being started anew"):
        held.steering.point(lease, HERE)
    held.now_s += 1.5
    held.is_here = True
    assert held.steering.order == Order(THERE, 103.5)
    held.steering.point(lease, HERE)
    assert held.steering.order == Order(HERE, 105.0)


def test_a_second_client_is_told_who_has_it(held: Held) -> None:
    held.steering.acquire("me", 2.0)
    with pytest.raises(ControlError, match="'me' steers the mirror, for 2.0 s") as caught:
        held.steering.acquire("you", 2.0)
    assert caught.value.why == "taken"
    held.now_s += 2.0
    held.steering.acquire("you", 2.0)
    assert held.steering.state().holder == "you"


def test_a_lease_that_is_over_or_none_does_nothing(held: Held) -> None:
    lease = held.steering.acquire("me", 2.0)
    for forged in ("", "x", lease + "x", "ä"):
        with pytest.raises(ControlError, match="no such lease"):
            held.steering.point(forged, THERE)
        held.steering.release(forged)
    held.now_s += 1.9
    held.steering.renew(lease, 3.0)
    held.now_s += 2.9
    held.steering.point(lease, THERE)
    held.now_s += 3.0
    for late in (lambda: held.steering.point(lease, THERE), lambda: held.steering.renew(lease, 1)):
        with pytest.raises(ControlError, match="the search steers") as caught:
            late()
        assert caught.value.why == "impossible"
    assert held.steering.order is None
    assert [order and order.gaze for order in held.orders] == [None, None, THERE]


@pytest.mark.parametrize(
    "gaze", [(0.51, 0.0), (-0.51, 0.0), (0.0, 0.21), (math.nan, 0.0), (0.0, math.inf)]
)
def test_what_is_out_of_reach_is_refused_and_not_clipped(
    held: Held, gaze: tuple[float, float]
) -> None:
    lease = held.steering.acquire("me", 2.0)
    held.steering.point(lease, THERE)
    with pytest.raises(ControlError, match="the mirror reaches from") as caught:
        held.steering.point(lease, Gaze(pan_rad=gaze[0], tilt_rad=gaze[1]))
    assert caught.value.why == "range"
    last = held.orders[-1]
    assert last is not None
    assert last.gaze == THERE


def test_the_very_edge_is_within_reach_though_it_travels_as_float32(held: Held) -> None:
    lease = held.steering.acquire("me", 2.0)
    held.steering.point(lease, Gaze(pan_rad=0.5000001, tilt_rad=-0.2000001))


def test_a_mirror_that_was_never_there_cannot_be_pointed() -> None:
    held = Held(reach=None)
    lease = held.steering.acquire("me", 2.0)
    with pytest.raises(ControlError, match="not there yet"):
        held.steering.point(lease, HERE)


def test_stop_takes_it_from_whoever_has_it(held: Held) -> None:
    lease = held.steering.acquire("me", 2.0)
    held.steering.stop()
    assert held.orders[-1] is None
    with pytest.raises(ControlError):
        held.steering.point(lease, HERE)


@pytest.mark.parametrize("ttl_s", [math.nan, math.inf, -1.0])
def test_a_lease_needs_a_time_that_is_one(held: Held, ttl_s: float) -> None:
    with pytest.raises(ConfigError, match="ttl_s"):
        held.steering.acquire("me", ttl_s)
    assert held.orders == []


def test_a_lease_is_never_longer_than_a_minute_and_five_seconds_if_nothing_is_said(
    held: Held,
) -> None:
    lease = held.steering.acquire("me", 0.0)
    assert held.steering.state().lease_s == pytest.approx(5.0)
    held.steering.renew(lease, 1e6)
    assert held.steering.state().lease_s == pytest.approx(60.0)


def test_of_many_that_want_it_at_once_one_gets_it(held: Held) -> None:
    got: list[str] = []

    def want(number: int) -> None:
        with contextlib.suppress(ControlError):
            got.append(held.steering.acquire(str(number), 2.0))

    threads = [threading.Thread(target=want, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1


NEAR = [(130.0 + k, 64.0) for k in range(20)]  # no move takes longer than a slot
MIDDLE = Gaze(pan_rad=0.0, tilt_rad=0.0)
CLOSE = Gaze(pan_rad=0.03, tilt_rad=0.01)


def ordered(changes: dict[int, Order | None]) -> tuple[Rig, Recorder]:
    """A loop of 12 slots that is given an order as these slots begin."""
    scheduler = Recorder(NEAR)
    rig = Rig(scheduler, slots=12)
    take: Callable[..., list] = rig.take  # type: ignore[type-arg]

    def ordering(now_ns: int) -> list:  # type: ignore[type-arg]
        slot = round(now_ns / (1e9 / 120))
        if slot in changes:
            rig.loop.order = changes[slot]
        return take(now_ns)

    rig.loop._hints = rig
    rig.take = ordering  # type: ignore[method-assign]
    return rig.run(), scheduler


def near(gaze: Gaze) -> Any:
    return pytest.approx((gaze.pan_rad, gaze.tilt_rad), abs=1e-4)


def test_while_a_lease_holds_the_loop_looks_where_it_is_told_and_learns_as_before() -> None:
    hour_s = time.monotonic() + 3600
    rig, scheduler = ordered({3: Order(MIDDLE, hour_s), 6: Order(CLOSE, hour_s), 9: None})
    gazes = [(look.gaze.pan_rad, look.gaze.tilt_rad) for look in rig.looks() if look.gaze]
    assert gazes[3:6] == [near(MIDDLE)] * 3
    assert gazes[6:9] == [near(CLOSE)] * 3
    assert scheduler.steps == 6  # it was asked before and after, never while the lease held
    assert len(scheduler.observed) == 12
    assert gazes[9] == near(GRID.gaze(*NEAR[2]))


def test_an_order_without_a_gaze_holds_still_and_one_that_is_over_is_none() -> None:
    rig, scheduler = ordered({3: Order(None, time.monotonic() + 3600)})
    gazes = [look.gaze for look in rig.looks() if look.gaze]
    assert max(gaze.pan_rad for gaze in gazes[4:]) - min(g.pan_rad for g in gazes[4:]) < 1e-6
    assert scheduler.steps == 2
    rig, scheduler = ordered({3: Order(MIDDLE, time.monotonic() - 1)})
    assert scheduler.steps == 12


def test_the_reach_is_known_once_the_mirror_was_there() -> None:
    rig = Rig(Recorder(places()), slots=2)
    assert rig.loop.reach is None
    rig.run()
    assert rig.loop.reach == rig.made[0].range
