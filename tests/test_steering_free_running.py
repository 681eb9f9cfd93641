from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from edgeperc.clock import ReplayClock
from edgeperc.errors import DeviceError
from edgeperc.packet import Frame, Packet, Stamp
from edgeperc.steering.free_running import AsItComes, FreeRunning


class Camera:
    """Sends a frame each time that it is told to, then ends or breaks."""

    def __init__(self, error: DeviceError | None = None) -> None:
        self.told = threading.Semaphore(0)
        self.sent = threading.Semaphore(0)
        self.ending = False
        self.error = error
        self.closed = 0

    def send(self, count: int = 1) -> None:
        for _ in range(count):
            self.told.release()
            assert self.sent.acquire(timeout=5)

    def end(self) -> None:
        self.ending = True
        self.told.release()

    def packets(self) -> Iterator[Packet]:
        for seq in range(1000):
            self.told.acquire()
            if self.ending:
                break
            stamp = Stamp(source="cam", seq=seq, start_ns=seq, end_ns=seq)
            yield Frame(stamp=stamp, image=np.zeros((2, 2), np.uint8))
            self.sent.release()
        if self.error:
            raise self.error

    def close(self) -> None:
        self.closed += 1
        self.end()


def test_the_newest_of_what_has_come_is_given_and_each_once() -> None:
    camera = Camera()
    free = FreeRunning(camera, timeout_s=0.2)
    camera.send(3)
    assert free.expose().stamp.seq == 2
    threading.Timer(0.05, camera.send).start()
    assert free.expose().stamp.seq == 3
    with pytest.raises(DeviceError, match=r"no picture within 0.2 s"):
        free.expose()
    free.close()
    assert camera.closed == 1


def test_what_is_wrong_with_the_camera_is_said_to_who_asks() -> None:
    camera = Camera(DeviceError("unplugged", hint="plug it in"))
    free = FreeRunning(camera)
    camera.send()
    camera.end()
    time.sleep(0.05)
    assert free.expose().stamp.seq == 0  # it came before the end
    with pytest.raises(DeviceError, match="unplugged") as caught:
        free.expose()
    assert caught.value.hint == "plug it in"


def test_a_camera_that_ends_is_lost() -> None:
    camera = Camera()
    free = FreeRunning(camera)
    camera.end()
    with pytest.raises(DeviceError, match="ended"):
        free.expose()


def test_slots_that_a_camera_makes_begin_at_once_until_the_clock_stops() -> None:
    clock = ReplayClock(None)
    times = []
    for now_ns in AsItComes(clock):
        times.append(now_ns)
        clock.wait_until(10 * len(times))
        if len(times) == 3:
            clock.stop()
    assert times == [0, 10, 20]
