"""The newest frame for whoever is slow: the missed ones are counted, and the end is kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from edgeperc.errors import DeviceError
from edgeperc.newest import Newest
from edgeperc.packet import Frame

from .tiny_promptable import frame


class Camera:
    """Sends frames when it is told to, so that nothing hangs on time."""

    def __init__(self) -> None:
        self._more = threading.Semaphore(0)
        self._sent = threading.Semaphore(0)
        self.failure: Exception | None = None
        self._wanted = 0

    def __iter__(self) -> Iterator[Frame]:
        number = 0
        while True:
            self._more.acquire()
            if self.failure:
                raise self.failure
            if number >= self._wanted:
                return
            yield frame(np.zeros((2, 2), np.uint8), number)
            self._sent.release()  # asked for the next one: this one is in the box
            number += 1

    def send(self, count: int) -> None:
        self._wanted += count
        for _ in range(count):
            self._more.release()
        for _ in range(count):
            self._sent.acquire()

    def first(self, frames: Iterator[Frame]) -> Frame:
        """Sent while it is awaited: nothing is read before."""
        sending = threading.Thread(target=self.send, args=(1,))
        sending.start()
        found = next(frames)
        sending.join()
        return found

    def end(self) -> None:
        self._more.release()


def test_only_the_newest_is_seen_and_the_others_are_counted() -> None:
    camera = Camera()
    newest = Newest(camera)
    frames = iter(newest)
    assert camera.first(frames).stamp.seq == 0
    camera.send(5)
    assert next(frames).stamp.seq == 5
    assert newest.missed == 4
    camera.send(1)
    camera.end()
    assert [each.stamp.seq for each in frames] == [6]
    assert newest.missed == 4


def test_what_breaks_comes_after_the_last_frame() -> None:
    camera = Camera()
    frames = iter(Newest(camera))
    camera.first(frames)
    camera.send(1)
    camera.failure = DeviceError("the camera is gone")
    camera.end()
    assert next(frames).stamp.seq == 1
    with pytest.raises(DeviceError, match="the camera is gone"):
        next(frames)
