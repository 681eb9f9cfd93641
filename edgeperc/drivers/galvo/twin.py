"""The digital twin's own mirror: nothing attached, its position known exactly."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Annotated

import msgspec

from edgeperc.drivers.galvo.plant import Plant, SecondOrder
from edgeperc.drivers.galvo.reach import RangeDeg, gaze_range, log_clipping
from edgeperc.errors import DeviceError
from edgeperc.packet import Gaze

REACH_DEG = 89.0


class TwinMirror:
    """A second-order mirror in this process, on the run's clock; `measured` is where it truly is.

    Angles are optical. natural_hz, damping, delay_us: see `edgeperc.drivers.galvo.plant`.
    tolerance_deg: a move is over when both axes stay so close to the target. now_ns: the clock; a
    move begins at the time that it tells. Raises ConfigError if a range is none.
    """

    source = "the twin's plant"

    def __init__(
        self,
        *,
        pan_range_deg: RangeDeg = (-30.0, 30.0),
        tilt_range_deg: RangeDeg = (-15.0, 15.0),
        natural_hz: Annotated[float, msgspec.Meta(gt=0, le=1e5)] = 350.0,
        damping: Annotated[float, msgspec.Meta(ge=0.01, le=0.99)] = 0.75,
        delay_us: Annotated[float, msgspec.Meta(ge=0, le=1e6)] = 150.0,
        tolerance_deg: Annotated[float, msgspec.Meta(gt=0, le=10)] = 0.005,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.range = gaze_range(pan_range_deg, tilt_range_deg, reach_deg=REACH_DEG)
        self.clipped = 0
        self._now_ns = now_ns
        self._tolerance_rad = math.radians(tolerance_deg)
        at = self.range.clip(Gaze(pan_rad=0.0, tilt_rad=0.0))
        self._plant = Plant(SecondOrder(natural_hz, damping), delay_us=delay_us, at=at)
        self._begun_ns = now_ns()
        self._closed = False

    def aim(self, gaze: Gaze) -> Gaze:
        """Start to move; returns the gaze, clipped to the range.

        Raises ValueError if `gaze` is not finite, DeviceError once closed.
        """
        asked = self.range.clip(gaze)
        if self._closed:
            raise DeviceError("twin-mirror: closed")
        if asked != gaze:
            self.clipped += 1
            log_clipping(gaze, self.range, self.clipped)
        self._plant.command(asked, self._now_ns())
        return asked

    def measured(self, time_ns: int | None = None) -> Gaze:
        """Where it points, now or at a time; some hundreds of moves are remembered.

        It may overshoot its range for a moment, as a real one does. Raises DeviceError once closed.
        """
        if self._closed:
            raise DeviceError("twin-mirror: closed")
        return self._plant.position(self._now_ns() if time_ns is None else time_ns)

    def settled_ns(self) -> int:
        """When the last move is over: it stays within the tolerance from then on."""
        return max(self._plant.still_ns(self._tolerance_rad), self._begun_ns)

    def close(self) -> None:
        """Refuse further aims; may be called twice and from any thread."""
        self._closed = True
