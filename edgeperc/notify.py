"""What systemd wants to know of a service: ready, alive, stopping. Needs no library.

    notify = Notify()               # by NOTIFY_SOCKET and WATCHDOG_USEC, which systemd sets
    notify.ready("serving events")
    notify.alive()                  # often, while all goes on: feeds the watchdog
    notify.stopping()

Source: sd_notify(3), the datagram protocol; own code. Where nobody asked to be told, nothing is
sent.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress


class Notify:
    """Tells the service manager. environ: where its wishes stand.

    watchdog_s: within which `alive` has to come; 0 is never.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._status = ""
        self._next_s = 0.0
        self.watchdog_s = 0.0
        if environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            with suppress(ValueError):
                self.watchdog_s = int(environ.get("WATCHDOG_USEC", "0")) * 1e-6

    def ready(self, status: str) -> None:
        """It serves; also after a reload."""
        self._status = status
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def status(self, text: str) -> None:
        """One line for people; said again only when it has changed."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={_line(text)}")

    def alive(self) -> None:
        """Work goes on. May be called as often as one likes: told three times within watchdog_s."""
        if self.watchdog_s and time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + self.watchdog_s / 3
            self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """Its files are read anew; `ready` follows."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """It is about to end."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):  # an abstract one
            address = "\0" + address[1:]
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.setblocking(False)
            to.sendto(text.encode(), address)


def _line(text: str) -> str:
    return " ".join(text.split())
