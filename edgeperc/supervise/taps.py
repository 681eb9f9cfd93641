"""Packets of the sensors' processes: wired to those that read them, and read here when wanted.

taps = Taps(outlets.take)
taps.open(worker)
taps.close("wide")
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from edgeperc.packet import Packet
from edgeperc.supervise.feed import Inlet
from edgeperc.supervise.link import Link
from edgeperc.supervise.worker import Worker

_POLL_S = 0.2


class Taps:
    """The sensors whose packets are read here, by threads that hand them to `take`."""

    def __init__(self, take: Callable[[Packet], None]) -> None:
        self._take = take
        self._lock = threading.Lock()
        self._links: dict[str, Link] = {}

    def open(self, worker: Worker) -> None:
        """Read a sensor's packets from now on; one that is read already stays so."""
        name = worker.order.name
        with self._lock:
            if name in self._links or not worker.is_up:
                return
            ours, theirs = _sockets()
            worker.send("reader", None, (theirs.fileno(),))
            theirs.close()
            link = self._links[name] = Link(ours)
        read = partial(self._read, name, link)
        threading.Thread(target=read, name=f"packets {name}", daemon=True).start()

    def close(self, name: str) -> None:
        """Read no more of a sensor; one that is not read is no error."""
        with self._lock:
            if link := self._links.pop(name, None):
                link.close()

    def close_all(self) -> None:
        """Read nothing more."""
        for name in list(self._links):
            self.close(name)

    def _read(self, name: str, link: Link) -> None:
        inlet = Inlet(link)
        with suppress(EOFError):
            while True:
                for kind, content in inlet.receive(_POLL_S):
                    if kind == "object":
                        self._take(content)
        with self._lock:
            if self._links.get(name) is link:
                del self._links[name]
        link.close()


def connect(sensor: Worker, pipeline: Worker) -> None:
    """Let a pipeline's process read a sensor's."""
    ends = _sockets()
    with ends[0], ends[1]:
        pipeline.send("source", sensor.order.name, (ends[0].fileno(),))
        sensor.send("reader", None, (ends[1].fileno(),))


def _sockets() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
