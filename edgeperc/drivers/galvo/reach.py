"""How far a mirror may turn: the range of a rig's file, and what is said of gazes beyond it."""

from __future__ import annotations

import logging
import math
from typing import Annotated

import msgspec

from edgeperc.errors import ConfigError
from edgeperc.packet import Gaze, GazeRange

log = logging.getLogger("edgeperc")

Degrees = Annotated[float, msgspec.Meta(gt=-90, lt=90)]
RangeDeg = tuple[Degrees, Degrees]


def gaze_range(pan_range_deg: RangeDeg, tilt_range_deg: RangeDeg, *, reach_deg: float) -> GazeRange:
    """The range of the rig file's keys. Raises ConfigError if it is none, or past the device's."""
    ranges = {"pan_range_deg": pan_range_deg, "tilt_range_deg": tilt_range_deg}
    for key, (lowest, highest) in ranges.items():
        if not lowest < highest:
            raise ConfigError(f"{key}: {lowest} to {highest} is no range")
        if max(-lowest, highest) > reach_deg + 1e-9:
            raise ConfigError(
                f"{key}: {lowest} to {highest} is more than the device's ±{reach_deg:g}°",
                hint="angles are optical: twice the mechanical ones",
            )
    (left, right), (down, up) = pan_range_deg, tilt_range_deg
    return GazeRange(
        lowest=Gaze(pan_rad=math.radians(left), tilt_rad=math.radians(down)),
        highest=Gaze(pan_rad=math.radians(right), tilt_rad=math.radians(up)),
    )


def log_clipping(gaze: Gaze, reach: GazeRange, clipped: int) -> None:
    """Report the first gaze that was clipped; `clipped` counts this one, too."""
    if clipped == 1:
        log.warning(
            "mirror: asked for %s, clipped to its range of %s to %s; more are only counted",
            _in_degrees(gaze),
            _in_degrees(reach.lowest),
            _in_degrees(reach.highest),
        )


def _in_degrees(gaze: Gaze) -> str:
    return f"({math.degrees(gaze.pan_rad):.2f}°, {math.degrees(gaze.tilt_rad):.2f}°)"
