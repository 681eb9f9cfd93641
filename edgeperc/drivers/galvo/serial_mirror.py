"""A mirror behind a serial port: clip, send, see the command acknowledged, model the move."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

import msgspec

from edgeperc.drivers.galvo.link import SerialLink
from edgeperc.drivers.galvo.reach import log_clipping
from edgeperc.drivers.galvo.settle import SettleModel, SettleTime
from edgeperc.packet import Gaze, GazeRange

Port = Annotated[str, msgspec.Meta(min_length=1)]
Baud = Annotated[int, msgspec.Meta(ge=9600, le=4_000_000)]
Sign = Literal[1, -1]
NotNegative = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
TimeoutMs = Annotated[float, msgspec.Meta(gt=0, le=10_000)]


class Dialect(Protocol):
    """How one kind of mirror is spoken to, in the device's own axes x and y.

    A code is the integer that a command carries for one axis; it grows with the angle.
    """

    def code(self, angle_rad: float) -> float:
        """The code of an optical angle of one axis, not yet rounded."""

    def angle_rad(self, code: int) -> float:
        """The optical angle that a code stands for."""

    def point(self, x: int, y: int) -> bytes:
        """The command that points at two codes."""

    def greet(self, link: SerialLink) -> None:
        """Make the device ready to be pointed. Raises DeviceError if it is not this kind."""

    @property
    def acknowledged(self) -> bytes:
        """The line that answers a point command; empty for a device that never answers."""

    @property
    def farewell(self) -> bytes:
        """What is sent last, after the mirror was sent to its rest."""


@dataclass(frozen=True, slots=True)
class Axes:
    """How the device's axes lie in the gaze: swapped or not, and which way each one turns."""

    pan_sign: Sign
    tilt_sign: Sign
    swap: bool

    def device_rad(self, gaze: Gaze) -> tuple[float, float]:
        """Angles of the device's x and y, rad."""
        pan_rad, tilt_rad = gaze.pan_rad * self.pan_sign, gaze.tilt_rad * self.tilt_sign
        return (tilt_rad, pan_rad) if self.swap else (pan_rad, tilt_rad)

    def gaze(self, x_rad: float, y_rad: float) -> Gaze:
        """The gaze of the device's x and y, rad."""
        pan_rad, tilt_rad = (y_rad, x_rad) if self.swap else (x_rad, y_rad)
        return Gaze(pan_rad=pan_rad * self.pan_sign, tilt_rad=tilt_rad * self.tilt_sign)


class SerialMirror:
    """Points a mirror by a dialect over a link; the gaze is modelled from the settle time.

    One command is under way at a time: `aim` writes and returns, and its answer is read by the next
    `aim` or `measured`, which is when a refusal or silence raises DeviceError. At 120 Hz the answer
    has come long before, so nobody waits for the wire (1.1 ms) or for a device; and no gaze is ever
    reported for a command that was not acknowledged. A device without answers is trusted.

    A move begins when its command has passed the wire. What is sent lies within `range` after
    rounding, too, and at the start and the end the mirror is sent to (0, 0), or as near as `range`
    has it. After a DeviceError the object is dead: construct a new one, which greets the device
    anew. now_ns: the clock of `measured` and `settled_ns`.
    """

    source = "modelled from settle time; no read-back"

    def __init__(
        self,
        dialect: Dialect,
        link: SerialLink,
        *,
        gaze_range: GazeRange,
        axes: Axes,
        settle: SettleTime,
        now_ns: Callable[[], int],
    ) -> None:
        self.range = gaze_range
        self.clipped = 0
        self._dialect = dialect
        self._link = link
        self._axes = axes
        self._now_ns = now_ns
        self._waits_for_answer = False
        lowest = axes.device_rad(gaze_range.lowest)
        highest = axes.device_rad(gaze_range.highest)
        self._codes = [_codes_within(dialect, pair) for pair in zip(lowest, highest, strict=True)]
        try:
            dialect.greet(link)
            rest, command = self._command(gaze_range.clip(Gaze(pan_rad=0.0, tilt_rad=0.0)))
            self._rest = command
            self._send(command)
            self._hear()
        except BaseException:
            link.close()
            raise
        longest_ns = settle.of(gaze_range.lowest, gaze_range.highest)
        ready_ns = now_ns() + link.wire_ns(command) + longest_ns
        self._model = SettleModel(settle, at=rest, unsure_until_ns=ready_ns)

    def aim(self, gaze: Gaze) -> Gaze:
        """Start to move; returns the gaze that was asked of the device, clipped and rounded.

        Raises ValueError if `gaze` is not finite, and then nothing is sent; DeviceError if the
        mirror is lost, refused the last command or has not answered it in time.
        """
        wanted = self.range.clip(gaze)
        asked, command = self._command(wanted)
        self._hear()
        self._send(command)
        if wanted != gaze:
            self.clipped += 1
            log_clipping(gaze, self.range, self.clipped)
        self._model.move(asked, self._now_ns() + self._link.wire_ns(command))
        return asked

    def measured(self, time_ns: int | None = None) -> Gaze:
        """Where the settle model has it, now or at a time since the last `aim` but one.

        Waits for the answer to the last command, if that is still under way. Raises DeviceError if
        it was refused, or not answered in time.
        """
        self._hear()
        return self._model.position(self._now_ns() if time_ns is None else time_ns)

    def settled_ns(self) -> int:
        """When the last move is over, by the model."""
        return self._model.settled_ns()

    def close(self) -> None:
        """Send the mirror to its rest, without waiting for it, and let the port go."""
        self._link.close(self._rest + self._dialect.farewell)

    def _command(self, gaze: Gaze) -> tuple[Gaze, bytes]:
        """The gaze as the device can have it, within the range, and the command for it."""
        x, y = (
            min(max(math.floor(self._dialect.code(angle_rad) + 0.5), lowest), highest)
            for angle_rad, (lowest, highest) in zip(
                self._axes.device_rad(gaze), self._codes, strict=True
            )
        )
        asked = self._axes.gaze(self._dialect.angle_rad(x), self._dialect.angle_rad(y))
        return self.range.clip(asked), self._dialect.point(x, y)

    def _send(self, command: bytes) -> None:
        self._link.send(command)
        self._waits_for_answer = bool(self._dialect.acknowledged)

    def _hear(self) -> None:
        """Read the answer that is due, or see that the device is still there."""
        if self._waits_for_answer:
            self._link.expect(self._dialect.acknowledged)
            self._waits_for_answer = False
        else:
            self._link.check()


def _codes_within(dialect: Dialect, limits_rad: tuple[float, float]) -> tuple[int, int]:
    """The lowest and highest code whose angle lies within two limits, in either order."""
    lowest, highest = sorted(dialect.code(limit_rad) for limit_rad in limits_rad)
    return math.ceil(lowest - 1e-6), math.floor(highest + 1e-6)
