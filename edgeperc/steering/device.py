"""A camera or mirror that may be lost and comes back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from edgeperc.errors import DeviceError
from edgeperc.status import SensorStatus

log = logging.getLogger("edgeperc")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 8.0


class Closable(Protocol):
    """What can be closed."""

    def close(self) -> None:
        """Release it; may be called twice."""


D = TypeVar("D", bound=Closable)


class Device(Generic[D]):
    """Opens a device when it is wanted, and after a loss again, with growing pauses.

    lossless: a lost device fails for good, as a replay must not go on without it.
    """

    def __init__(self, name: str, construct: Callable[[], D], *, lossless: bool = False) -> None:
        self.status = SensorStatus(name=name)
        self._construct = construct
        self._lossless = lossless
        self._device: D | None = None
        self._pause_s = _FIRST_PAUSE_S
        self._again_s = 0.0

    @property
    def failed(self) -> bool:
        """Whether it is lost for good."""
        return self.status.state == "failed"

    def get(self) -> D | None:
        """The device; None while it is lost."""
        if self._device is None and not self.failed and time.monotonic() >= self._again_s:
            try:
                self._device = self._construct()
            except DeviceError as error:
                self.lost(error)
        return self._device

    def works(self) -> None:
        """It has just done what it should."""
        if self.status.state == "lost":
            log.warning("'%s' is back", self.status.name)
        self.status.state, self.status.error, self.status.hint = "running", "", ""
        self.status.packets += 1
        self._pause_s = _FIRST_PAUSE_S

    def lost(self, error: DeviceError) -> None:
        """It failed: close it, say so once, try again later."""
        if self.status.state == "running":
            log.warning("'%s' lost: %s; reconnecting", self.status.name, error)
        self.status.state = "failed" if self._lossless else "lost"
        self.status.error, self.status.hint = str(error), error.hint
        self.close()
        self._again_s = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """What is done with the device here; a DeviceError means that it is lost."""
        try:
            yield
        except DeviceError as error:
            self.lost(error)

    @property
    def current(self) -> D:
        """The device, which must be `here`."""
        assert self._device is not None
        return self._device

    @property
    def here(self) -> bool:
        """Whether it is open now."""
        return self._device is not None

    def close(self) -> None:
        """Release it; it is opened again when it is wanted."""
        device, self._device = self._device, None
        if device is not None:
            device.close()
