"""A sensor of another process, as a Sensor: what its ring brings."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

from edgeperc.errors import DeviceError
from edgeperc.packet import Packet
from edgeperc.supervise.feed import Inlet
from edgeperc.supervise.link import Link
from edgeperc.validate import Validator

_POLL_S = 0.1


class Source:
    """Where a sensor's packets come from now. It outlasts the sensor's process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._links: queue.SimpleQueue[Link] = queue.SimpleQueue()
        self._inlet: Inlet | None = None
        self._lost_before = 0

    def connect(self, link: Link) -> None:
        """Read from here on, instead of where it was read from before; from any thread."""
        self._links.put(link)

    @property
    def lost(self) -> int:
        """Packets that were too old when they were wanted."""
        return self._lost_before + (self._inlet.lost if self._inlet else 0)

    def current(self) -> Inlet | None:
        """The newest connection; None if there is none yet, after a moment's wait."""
        try:
            while True:
                link = self._links.get(block=self._inlet is None, timeout=_POLL_S)
                self.hang_up()
                self._inlet = Inlet(link)
        except queue.Empty:
            return self._inlet

    def hang_up(self) -> None:
        """Close the connection, if there is one."""
        if self._inlet:
            self._lost_before += self._inlet.lost
            self._inlet.link.close()
            self._inlet = None


class RingSensor:
    """Packets of a source, in copies of their own. Raises DeviceError while the sensor is lost."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._closed = threading.Event()

    def packets(self) -> Iterator[Packet]:
        """Yield what comes until the sensor ends; waits for its process if need be."""
        while not self._closed.is_set():
            inlet = self._source.current()
            if inlet is None:
                continue
            try:
                came = inlet.receive(_POLL_S)
            except EOFError:
                self._source.hang_up()
                raise DeviceError(f"the process of '{self._source.name}' is gone") from None
            for kind, content in came:
                if kind == "object":
                    yield content
                elif kind == "lost":
                    raise DeviceError(content)
                elif kind == "ended":
                    return

    def close(self) -> None:
        """Stop soon."""
        self._closed.set()


class Unchecked(Validator):
    """Lets everything pass: it was checked where it was read."""

    def check(self, packet: Packet) -> Packet:
        """The packet."""
        return packet
