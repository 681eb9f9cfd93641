"""Objects from one process to several others: through a ring, with a word to each reader.

    feed = Feed()                           # the writer
    feed.add(Link(their_socket))
    feed.put(frame)
    feed.say("lost")

    inlet = Inlet(Link(our_socket))         # a reader
    for kind, content in inlet.receive(timeout_s=0.1):
        ...                                 # ("object", frame), ("lost", None)

The writer waits for nobody. What a reader was too slow for, it counts in `lost`.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from edgeperc.supervise.link import Link
from edgeperc.supervise.ring import Block, Ring, RingView


@dataclass(frozen=True, slots=True)
class Told:
    """One message to a reader. missed: objects so far that it was not told of, its socket full."""

    kind: str
    content: Any = None
    missed: int = 0


@dataclass
class _Reader:
    link: Link
    ring: int = -1
    missed: int = 0


class Feed:
    """The writer's end. `put` and `say` from one thread; readers come and go from any."""

    def __init__(self) -> None:
        self._ring: Ring | None = None
        self._lock = threading.Lock()
        self._readers: list[_Reader] = []

    def add(self, link: Link) -> None:
        """One more reader, of what comes from now on."""
        with self._lock:
            self._readers = [*self._readers, _Reader(link)]

    def put(self, thing: Any) -> None:
        """Hand out an object; at no cost while nobody reads."""
        readers = self._readers
        if not readers:
            return
        if self._ring is None:
            self._ring = Ring()
        block = self._ring.write(thing)
        for reader in readers:
            try:
                self._tell(reader, block, self._ring)
            except BrokenPipeError:
                self._drop(reader)

    def say(self, kind: str, content: Any = None) -> None:
        """Tell all readers something that must arrive."""
        for reader in self._readers:
            try:
                reader.link.send(Told(kind, content, reader.missed))
            except BrokenPipeError:
                self._drop(reader)

    def flush(self) -> None:
        """Send what waits for room."""
        for reader in self._readers:
            try:
                reader.link.flush()
            except BrokenPipeError:
                self._drop(reader)

    def close(self) -> None:
        """Hang up on all; they read what they were told of."""
        for reader in self._readers:
            self._drop(reader)
        if self._ring:
            self._ring.close()

    def _tell(self, reader: _Reader, block: Block, ring: Ring) -> None:
        if reader.ring != ring.number:
            # A ring that there was no room to hand over is handed over with the next object.
            if reader.link.waiting:
                reader.missed += 1
                return
            reader.link.send(Told("ring", ring.capacity), [ring.fd])
            reader.ring = ring.number
        told = Told("object", block, reader.missed)
        reader.missed += not reader.link.send(told, must_arrive=False)

    def _drop(self, reader: _Reader) -> None:
        with self._lock:
            self._readers = [each for each in self._readers if each is not reader]
        reader.link.close()


class Inlet:
    """A reader's end. lost: objects that were put and did not come, as far as it was told."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._view: RingView | None = None
        self._missed = 0
        self._overtaken = 0

    @property
    def lost(self) -> int:
        """Objects that went by: overwritten before they were read, or not even announced."""
        return self._missed + self._overtaken

    def receive(self, timeout_s: float = 0.0) -> list[tuple[str, Any]]:
        """What has come: ("object", it), or what else the writer said. Raises EOFError."""
        came: list[tuple[str, Any]] = []
        for told, fds in self.link.receive(timeout_s):
            self.accept(told, fds, came)
        return came

    def accept(self, told: Told, fds: list[int], came: list[tuple[str, Any]]) -> None:
        """Add to `came` what a message brings."""
        self._missed = max(self._missed, told.missed)
        if told.kind == "ring":
            self._view = RingView(fds[0], told.content)
        elif told.kind == "object":
            assert self._view
            thing = self._view.read(told.content)
            if thing is None:
                self._overtaken += 1
            else:
                came.append(("object", thing))
        else:
            came.append((told.kind, told.content))
        for fd in fds:
            with suppress(OSError):
                os.close(fd)
