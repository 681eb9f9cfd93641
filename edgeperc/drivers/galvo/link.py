"""A serial port to a mirror: what goes wrong on it is a DeviceError, and then it is closed."""

from __future__ import annotations

import os
import select
import stat
import termios
import threading
import time
from contextlib import suppress
from typing import NoReturn

import serial
from serial.tools import list_ports

from edgeperc.errors import DeviceError

SILENCE_S = 0.02
LONGEST_LINE = 200  # bytes; mirrors answer in a few words
NOISY_ROUNDS = 10
BROKEN = (OSError, ValueError, termios.error)
"""What a port raises that is lost, or was none; pyserial's own errors are OSErrors."""


class SerialLink:
    """One port, 8N1 and raw, held by one process; lines or frames out, lines in.

    timeout_ms: how long a reply may take, and how long the port may refuse to take bytes. pause_ms:
    between two sends, waited for where a caller is faster. Both in real time, whatever clock the
    run has. Used from one thread; `close` may come from another.
    Raises DeviceError where the port is missing, forbidden, in use or no serial port; and from
    every method once the link was lost or closed.
    """

    def __init__(self, port: str, *, baud: int, timeout_ms: float, pause_ms: float = 0.0) -> None:
        self._port = port
        self._baud = baud
        self._timeout_s = timeout_ms * 1e-3
        self._pause_s = pause_ms * 1e-3
        self._lost: DeviceError | None = None
        self._lock = threading.RLock()
        self._received = bytearray()
        self._sent = b""
        self._sent_s = 0.0
        self._serial = _open(port, baud)

    def wire_ns(self, data: bytes) -> int:
        """How long `data` is on the wire: ten bits a byte."""
        return len(data) * 10 * 10**9 // self._baud

    def send(self, data: bytes) -> None:
        """Write `data`; what waited to be read came unasked or too late, and is thrown away."""
        with self._lock:
            self._raise_if_lost()
            pause_s = self._sent_s + self._pause_s - time.monotonic()
            if pause_s > 0:
                time.sleep(pause_s)
            try:
                self._received.clear()
                self._serial.reset_input_buffer()
                self._write(data)
            except BROKEN as error:
                self._fail_lost(error)
            self._sent, self._sent_s = data, time.monotonic()

    def check(self) -> None:
        """Raise DeviceError if the port is lost; a device that is silent passes."""
        with self._lock:
            self._raise_if_lost()
            poll = select.poll()
            poll.register(self._serial.fileno(), 0)
            if poll.poll(0):  # hung up; nothing else was asked for
                self._fail_lost(OSError())

    def line(self) -> bytes | None:
        """The next line that is not empty, without its end; None if none comes in time.

        It is due `timeout_ms` after the last send.
        """
        with self._lock:
            self._raise_if_lost()
            heard = 0
            while True:
                while b"\n" in self._received:
                    line, _, rest = bytes(self._received).partition(b"\n")
                    self._received[:] = rest
                    heard += len(line) + 1
                    if found := line.strip(b"\r"):
                        return found
                if heard + len(self._received) > LONGEST_LINE:
                    self._fail(f"sends garbage: {shown(self._received)}")
                left_s = self._sent_s + self._timeout_s - time.monotonic()
                if not self._receive(max(left_s, 0.0)):
                    return None

    def settle_input(self) -> None:
        """Wait until the port has been silent for `SILENCE_S`, and forget what came until then.

        Raises DeviceError if it goes on and on: some other device.
        """
        with self._lock:
            self._raise_if_lost()
            for _ in range(NOISY_ROUNDS):
                self._received.clear()
                if not self._receive(SILENCE_S):
                    return
            self._fail(
                f"keeps sending unasked: {shown(self._received)}",
                hint="is it another device's port?",
            )

    def ask(self, command: bytes, expected: bytes) -> None:
        """Send a command whose answer must be `expected`. Raises DeviceError if it is not."""
        self.send(command)
        self.expect(expected)

    def expect(self, expected: bytes) -> None:
        """Read the answer to what was sent last. Raises DeviceError if it is not `expected`."""
        answer = self.line()
        if answer != expected:
            self.refuse(answer, expected)

    def refuse(self, answer: bytes | None, expected: bytes, *, hint: str = "") -> NoReturn:
        """Give up over an answer, or none, to what was sent last. Raises DeviceError telling so."""
        with self._lock:
            if answer is None:
                self._fail_silent()
            self._fail(
                f"answered {shown(answer)} to {shown(self._sent)}, expected {shown(expected)}",
                hint=hint or "does the device allow the range of the rig file?",
            )

    def close(self, last_words: bytes = b"") -> None:
        """Send `last_words` if the device still listens, and let the port go."""
        with self._lock:
            if self._lost:
                return
            self._lost = DeviceError(f"{self._port}: closed")
            with suppress(*BROKEN, DeviceError):
                self._write(last_words)
            self._serial.close()

    def _write(self, data: bytes) -> None:
        """Write all of `data`; the device may pause, but not for the timeout.

        pyserial's own timeout also strikes when this process is the one that was kept waiting.
        """
        while data:
            _, ready, _ = select.select([], [self._serial.fileno()], [], self._timeout_s)
            if not ready:
                self._fail(
                    f"takes no more bytes for {self._timeout_s * 1e3:g} ms",
                    hint="does the device hang?",
                )
            data = data[self._serial.write(data) :]

    def _receive(self, wait_s: float) -> bool:
        """Add what comes within `wait_s` to what was received; False if nothing did."""
        try:
            ready, _, _ = select.select([self._serial.fileno()], [], [], wait_s)
            if ready:
                self._received += self._serial.read(4096)
        except BROKEN as error:
            self._fail_lost(error)
        return bool(ready)

    def _fail_silent(self) -> NoReturn:
        came = f", only {shown(self._received)}" if self._received else ""
        self._fail(
            f"no answer to {shown(self._sent)} within {self._timeout_s * 1e3:g} ms{came}",
            hint=f"is it this port, powered, and at {self._baud} baud?",
        )

    def _fail_lost(self, error: Exception) -> NoReturn:
        number = error.errno if isinstance(error, OSError) else None
        reason = os.strerror(number) if number else "the port hung up"
        self._fail(f"lost: {reason}", hint="was it unplugged?", cause=error)

    def _fail(self, what: str, *, hint: str = "", cause: Exception | None = None) -> NoReturn:
        self._lost = DeviceError(f"{self._port}: {what}", hint=hint)
        with suppress(*BROKEN):
            self._serial.reset_output_buffer()  # closing must not wait for a device that hangs
        with suppress(*BROKEN):
            self._serial.close()
        raise self._lost from cause

    def _raise_if_lost(self) -> None:
        if self._lost:
            raise DeviceError(str(self._lost), hint=self._lost.hint)


def shown(data: bytes | bytearray) -> str:
    """Bytes as a person reads them: 'xy= 0.1;0.2', or \\x.. for what is no text."""
    kept = bytes(data[:60]).strip(b"\r\n")
    return "'" + "".join(chr(b) if 32 <= b < 127 else f"\\x{b:02x}" for b in kept) + "'"


def _open(port: str, baud: int) -> serial.Serial:
    _check_path(port)
    try:
        return serial.Serial(port, baud, timeout=0, write_timeout=0, exclusive=True)
    except BROKEN as error:
        raise DeviceError(f"{port}: {_reason(error)}", hint=_hint(error)) from error


def _check_path(port: str) -> None:
    try:
        mode = os.stat(port).st_mode
    except (OSError, ValueError) as error:
        raise DeviceError(f"{port}: no such port", hint=_ports()) from error
    if not stat.S_ISCHR(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a file"
        raise DeviceError(f"{port}: {kind}, no serial port", hint=_ports())


def _reason(error: Exception) -> str:
    text = str(error)
    if isinstance(error, ValueError):
        return f"does not take this baud rate: {text}"
    if "exclusively lock" in text:
        return "in use by another program"
    if "configure port" in text:
        return "no serial port"
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else text


def _hint(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in {1, 13}:  # EPERM, EACCES
        return "let yourself at it: sudo usermod -aG dialout $USER, and log in again"
    return _ports()


def _ports() -> str:
    found = [f"{port.device} ({port.description})" for port in list_ports.comports()]
    return f"serial ports here: {', '.join(found)}" if found else "there is no serial port here"
