"""From the sensors' threads to a pipeline's: packets are cut or paired, and wait in an inbox."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Protocol

from edgeperc.meter import Meter
from edgeperc.packet import Events, Frame, ModelInput, Packet
from edgeperc.pairing import Pairing
from edgeperc.pairs import KINDS, Kind, PairCounters, Rules
from edgeperc.window import Windows

_LOSSLESS_DEPTH = 4


class Inbox:
    """Carries packets, with their time of arrival, from a sensor's thread to a pipeline's."""

    def __init__(self, meter: Meter, *, lossless: bool) -> None:
        self._meter = meter
        self._lossless = lossless
        self._waiting: deque[tuple[ModelInput, int]] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._aborted = False

    def put(self, packet: ModelInput) -> None:
        """Hand a packet over; waits for room if lossless, else drops what nobody has taken yet."""
        with self._changed:
            if self._lossless:
                self._changed.wait_for(
                    lambda: len(self._waiting) < _LOSSLESS_DEPTH or self._aborted
                )
            elif self._waiting:
                self._waiting.clear()
                self._meter.dropped()
            if not self._aborted:
                self._waiting.append((packet, time.perf_counter_ns()))
                self._changed.notify_all()

    def end(self) -> None:
        """No more packets will come; those that wait are still delivered."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def abort(self) -> None:
        """Stop now; those that wait are not delivered."""
        with self._changed:
            self._aborted = self._ended = True
            self._waiting.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[tuple[ModelInput, int]]:
        """Packets and their arrival (perf_counter ns), until the end."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if not self._waiting:
                    return
                packet, arrived_ns = self._waiting.popleft()
                self._changed.notify_all()
            yield packet, arrived_ns


class Intake(Protocol):
    """Takes what the sensors named `sources` say; called from the threads of each."""

    inbox: Inbox
    sources: frozenset[str]

    def put(self, source: str, packet: Packet) -> None:
        """Take a packet. Raises DataError where two sensors do not go together."""

    def restart(self, source: str) -> None:
        """A sensor was opened, perhaps anew and with its clock set anew."""

    def lost(self, source: str) -> None:
        """A sensor was lost, and may come back."""

    def end(self, source: str) -> None:
        """A sensor will say nothing more."""

    def abort(self) -> None:
        """Stop now; what waits is not delivered."""

    def silent(self) -> frozenset[str]:
        """Sensors that are waited for in vain."""

    def note(self) -> str:
        """What a person should know of it."""

    def counters(self) -> PairCounters | None:
        """What was paired, if anything is."""


class SingleIntake:
    """The packets of one sensor: its frames, or its events cut into windows."""

    def __init__(self, inbox: Inbox, windows: Windows | None, *, source: str) -> None:
        self.inbox, self.sources = inbox, frozenset([source])
        self._windows = windows

    def put(self, source: str, packet: Packet) -> None:
        """See Intake; of the other kind, a packet is passed over."""
        if isinstance(packet, Events) and self._windows:
            for window in self._windows.push(packet):
                self.inbox.put(window)
        elif isinstance(packet, Frame) and self._windows is None:
            self.inbox.put(packet)

    def restart(self, source: str) -> None:
        """See Intake."""
        if self._windows:
            self._windows.restart()

    def lost(self, source: str) -> None:
        """See Intake."""

    def end(self, source: str) -> None:
        """See Intake."""
        self.inbox.end()

    def abort(self) -> None:
        """See Intake."""
        self.inbox.abort()

    def silent(self) -> frozenset[str]:
        """See Intake: nobody else would be there to tell."""
        return frozenset()

    def note(self) -> str:
        """See Intake."""
        return ""

    def counters(self) -> None:
        """See Intake."""


class PairIntake:
    """Frames and events in pairs, of one sensor that sends both or of two.

    sources: of the frames and of the events. lossless: of two sensors, the one that is ahead waits.
    """

    def __init__(
        self, inbox: Inbox, rules: Rules, *, sources: tuple[str, str], lossless: bool
    ) -> None:
        self.inbox, self.sources = inbox, frozenset(sources)
        self._pairing = Pairing(rules, sources=sources)
        self._of_kind = dict(zip(KINDS, sources, strict=True))
        self._waits = lossless and sources[0] != sources[1]
        self._left = set(self.sources)
        self._changed = threading.Condition()
        self._aborted = False

    def put(self, source: str, packet: Packet) -> None:
        """See Intake; waits for the other sensor if need be."""
        kind: Kind = "frames" if isinstance(packet, Frame) else "events"
        if self._of_kind[kind] != source:
            return
        with self._changed:
            if self._aborted:
                return
            self._pairing.announce(packet)
            self._changed.notify_all()
            if self._waits:
                self._changed.wait_for(lambda: self._aborted or self._pairing.goes_before(packet))
            for pair in self._pairing.push(packet):
                self.inbox.put(pair)

    def restart(self, source: str) -> None:
        """See Intake."""
        with self._changed:
            for kind in self._kinds(source):
                self._pairing.restart(kind)

    def lost(self, source: str) -> None:
        """See Intake: what waits for it is paired without it."""
        with self._changed:
            for kind in self._kinds(source):
                for pair in self._pairing.end(kind):
                    self.inbox.put(pair)
            self._changed.notify_all()

    def end(self, source: str) -> None:
        """See Intake: the other sensor goes on."""
        self.lost(source)
        self._left.discard(source)
        if not self._left:
            self.inbox.end()

    def abort(self) -> None:
        """See Intake."""
        self.inbox.abort()  # first, as who waits there holds the lock
        with self._changed:
            self._aborted = True
            self._changed.notify_all()

    def silent(self) -> frozenset[str]:
        """See Intake."""
        return frozenset(self._of_kind[kind] for kind in self._missing())

    def note(self) -> str:
        """See Intake."""
        return ", ".join(
            f"{kind} of '{self._of_kind[kind]}' are missing or empty" for kind in self._missing()
        )

    def counters(self) -> PairCounters:
        """See Intake."""
        return self._pairing.counters

    def _kinds(self, source: str) -> list[Kind]:
        return [kind for kind in KINDS if self._of_kind[kind] == source]

    def _missing(self) -> tuple[Kind, ...]:
        """What is waited for in vain, while the other kind still comes."""
        silent = self._pairing.silent() if self._left else ()
        return silent if len(silent) < len(KINDS) else ()
