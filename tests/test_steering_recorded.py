"""Looks as they were recorded: each picture with its gaze, at the time at which it was due."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from edgeperc.clock import ReplayClock
from edgeperc.errors import ConfigError, DataError
from edgeperc.packet import Events, Frame, Gaze, Packet, Stamp
from edgeperc.plan import Plan
from edgeperc.steering.build import build
from edgeperc.steering.device import Device
from edgeperc.steering.hints import TimedHints
from edgeperc.steering.recorded import RecordedLooks, RecordedMirror


def picture(seq: int, start_ns: int, gaze: Gaze | None) -> Frame:
    stamp = Stamp(source="search", seq=seq, start_ns=start_ns, end_ns=start_ns + 1000)
    return Frame(stamp=stamp, image=np.zeros((4, 4), np.uint8), gaze=gaze)


class Tape:
    """A recording that breaks at its end, if it should."""

    def __init__(self, packets: list[Packet], error: str = "") -> None:
        self._packets, self._error = packets, error

    def packets(self) -> Iterator[Packet]:
        yield from self._packets
        if self._error:
            raise DataError(self._error)

    def close(self) -> None: ...


def looks(tape: Tape, waits: dict[int, int] | None = None) -> RecordedLooks:
    camera: Device[Any] = Device("search", lambda: tape, lossless=True)
    return RecordedLooks(camera=camera, waits=waits or {}, period_ns=8_000, max_gap_us=10_000_000)


THERE = Gaze(pan_rad=0.1, tilt_rad=-0.2)


def test_each_picture_is_a_look_at_the_time_of_its_slot() -> None:
    stamp = Stamp(source="search", seq=0, start_ns=0, end_ns=0)
    none = Events(
        stamp=stamp,
        t=np.zeros(0, np.int64),
        x=np.zeros(0, np.uint16),
        y=np.zeros(0, np.uint16),
        p=np.zeros(0, np.bool_),
        width_px=4,
        height_px=4,
    )
    tape = Tape(
        [none, picture(0, 9_000, THERE), picture(1, 30_000, THERE), picture(2, 41_000, None)]
    )
    recorded = looks(tape, {0: 1_000, 1: 14_000})  # the mirror needed longer than a slot
    found = list(recorded)
    assert [(look.due_ns, look.late_ns) for look in found] == [(8_000, 1_000), (16_000, 14_000)]
    assert [look.frame.gaze for look in found if look.frame] == [THERE, THERE]
    assert recorded.camera.status.frames == 2
    assert recorded.mirror.current.measured() == THERE


def test_what_is_not_known_is_the_slot_before_the_picture() -> None:
    (look,) = looks(Tape([picture(0, 30_000, THERE)]))
    assert (look.due_ns, look.late_ns) == (24_000, 6_000)


def test_a_recording_that_breaks_is_a_camera_that_is_lost() -> None:
    recorded = looks(Tape([picture(0, 1_000, THERE)], "it was cut off"))
    assert len(list(recorded)) == 1
    assert recorded.camera.failed
    assert recorded.camera.status.error == "it was cut off"


def test_pictures_that_go_back_in_time_are_refused() -> None:
    recorded = looks(Tape([picture(0, 9_000_000, THERE), picture(1, 1_000_000, THERE)]))
    assert len(list(recorded)) == 1
    assert "back" in recorded.camera.status.error


def test_the_mirror_takes_orders_and_stays_where_it_was() -> None:
    mirror = RecordedMirror()
    mirror.gaze = THERE
    assert mirror.aim(Gaze(pan_rad=0.3, tilt_rad=0.0)).pan_rad == 0.3
    assert mirror.measured() == THERE
    with pytest.raises(ValueError, match="finite"):
        mirror.aim(Gaze(pan_rad=float("nan"), tilt_rad=0.0))


def test_a_recording_is_not_steered_live() -> None:
    plan = Plan.load("search")
    sensors = {**plan.rig.sensors, "search": {"driver": "replay", "path": "drive.mcap"}}
    plan = replace(plan, rig=msgspec.structs.replace(plan.rig, sensors=sensors))
    with pytest.raises(ConfigError, match="'search' is a recording, and a search that is live"):
        build(plan, clock=ReplayClock(), hints=TimedHints([], delay_ns=0), emit=lambda _: None)
