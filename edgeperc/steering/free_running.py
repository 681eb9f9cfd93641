"""A camera that exposes at its own rate, taken as one that is asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from edgeperc.clock import Clock
from edgeperc.errors import DeviceError
from edgeperc.packet import Frame, Sensor


class FreeRunning:
    """Answers `expose` with the next frame that comes; of several the newest.

    The loop then runs at the camera's own rate. timeout_s: without a frame for so long the camera
    is lost.
    """

    def __init__(self, sensor: Sensor, *, timeout_s: float = 2.0) -> None:
        self._sensor = sensor
        self._timeout_s = timeout_s
        self._newest: Frame | None = None
        self._error: DeviceError | None = None
        self._changed = threading.Condition()
        threading.Thread(target=self._read, name="search camera", daemon=True).start()

    def expose(self) -> Frame:
        """The next frame. Raises DeviceError if the camera is lost, ends or sends nothing."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest or self._error, self._timeout_s)
            frame, self._newest = self._newest, None
            if frame is None:
                raise self._error or DeviceError(f"no picture within {self._timeout_s:g} s")
            return frame

    def close(self) -> None:
        """Stop reading and release the camera; may be called twice."""
        self._sensor.close()

    def _read(self) -> None:
        error = DeviceError("the camera ended")
        try:
            for packet in self._sensor.packets():
                if isinstance(packet, Frame):
                    with self._changed:
                        self._newest = packet
                        self._changed.notify()
        except DeviceError as lost:
            error = lost
        finally:
            with self._changed:
                self._error = error
                self._changed.notify()


class AsItComes:
    """Slots that a free-running camera makes: the next one begins at once."""

    late_ns = 0
    missed = 0

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def __iter__(self) -> Iterator[int]:
        """The time now, again and again, until the clock is stopped."""
        while self._clock.wait_until(now_ns := self._clock.now_ns()):
            yield now_ns
