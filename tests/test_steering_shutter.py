"""The shutter in a thread of its own: on time, in order, and never while the mirror is sent on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from edgeperc.clock import ReplayClock
from edgeperc.drivers.galvo.twin import TwinMirror
from edgeperc.errors import DeviceError
from edgeperc.packet import Frame, Gaze, Stamp
from edgeperc.steering.device import Device
from edgeperc.steering.shutter import Shutter
from edgeperc.steering.slots import Slots

PERIOD_NS = 20_000_000


class Camera:
    """Exposes in no time, and may fail."""

    def __init__(self, clock: ReplayClock, fail: Callable[[int], None] = lambda _shot: None):
        self.clock, self.fail = clock, fail
        self.shots = 0
        self.exposed = threading.Semaphore(0)

    def expose(self) -> Frame:
        self.shots += 1
        self.fail(self.shots)
        now_ns = self.clock.now_ns()
        stamp = Stamp(source="cam", seq=self.shots, start_ns=now_ns, end_ns=now_ns)
        self.exposed.release()
        return Frame(stamp=stamp, image=np.zeros((2, 2), np.uint8))

    def close(self) -> None:
        pass


def shutter(clock: ReplayClock, camera: Camera, *, slots: int = 6) -> Shutter:
    return Shutter(
        camera=Device("search", lambda: camera),
        mirror=Device("mirror", lambda: TwinMirror(now_ns=clock.now_ns)),
        slots=Slots(PERIOD_NS, clock, end_ns=slots * PERIOD_NS),
        clock=clock,
        ahead=True,
    )


def test_the_next_picture_is_taken_while_the_last_one_is_still_searched() -> None:
    clock = ReplayClock(1.0)
    camera = Camera(clock)
    looks = shutter(clock, camera)
    seen = []
    for look in looks:
        assert camera.exposed.acquire(timeout=5)
        seen.append(look.due_ns)
        looks.arm()
        if len(seen) < 5:
            assert camera.exposed.acquire(timeout=5)  # although nobody asked for the next look
            camera.exposed.release()
    assert seen == [PERIOD_NS * k for k in range(1, 7)]


def test_nothing_is_exposed_before_the_mirror_was_sent_on() -> None:
    clock = ReplayClock(1.0)
    camera = Camera(clock)
    looks = shutter(clock, camera)
    for count, look in enumerate(looks, start=1):
        time.sleep(2.5 * PERIOD_NS * 1e-9)
        assert camera.shots == count
        assert look.frame
        looks.arm()
    assert looks.missed >= 2


def test_a_look_waits_for_the_mirror_and_says_so() -> None:
    clock = ReplayClock(1.0)
    looks = shutter(clock, Camera(clock), slots=3)
    settled = []
    for look in looks:
        assert look.frame
        settled.append(look.frame.gaze)
        looks.mirror.current.aim(Gaze(pan_rad=0.1 * len(settled), tilt_rad=0.0))
        looks.arm()
    assert [gaze.pan_rad for gaze in settled if gaze] == pytest.approx([0.0, 0.1, 0.2], abs=1e-3)


def test_a_lost_camera_is_a_look_at_nothing_and_a_bug_is_raised_where_looks_are_taken() -> None:
    def fail(shot: int) -> None:
        if shot == 2:
            raise DeviceError("unplugged")
        if shot == 3:
            raise ZeroDivisionError

    clock = ReplayClock(1.0)
    camera = Camera(clock, fail)
    looks = shutter(clock, camera, slots=100)
    frames = []
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        for look in looks:
            frames.append(look.frame is not None)
            looks.camera._again_s = 0.0
            looks.arm()
    assert frames[:2] == [True, False]
    assert looks.camera.status.frames == 1


def test_a_stopped_clock_ends_the_looks() -> None:
    clock = ReplayClock(1.0)
    looks = shutter(clock, Camera(clock), slots=10_000)
    for count, _ in enumerate(looks, start=1):
        if count == 2:
            clock.stop()
        looks.arm()
    assert count in (2, 3)
