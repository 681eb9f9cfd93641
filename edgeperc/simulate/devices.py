"""What the simulated mirrors understand and answer, apart from when: one class a device.

Each parses on its own, not with the driver's code, so that a mistake shows. What no source tells
is ours: Optotune's NO, and what is answered out of turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Protocol

LONGEST_LINE = 256

Kind = Literal["optotune", "sigma", "mirrorcle"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command leads to. point_rad: optical angles of x and y to go to, if any."""

    reply: bytes = b""
    point_rad: tuple[float, float] | None = None
    handshake: bool = False


class Device(Protocol):
    """A device's side of a protocol. reach_deg: largest optical angle of an axis."""

    baud: int
    natural_hz: float
    refusal: bytes

    def feed(self, data: bytes) -> list[bytes]:
        """Commands that are complete with `data`, which may hold parts of some, and junk."""

    def obey(self, command: bytes) -> Answer:
        """Do what a command says."""

    def reboot(self) -> None:
        """Forget everything."""

    def shown(self, command: bytes) -> str:
        """A command as a person reads it."""


class OptotuneDevice:
    """MR-E-2 in simple mode. Answers `start` and `acknowledge`, other commands only after those."""

    baud = 256_000
    natural_hz = 350.0
    refusal = b"NO\r\n"

    def __init__(self, reach_deg: float = 50.0) -> None:
        self._reach = math.tan(math.radians(reach_deg)) / math.tan(math.radians(50)) + 1e-9
        self._half = b""
        self.started = self.acknowledges = False

    def feed(self, data: bytes) -> list[bytes]:
        """Lines, cut at LF."""
        self._half, lines = _lines(self._half + data)
        return lines

    def obey(self, command: bytes) -> Answer:
        """Start, acknowledge, status, xy."""
        words = command.strip()
        if words in {b"start", b"acknowledge"}:
            self.started |= words == b"start"
            self.acknowledges |= words == b"acknowledge"
            return Answer(b"OK\r\n", handshake=words == b"start")
        answer = None
        if self.started and words == b"status":
            answer = Answer(b"OK\r\n")
        elif self.started and words.startswith(b"xy="):
            answer = self._go(words[3:])
        answer = answer or Answer(self.refusal)
        return answer if self.acknowledges else replace(answer, reply=b"")

    def reboot(self) -> None:
        """Neither started nor acknowledging."""
        self.started = self.acknowledges = False
        self._half = b""

    def shown(self, command: bytes) -> str:
        """The line itself."""
        return _text(command)

    def _go(self, numbers: bytes) -> Answer | None:
        """To `x;y`; None if that is none, or out of reach."""
        try:
            x, y = (float(number) for number in numbers.split(b";"))
        except ValueError:
            return None
        if not (abs(x) <= self._reach and abs(y) <= self._reach):  # nor NaN
            return None
        scale = math.tan(math.radians(50))
        return Answer(b"OK\r\n", point_rad=(math.atan(x * scale), math.atan(y * scale)))


class SigmaDevice:
    """The D/A board: frames of ten bytes after a header, resynchronised on it; no answers."""

    baud = 921_600
    natural_hz = 900.0
    refusal = b""
    header = b"\xff\xaa\x88\x55\x11"

    def __init__(self, reach_deg: float = 20.0) -> None:
        self._rad_per_v = math.radians(reach_deg) / 5
        self._half = b""
        self.settings: dict[int, bytes] = {}

    def feed(self, data: bytes) -> list[bytes]:
        """Frames; what is between them is skipped."""
        self._half += data
        frames = []
        while (start := self._half.find(self.header)) >= 0 and len(self._half) >= start + 10:
            frames.append(self._half[start : start + 10])
            self._half = self._half[start + 10 :]
        if start < 0:
            self._half = self._half[-4:]
        return frames

    def obey(self, command: bytes) -> Answer:
        """Go, or remember a setting by its number."""
        kind, payload = command[5], command[6:]
        if kind == 0:
            x, y = (min(int.from_bytes(payload[i : i + 2], "big"), 16383) for i in (0, 2))
            return Answer(point_rad=(self._angle_rad(x), self._angle_rad(y)))
        self.settings[kind] = payload
        return Answer()

    def reboot(self) -> None:
        """Without settings."""
        self.settings = {}
        self._half = b""

    def shown(self, command: bytes) -> str:
        """As hexadecimal, without the header."""
        return command[5:].hex(" ")

    def _angle_rad(self, code: int) -> float:
        return (code * 10 / 16383 - 5) * self._rad_per_v


class MirrorcleDevice:
    """MTI: silent until `$MTI$`, then a line for a line; points only when enabled."""

    baud = 460_800
    natural_hz = 350.0
    refusal = b"MTI-ERR InvalidCommand\r\n"
    limits: ClassVar = {b"VB": (0, 100), b"VD": (0, 200), b"BW": (50, 15_000)}

    def __init__(self, reach_deg: float = 10.0) -> None:
        self._full_scale_rad = math.radians(reach_deg)
        self._half = b""
        self.in_command_mode = self.enabled = False
        self.settings: dict[bytes, float] = {}

    def feed(self, data: bytes) -> list[bytes]:
        """Lines, cut at LF."""
        self._half, lines = _lines(self._half + data)
        return lines

    def obey(self, command: bytes) -> Answer:
        """The greeting, or a command after `MTI+`."""
        words = command.strip().split()
        if not self.in_command_mode:
            if words != [b"$MTI$"]:
                return Answer()
            self.in_command_mode = True
            banner = b"MTI-Device MTI-MZ-2.3.113:USB Ready in Command Mode\r\n"
            return Answer(banner, handshake=True)
        if not words or not words[0].startswith(b"MTI+"):
            return Answer(self.refusal)
        try:
            numbers = [float(word) for word in words[1:]]
        except ValueError:
            return Answer(self.refusal)
        return self._command(words[0][4:], numbers)

    def reboot(self) -> None:
        """Out of command mode, high voltage off."""
        self.in_command_mode = self.enabled = False
        self.settings = {}
        self._half = b""

    def shown(self, command: bytes) -> str:
        """The line itself."""
        return _text(command)

    def _command(self, name: bytes, numbers: list[float]) -> Answer:
        ok = b"MTI-OK\r\n"
        if name == b"EX" and not numbers:
            self.in_command_mode = False
            return Answer(b"MTI-Device Exit Command Mode\r\n")
        if name in {b"EN", b"DI", b"EC"} and not numbers:
            self.enabled = {b"EN": True, b"DI": False}.get(name, self.enabled)
            return Answer(ok)
        if name in self.limits and len(numbers) == 1:
            lowest, highest = self.limits[name]
            if lowest <= numbers[0] <= highest:
                self.settings[name] = numbers[0]
                return Answer(ok)
        if name == b"GT" and len(numbers) == 3 and self.enabled:
            x, y, _ = numbers
            if abs(x) <= 1 and abs(y) <= 1:
                return Answer(ok, point_rad=(x * self._full_scale_rad, y * self._full_scale_rad))
        return Answer(self.refusal)


DEVICES: dict[Kind, Callable[..., Device]] = {
    "optotune": OptotuneDevice,
    "sigma": SigmaDevice,
    "mirrorcle": MirrorcleDevice,
}


def _lines(data: bytes) -> tuple[bytes, list[bytes]]:
    """What is left of data, and the lines in it with their ends. A line without end is junk."""
    *lines, half = data.split(b"\n")
    return (half if len(half) <= LONGEST_LINE else b""), [line + b"\n" for line in lines]


def _text(command: bytes) -> str:
    return command.strip().decode("ascii", "backslashreplace")
