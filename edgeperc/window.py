"""Cut a stream of event packets into windows, by time or by count."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from edgeperc.packet import Events, Stamp, join


class Windows(Protocol):
    """Collects packets and yields each window as soon as it is known to be full."""

    def push(self, events: Events) -> Iterator[Events]:
        """Take a packet; yield the windows that it completes, in order."""

    def restart(self) -> None:
        """Forget what is held: the sensor was reopened and its clock may start anew."""


class TimeWindows:
    """Windows [first event + k·window, +window): half-open, without overlap, numbered by k.

    A window is full once the stream has reached its end, by an event or by a packet's stamp. Empty
    windows are yielded, a partial last one is not. The packets must come in order of time.
    """

    def __init__(self, window_us: int) -> None:
        self.window_us = window_us
        self._parts: list[Events] = []
        self._start_us: int | None = None
        self._seq = 0

    def push(self, events: Events) -> Iterator[Events]:
        """Take a packet; yield the windows that it completes, in order."""
        if self._start_us is None:
            if len(events) == 0:
                return
            self._start_us = int(events.t[0])
        reached_us = events.stamp.end_ns // 1000
        if len(events):
            reached_us = max(reached_us, int(events.t[-1]))
        while reached_us >= (end_us := self._start_us + self.window_us):
            cut = int(np.searchsorted(events.t, end_us, side="left"))
            self._parts.append(events.slice(0, cut, events.stamp))
            events = events.slice(cut, len(events), events.stamp)
            yield self._emit(end_us)
        self._parts.append(events)

    def restart(self) -> None:
        """Forget what is held: the sensor was reopened and its clock may start anew."""
        self._parts = []
        self._start_us = None

    def _emit(self, end_us: int) -> Events:
        assert self._start_us is not None
        stamp = Stamp(
            source=self._parts[0].stamp.source,
            seq=self._seq,
            start_ns=self._start_us * 1000,
            end_ns=end_us * 1000,
        )
        window = join(self._parts, stamp)
        self._parts = []
        self._start_us = end_us
        self._seq += 1
        return window


class CountWindows:
    """Windows of a fixed number of events; the stamp spans first to last event.

    A partial last window is not yielded.
    """

    def __init__(self, window_events: int) -> None:
        self.window_events = window_events
        self._parts: list[Events] = []
        self._held = 0
        self._seq = 0

    def push(self, events: Events) -> Iterator[Events]:
        """Take a packet; yield the windows that it completes, in order."""
        while self._held + len(events) >= self.window_events:
            cut = self.window_events - self._held
            self._parts.append(events.slice(0, cut, events.stamp))
            events = events.slice(cut, len(events), events.stamp)
            yield self._emit()
        if len(events):
            self._parts.append(events)
            self._held += len(events)

    def restart(self) -> None:
        """Forget what is held: the sensor was reopened and its clock may start anew."""
        self._parts = []
        self._held = 0

    def _emit(self) -> Events:
        first = next(part for part in self._parts if len(part))
        stamp = Stamp(
            source=first.stamp.source,
            seq=self._seq,
            start_ns=int(first.t[0]) * 1000,
            end_ns=int(self._parts[-1].t[-1]) * 1000,
        )
        window = join(self._parts, stamp)
        self._parts = []
        self._held = 0
        self._seq += 1
        return window
