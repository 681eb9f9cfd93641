"""The published rig's own D/A board, which drives a galvano scanner by two voltages."""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Callable
from typing import Annotated

import msgspec

from edgeperc.drivers.galvo.link import SerialLink
from edgeperc.drivers.galvo.reach import RangeDeg, gaze_range
from edgeperc.drivers.galvo.serial_mirror import (
    Axes,
    Baud,
    NotNegative,
    Port,
    SerialMirror,
    Sign,
    TimeoutMs,
)
from edgeperc.drivers.galvo.settle import SettleTime
from edgeperc.errors import ConfigError

BAUD = 921_600
HEADER = bytes.fromhex("FF AA 88 55 11")
POSITION, CYCLE, EXPOSURE, STEP, PULSE, CLEAR = range(6)
REACH_V = 5.0
CODES_PER_V = 16383 / 10
TICKS_PER_US = 100  # of 10 ns

Micros = Annotated[float, msgspec.Meta(gt=0, le=4e7)]


def sigma(
    *,
    port: Port,
    baud: Baud = BAUD,
    pan_sign: Sign = 1,
    tilt_sign: Sign = 1,
    swap_axes: bool = False,
    deg_per_v: Annotated[float, msgspec.Meta(gt=0, lt=18)] = 4.0,
    pan_range_deg: RangeDeg | None = None,
    tilt_range_deg: RangeDeg | None = None,
    cycle_us: Micros = 2500.0,
    exposure_us: Micros = 1000.0,
    pulse_us: Annotated[float, msgspec.Meta(gt=0, le=655)] = 100.0,
    step_percent: Annotated[float, msgspec.Meta(gt=0, le=100)] = 1.0,
    step_ms: Annotated[float, msgspec.Meta(gt=0, le=5.1)] = 0.25,
    step_us: Annotated[float, msgspec.Meta(gt=0, le=2.55)] = 0.1,
    base_ms: NotNegative = 3.3,
    ms_per_deg: NotNegative = 0.024,
    timeout_ms: TimeoutMs = 100.0,
    now_ns: Callable[[], int] = time.monotonic_ns,
) -> SerialMirror:
    """Open the published rig's D/A board; not run on hardware.

    Angles are optical; the ranges default to ±5 V. deg_per_v: optical degrees a volt. cycle_us,
    exposure_us, pulse_us, step_percent, step_ms, step_us: the board's camera trigger and step, as
    the author's host sets them. base_ms: the default is what that rig spends on a gaze, whatever
    its length; see `SettleTime`. The board never answers: a board that was reset, or a wrong port,
    is not noticed, only one that is unplugged or takes no bytes for `timeout_ms`.

    Raises ConfigError for a range past ±5 V or an exposure longer than the cycle, DeviceError if
    the port cannot be had.
    """
    if exposure_us > cycle_us:
        raise ConfigError(f"exposure_us: {exposure_us:g} is longer than cycle_us, {cycle_us:g}")
    reach_deg = REACH_V * deg_per_v
    whole = (-reach_deg, reach_deg)
    reach = gaze_range(pan_range_deg or whole, tilt_range_deg or whole, reach_deg=reach_deg)
    settings = (
        frame(
            STEP,
            struct.pack(">HBB", *map(round, (step_percent / 0.1, step_ms / 0.02, step_us / 0.01))),
        ),
        frame(EXPOSURE, struct.pack(">I", round(exposure_us * TICKS_PER_US))),
        frame(CYCLE, struct.pack(">I", round(cycle_us * TICKS_PER_US))),
        frame(PULSE, struct.pack(">HH", 0, round(pulse_us * TICKS_PER_US))),
    )
    return SerialMirror(
        DaBoard(settings, deg_per_v),
        SerialLink(port, baud=baud, timeout_ms=timeout_ms),
        gaze_range=reach,
        axes=Axes(pan_sign, tilt_sign, swap_axes),
        settle=SettleTime(base_ms, ms_per_deg),
        now_ns=now_ns,
    )


class DaBoard:
    """Frames of ten bytes: FF AA 88 55 11, what it is, and four bytes, big-endian; no answers.

    A position is a code an axis, trunc(V * 1638.3 + 8192): -5 V is 0, 5 V is 16383. settings: the
    frames of STEP, EXPOSURE, CYCLE and PULSE, sent at the start in this order, before a position.
    Source: the code that the rig's first author published.
    """

    acknowledged = b""
    farewell = b""

    def __init__(self, settings: tuple[bytes, ...], deg_per_v: float) -> None:
        self._settings = settings
        self._rad_per_v = math.radians(deg_per_v)

    def code(self, angle_rad: float) -> float:
        """The board's code; rounding it to the nearest is what the formula's trunc does."""
        return (angle_rad / self._rad_per_v + REACH_V) * CODES_PER_V

    def angle_rad(self, code: int) -> float:
        """The optical angle of a code."""
        return (code / CODES_PER_V - REACH_V) * self._rad_per_v

    def point(self, x: int, y: int) -> bytes:
        """A frame of POSITION."""
        return frame(POSITION, struct.pack(">HH", x, y))

    def greet(self, link: SerialLink) -> None:
        """Send the settings; nobody answers."""
        for setting in self._settings:
            link.send(setting)


def frame(kind: int, payload: bytes) -> bytes:
    """One frame. kind: POSITION to CLEAR. payload: 4 bytes."""
    return HEADER + bytes([kind]) + payload
