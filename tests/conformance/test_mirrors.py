"""What every mirror must do, whatever it drives; a new one joins by a line in MIRRORS.

Those on a serial port speak to their simulator, whose truth they are held to. Time is a number
that the test sets.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeperc import plugin
from edgeperc.drivers.galvo.mirrorcle import mirrorcle
from edgeperc.drivers.galvo.optotune import optotune
from edgeperc.drivers.galvo.sigma import sigma
from edgeperc.drivers.galvo.twin import TwinMirror
from edgeperc.errors import DeviceError
from edgeperc.packet import Gaze, GazeRange, Mirror
from edgeperc.simulate.devices import Kind
from edgeperc.simulate.mirror import MirrorSimulator

MS = 1_000_000
MTI = {"full_scale_deg": 10.0, "bias_v": 80.0, "difference_v": 130.0, "filter_hz": 400.0}


@dataclass
class Clock:
    """Time, set by hand."""

    now_ns: int = 7_000_000_000

    def __call__(self) -> int:
        return self.now_ns


@dataclass
class Bench:
    """A mirror, its clock, its rig file's keys, and the simulator behind it, if there is one."""

    make: Callable[..., Mirror]
    simulator: MirrorSimulator | None
    clock: Clock = field(default_factory=Clock)

    def open(self, **keys: Any) -> Mirror:
        """The mirror, at a time when it has come to rest."""
        if self.simulator is None:
            return self.make(**keys, now_ns=self.clock)
        greeting = {"optotune": 4, "sigma": 5, "mirrorcle": 8}[self.simulator.kind]
        count = self.simulator.count + greeting
        port = {"port": self.simulator.port, "timeout_ms": 5000.0}
        opened = self.make(**port, **keys, now_ns=self.clock)
        assert self.simulator.wait_received(count)
        self.clock.now_ns += 100 * MS
        return opened


MIRRORS: dict[str, tuple[Callable[..., Mirror], Kind | None]] = {
    "twin-mirror": (TwinMirror, None),
    "optotune": (optotune, "optotune"),
    "sigma": (sigma, "sigma"),
    "mirrorcle": (lambda **keys: mirrorcle(**{**MTI, **keys}), "mirrorcle"),
}


@contextlib.contextmanager
def benches(name: str) -> Iterator[Bench]:
    make, kind = MIRRORS[name]
    if kind is None:
        yield Bench(make, None)
        return
    clock = Clock()
    with MirrorSimulator(kind, wire_time=False, now_ns=clock) as simulator:
        yield Bench(make, simulator, clock)


@pytest.fixture(params=MIRRORS)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with benches(request.param) as found:
        yield found


@pytest.fixture
def mirror(bench: Bench) -> Iterator[Mirror]:
    opened = bench.open()
    with contextlib.closing(opened):
        yield opened


def at(pan_deg: float, tilt_deg: float) -> Gaze:
    return Gaze(pan_rad=math.radians(pan_deg), tilt_rad=math.radians(tilt_deg))


def away_deg(a: Gaze, b: Gaze) -> float:
    return math.degrees(max(abs(a.pan_rad - b.pan_rad), abs(a.tilt_rad - b.tilt_rad)))


def within(gaze: Gaze, reach: GazeRange) -> bool:
    return (
        reach.lowest.pan_rad - 1e-9 <= gaze.pan_rad <= reach.highest.pan_rad + 1e-9
        and reach.lowest.tilt_rad - 1e-9 <= gaze.tilt_rad <= reach.highest.tilt_rad + 1e-9
    )


def test_the_table_of_mirrors_is_tested_whole() -> None:
    assert set(MIRRORS) == set(plugin.MIRRORS)


anything = st.one_of(st.floats(-1.5, 1.5), st.floats(allow_nan=False, allow_infinity=False))


ranges = st.sampled_from(
    [
        {},
        {"pan_range_deg": (-7.77, 3.333), "tilt_range_deg": (-1.234, 5.001)},
        {"pan_range_deg": (1.0, 2.0), "tilt_range_deg": (-2.5, -0.1)},
    ]
)
mountings = st.fixed_dictionaries(
    {
        "pan_sign": st.sampled_from([1, -1]),
        "tilt_sign": st.sampled_from([1, -1]),
        "swap_axes": st.booleans(),
    }
)


@pytest.mark.parametrize("name", MIRRORS)
@settings(deadline=None, max_examples=25)
@given(
    reach=ranges, mounting=mountings, gazes=st.lists(st.builds(at, anything, anything), min_size=1)
)
def test_no_command_ever_leaves_the_range(
    name: str, reach: dict[str, Any], mounting: dict[str, Any], gazes: list[Gaze]
) -> None:
    with benches(name) as bench:
        mirror = bench.open(**reach, **(mounting if bench.simulator else {}))
        count = bench.simulator.count if bench.simulator else 0
        for gaze in gazes:
            asked = mirror.aim(gaze)
            assert within(asked, mirror.range)
            assert away_deg(asked, mirror.range.clip(gaze)) < 0.007  # a code of the device
        assert mirror.clipped == sum(mirror.range.clip(gaze) != gaze for gaze in gazes)
        mirror.close()
        if bench.simulator is None:
            return
        assert bench.simulator.wait_received(count + len(gazes) + 1)  # it goes to rest at the end
        sent = [each.target for each in bench.simulator.received if each.target]
        assert len(sent) == len(gazes) + 2
        for target in sent:
            pan, tilt = target.pan_rad, target.tilt_rad
            if mounting["swap_axes"]:
                pan, tilt = tilt, pan
            seen = Gaze(pan_rad=pan * mounting["pan_sign"], tilt_rad=tilt * mounting["tilt_sign"])
            assert within(seen, mirror.range)


def test_what_is_asked_of_the_device_is_what_it_receives(bench: Bench, mirror: Mirror) -> None:
    if bench.simulator is None:
        return
    count = bench.simulator.count
    for k in range(40):
        asked = mirror.aim(at(0.37 * k - 7.3, 4.9 - 0.23 * k))
        assert bench.simulator.wait_received(count + k + 1)
        target = bench.simulator.received[-1].target
        assert target
        assert away_deg(target, asked) < 1e-9


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_gaze_that_is_no_number_is_not_sent(bench: Bench, mirror: Mirror, bad: float) -> None:
    count = bench.simulator.count if bench.simulator else 0
    mirror.aim(at(3, 2))
    bench.clock.now_ns += 50 * MS
    before = mirror.measured()
    for gaze in (Gaze(pan_rad=bad, tilt_rad=0.0), Gaze(pan_rad=0.0, tilt_rad=bad)):
        with pytest.raises(ValueError, match="must be finite"):
            mirror.aim(gaze)
    assert mirror.clipped == 0
    assert mirror.measured() == before
    if bench.simulator:
        mirror.aim(at(1, 1))
        assert bench.simulator.wait_received(count + 2)
        sent = [each.target for each in bench.simulator.received if each.target]
        assert len(sent) == 3  # its rest, (3, 2), (1, 1)


def test_clipping_is_counted_and_told_once(
    mirror: Mirror, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "edgeperc"):
        mirror.aim(at(1, 1))
        assert mirror.clipped == 0
        for _ in range(3):
            assert mirror.aim(at(88.5, 1)) == mirror.aim(at(200, 1))
    assert mirror.clipped == 6
    assert len(caplog.records) == 1
    assert "88.50°" in caplog.text


def test_measured_is_not_the_wish_but_gets_there(bench: Bench, mirror: Mirror) -> None:
    asked = mirror.aim(at(-8, 4))
    asked_ns, settled_ns = bench.clock.now_ns, mirror.settled_ns()
    assert away_deg(mirror.measured(), at(0, 0)) < 0.01
    assert 1 * MS < settled_ns - asked_ns < 20 * MS
    assert away_deg(mirror.measured(asked_ns + 300_000), asked) > 1
    ways = [away_deg(mirror.measured(t), asked) for t in range(asked_ns, settled_ns, MS // 4)]
    assert ways[0] > 7.9
    assert ways[-1] < 0.5
    for later_ns in (settled_ns, settled_ns + MS, settled_ns + 10**10):
        assert away_deg(mirror.measured(later_ns), asked) <= 0.005
    bench.clock.now_ns = settled_ns
    assert away_deg(mirror.measured(), asked) <= 0.005


def test_the_device_is_there_when_the_model_says_settled(bench: Bench, mirror: Mirror) -> None:
    if bench.simulator is None:
        return
    for gaze in (at(9, -9), at(-9, 9), at(-8.5, 9), at(0, 0)):
        count = bench.simulator.count
        mirror.aim(gaze)
        assert bench.simulator.wait_received(count + 1)
        bench.clock.now_ns = mirror.settled_ns()
        assert away_deg(bench.simulator.position(), mirror.measured()) < 0.015


def test_a_new_aim_in_mid_move_starts_from_where_it_is(bench: Bench, mirror: Mirror) -> None:
    mirror.aim(at(8, 0))
    bench.clock.now_ns += MS
    there = mirror.measured()
    assert 0.5 < math.degrees(there.pan_rad) < 7.9
    asked = mirror.aim(at(-8, 0))
    assert away_deg(mirror.measured(), there) < 1e-9
    bench.clock.now_ns = mirror.settled_ns()
    assert away_deg(mirror.measured(), asked) <= 0.005


def test_the_same_gaze_again_does_not_put_off_its_settling(bench: Bench, mirror: Mirror) -> None:
    mirror.aim(at(5, 5))
    settled_ns = mirror.settled_ns()
    for _ in range(8):
        bench.clock.now_ns += MS
        mirror.aim(at(5, 5))
    assert mirror.settled_ns() == settled_ns


def test_it_says_where_its_gaze_comes_from(mirror: Mirror, bench: Bench) -> None:
    assert ("modelled" in mirror.source) == (bench.simulator is not None)
    lowest, highest = mirror.range.lowest, mirror.range.highest
    assert lowest.pan_rad < 0 < highest.pan_rad
    assert lowest.tilt_rad < 0 < highest.tilt_rad


def test_closed_is_closed_and_says_so(bench: Bench) -> None:
    mirror = bench.open()
    mirror.aim(at(4, 4))
    mirror.close()
    mirror.close()
    for call in (lambda: mirror.aim(at(1, 1)), mirror.measured):
        with pytest.raises(DeviceError, match="closed"):
            call()
    if bench.simulator:
        again = bench.open()  # the port was let go
        assert again.aim(at(1, 1))
        again.close()


def aim_for_ever(mirror: Mirror, begun: threading.Event, seen: list[Exception]) -> None:
    try:
        while True:
            for pan_deg in range(9):
                mirror.aim(at(pan_deg, -pan_deg))
                mirror.measured()
            begun.set()
    except Exception as error:
        seen.append(error)


def test_closing_from_another_thread_in_the_middle_of_aims(bench: Bench) -> None:
    for _ in range(12):
        mirror, begun, seen = bench.open(), threading.Event(), list[Exception]()
        thread = threading.Thread(target=aim_for_ever, args=(mirror, begun, seen), daemon=True)
        thread.start()
        assert begun.wait(20)
        mirror.close()
        thread.join(20)
        assert not thread.is_alive()
        assert [type(error) for error in seen] == [DeviceError]
