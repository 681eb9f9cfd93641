"""Optotune MR-E-2 controller with an MR-15-30 mirror, in simple mode over USB."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

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

BAUD = 256_000
REACH_DEG = 50.0
TAN_REACH = math.tan(math.radians(REACH_DEG))
CODES = 10_000  # four decimals
PAUSE_MS = 1.0


def optotune(
    *,
    port: Port,
    baud: Baud = BAUD,
    pan_sign: Sign = 1,
    tilt_sign: Sign = 1,
    swap_axes: bool = False,
    pan_range_deg: RangeDeg = (-REACH_DEG, REACH_DEG),
    tilt_range_deg: RangeDeg = (-REACH_DEG, REACH_DEG),
    base_ms: NotNegative = 4.0,
    ms_per_deg: NotNegative = 0.06,
    timeout_ms: TimeoutMs = 100.0,
    now_ns: Callable[[], int] = time.monotonic_ns,
) -> SerialMirror:
    """Open an Optotune mirror in simple mode; not run on hardware.

    Angles are optical: twice the mirror's own. pan_sign, tilt_sign, swap_axes: how the device's x
    and y lie in the gaze. base_ms, ms_per_deg: see `SettleTime`; the defaults bound, within 0.01°,
    a second-order mirror of 350 Hz and damping 0.75, and are not measured on this device.
    timeout_ms: for each answer. Raises ConfigError for a range past the device's ±50°, DeviceError
    if the port cannot be had or the device does not answer as an Optotune.
    """
    reach = gaze_range(pan_range_deg, tilt_range_deg, reach_deg=REACH_DEG)
    return SerialMirror(
        SimpleMode(),
        SerialLink(port, baud=baud, timeout_ms=timeout_ms, pause_ms=PAUSE_MS),
        gaze_range=reach,
        axes=Axes(pan_sign, tilt_sign, swap_axes),
        settle=SettleTime(base_ms, ms_per_deg),
        now_ns=now_ns,
    )


class SimpleMode:
    """The controller's text protocol: lines that end in CRLF, every answer an OK.

    A command carries tan(optical angle) / tan(50°), an axis, with four decimals; commands want 1 ms
    between them. What the device says instead of OK is not known, so anything else is a refusal.
    Source: what published programs send it.
    """

    acknowledged = b"OK"
    farewell = b""

    def code(self, angle_rad: float) -> float:
        """Ten-thousandths of the device's unit."""
        return math.tan(angle_rad) / TAN_REACH * CODES

    def angle_rad(self, code: int) -> float:
        """The optical angle of a code."""
        return math.atan(code / CODES * TAN_REACH)

    def point(self, x: int, y: int) -> bytes:
        """`xy= %.4f;%.4f`."""
        return b"xy= %.4f;%.4f\r\n" % (x / CODES, y / CODES)

    def greet(self, link: SerialLink) -> None:
        """`start`, then `acknowledge`, which turns answers on.

        A bare line end goes ahead and finishes what a host that died left half said. `start` may
        go unanswered: whether it is answered before `acknowledge` is not known (inferred).
        Raises DeviceError if `acknowledge` is not answered, or either is answered otherwise.
        """
        link.send(b"\r\n")
        link.settle_input()
        link.send(b"start\r\n")
        first = link.line()
        if first not in {None, self.acknowledged}:
            link.refuse(first, self.acknowledged, hint="is it an Optotune in simple mode?")
        link.settle_input()
        link.ask(b"acknowledge\r\n", self.acknowledged)
