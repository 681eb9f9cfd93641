"""Mirrorcle MTI controllers of MEMS mirrors, by their text protocol."""

from __future__ import annotations

import math
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

BAUD = 460_800
CODES = 10_000  # four decimals
BANNER = b"MTI-Device"


def mirrorcle(
    *,
    port: Port,
    full_scale_deg: Annotated[float, msgspec.Meta(gt=0, le=45)],
    bias_v: Annotated[float, msgspec.Meta(ge=0, le=100)],
    difference_v: Annotated[float, msgspec.Meta(ge=0, le=200)],
    filter_hz: Annotated[float, msgspec.Meta(ge=50, le=15_000)],
    baud: Baud = BAUD,
    pan_sign: Sign = 1,
    tilt_sign: Sign = 1,
    swap_axes: bool = False,
    pan_range_deg: RangeDeg | None = None,
    tilt_range_deg: RangeDeg | None = None,
    base_ms: NotNegative = 4.0,
    ms_per_deg: NotNegative = 0.06,
    timeout_ms: TimeoutMs = 100.0,
    now_ns: Callable[[], int] = time.monotonic_ns,
) -> SerialMirror:
    """Open a Mirrorcle MTI controller; not run on hardware.

    full_scale_deg: optical angle at x = 1, twice the mechanical one. bias_v, difference_v,
    filter_hz: from the data sheet of the very mirror, for wrong ones break it; therefore without a
    default. base_ms, ms_per_deg: see `SettleTime`; the defaults bound, within 0.01°, a second-order
    mirror of 350 Hz and damping 0.75. The ranges default to ±full_scale_deg. Raises ConfigError for
    a range past it, DeviceError if the port cannot be had or the device does not answer as an MTI.
    """
    whole = (-full_scale_deg, full_scale_deg)
    reach = gaze_range(pan_range_deg or whole, tilt_range_deg or whole, reach_deg=full_scale_deg)
    settings = (
        b"MTI+VB %g" % bias_v,
        b"MTI+BW %g" % filter_hz,
        b"MTI+VD %g" % difference_v,
        b"MTI+EN",
    )
    return SerialMirror(
        Mti(settings, full_scale_deg),
        SerialLink(port, baud=baud, timeout_ms=timeout_ms),
        gaze_range=reach,
        axes=Axes(pan_sign, tilt_sign, swap_axes),
        settle=SettleTime(base_ms, ms_per_deg),
        now_ns=now_ns,
    )


class Mti:
    """Lines that end in LF, answered by MTI-OK or MTI-ERR and why, with CRLF.

    A command carries x and y in -1 to 1, in proportion to the angle, and a digital output, which
    stays 0. settings: the commands between the greeting and the first position, whose order is
    inferred. Source: what published programs send it.
    """

    acknowledged = b"MTI-OK"
    farewell = b"MTI+DI\nMTI+EX\n"

    def __init__(self, settings: tuple[bytes, ...], full_scale_deg: float) -> None:
        self._settings = settings
        self._full_scale_rad = math.radians(full_scale_deg)

    def code(self, angle_rad: float) -> float:
        """Ten-thousandths of the device's unit."""
        return angle_rad / self._full_scale_rad * CODES

    def angle_rad(self, code: int) -> float:
        """The optical angle of a code."""
        return code / CODES * self._full_scale_rad

    def point(self, x: int, y: int) -> bytes:
        """`MTI+GT x y m`."""
        return b"MTI+GT %.4f %.4f 0\n" % (x / CODES, y / CODES)

    def greet(self, link: SerialLink) -> None:
        """`$MTI$`, answered by the device's name, then the settings and the high voltage on.

        A host that died left the device in command mode, and perhaps a command half said: a bare
        line end finishes that one, and MTI+EX leaves the mode; their answers are not looked at.
        Raises DeviceError if anything is answered otherwise.
        """
        link.send(b"\nMTI+EX\n")
        link.settle_input()
        link.send(b"$MTI$\n")
        answer = link.line()
        if answer is None or not answer.startswith(BANNER):
            link.refuse(answer, BANNER + b" ...", hint="is it a Mirrorcle MTI?")
        for setting in self._settings:
            link.ask(setting + b"\n", self.acknowledged)
