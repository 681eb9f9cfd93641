"""One sensor, read to its end: opened, checked, and opened anew when it was lost.

reading = Reading("dvs", open_camera, listener, validator=Validator, lossless=False)
reading.run()           # in a thread of its own, until the sensor ends or `stop`
print(reading.status)
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from edgeperc.errors import ConfigError, DataError, DeviceError
from edgeperc.packet import Events, Packet, Sensor
from edgeperc.status import SensorStatus
from edgeperc.validate import Validator

log = logging.getLogger("edgeperc.reading")

_MIN_BACKOFF_S = 0.5
_MAX_BACKOFF_S = 8.0


class Listener(Protocol):
    """Takes what becomes of a sensor; called from the thread that reads it."""

    def opened(self, name: str) -> None:
        """It is about to be opened, perhaps anew and with its clock set anew."""

    def take(self, name: str, packet: Packet) -> None:
        """A packet that passed the checks."""

    def lost(self, name: str) -> None:
        """It was lost, and may come back."""

    def ended(self, name: str) -> None:
        """It will say nothing more."""


class Reading:
    """Reads a sensor, in the thread that calls `run`.

    open_sensor: called again when the device was lost. lossless: a lost device ends its stream
    (replay), instead of being waited for (live).
    """

    def __init__(
        self,
        name: str,
        open_sensor: Callable[[], Sensor],
        listener: Listener,
        *,
        validator: Callable[[], Validator],
        lossless: bool,
    ) -> None:
        self.status = SensorStatus(name=name)
        self._open, self._listener = open_sensor, listener
        self._validator, self._lossless = validator, lossless
        self._stopping = threading.Event()
        self._sensor: Sensor | None = None

    def run(self) -> None:
        """Read to the end, through losses and reconnections."""
        status = self.status
        backoff_s = _MIN_BACKOFF_S
        while not self._stopping.is_set():
            packets_before = status.packets
            try:
                self._read_once()
                status.state = "ended"
                break
            except DataError as error:
                status.state, status.error, status.hint = "failed", str(error), error.hint
                break
            except (DeviceError, ConfigError) as error:  # a file that is not there may come
                status.error, status.hint = str(error), error.hint
                if self._lossless:
                    status.state = "failed"
                    break
                if status.packets > packets_before:
                    backoff_s = _MIN_BACKOFF_S
                if status.state != "lost":
                    log.warning("sensor '%s' lost: %s; reconnecting", status.name, error)
                status.state = "lost"
                self._listener.lost(status.name)
                self._stopping.wait(backoff_s)
                backoff_s = min(2 * backoff_s, _MAX_BACKOFF_S)
        self._listener.ended(status.name)

    def stop(self) -> None:
        """End `run` soon; may be called twice and from any thread."""
        self._stopping.set()
        if self._sensor:
            self._sensor.close()

    def _read_once(self) -> None:
        """Open the sensor, check its packets and hand them on."""
        status = self.status
        validator = self._validator()
        self._listener.opened(status.name)
        sensor = self._sensor = self._open()
        try:
            if self._stopping.is_set():  # `stop` may have looked before this sensor was there
                return
            status.counters = validator.counters
            for packet in validator.stream(sensor.packets()):
                if self._stopping.is_set():
                    return
                if status.state == "lost":
                    log.warning("sensor '%s' is back", status.name)
                    status.error = status.hint = ""
                status.state = "running"
                status.packets += 1
                if isinstance(packet, Events):
                    status.events += len(packet)
                else:
                    status.frames += 1
                self._listener.take(status.name, packet)
        finally:
            sensor.close()
