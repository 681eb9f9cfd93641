"""Frames with the events around them, paired as they come.

    pairing = Pairing(rules)
    for pair in pairing.push(packet): ...

That a stream says nothing up to some time is certain once the other has come `skew_us` further. So
what is paired does not depend on which sensor was faster by less, and is what `edgeperc.pairs`
makes of whole recordings.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np

from edgeperc.errors import DataError
from edgeperc.packet import Events, Frame, Packet, Pair
from edgeperc.pairs import (
    KINDS,
    Kind,
    PairCounters,
    Rules,
    is_constant,
    middle_us,
    paired,
    reach_us,
    sensor_px,
)


class Pairing:
    """Pairs two streams as they come. Owned by one thread at a time, but for `silent`.

    sources: names of the sensors of frames and of events, which may be one.
    """

    def __init__(self, rules: Rules, *, sources: tuple[str, str] = ("", "")) -> None:
        self.rules, self.counters = rules, PairCounters()
        self._sources = sources
        self._sizes: dict[Kind, tuple[int, int]] = {}
        self._announced_us: dict[Kind, int] = {}
        self._reached_us: dict[Kind, int] = {}
        self._telling_us: dict[Kind, int] = {}  # the last event, the last frame with contrast
        self._gone: set[Kind] = set()
        self._begun_us: int | None = None
        self._frames: deque[Frame] = deque()
        self._parts: deque[Events] = deque()
        self._last_event_us: int | None = None
        self._paired_us: int | None = None
        self._alone_us: int | None = None  # the middle of the next window without a frame
        self._seq = 0

    def push(self, packet: Packet) -> Iterator[Pair]:
        """Take a packet; yield the pairs that it completes, in order.

        Raises DataError where frames and events are not of one size or not on one clock.
        """
        self.announce(packet)
        if isinstance(packet, Frame):
            self._take_frame(packet)
        else:
            self._take_events(packet)
        return self._complete()

    def announce(self, packet: Packet) -> None:
        """Say what will be pushed, before it waits for its turn. Raises what `push` raises."""
        kind: Kind = "frames" if isinstance(packet, Frame) else "events"
        self._check(packet)
        at_us = reach_us(packet)
        self._announced_us[kind] = at_us
        if self._begun_us is None:
            self._begun_us = at_us

    def goes_before(self, packet: Packet) -> bool:
        """Whether the other stream is, or will soon be, as far as the packet, or will not come."""
        other: Kind = "events" if isinstance(packet, Frame) else "frames"
        due_us = reach_us(packet) - self.rules.skew_us // 2
        return other in self._gone or self._announced_us.get(other, due_us - 1) >= due_us

    def end(self, kind: Kind) -> Iterator[Pair]:
        """A stream has ended or was lost; yield the pairs that waited for it."""
        self._gone.add(kind)
        return self._complete()

    def restart(self, kind: Kind) -> None:
        """A stream starts anew, perhaps on a clock set anew: forget what is held of it."""
        self._gone.discard(kind)
        self._reached_us.pop(kind, None)
        self._announced_us.pop(kind, None)
        self._telling_us.pop(kind, None)
        self._sizes.pop(kind, None)
        if kind == "frames":
            self._frames.clear()
        else:
            self._parts.clear()
            self._last_event_us = None
        if not self._reached_us:
            self._paired_us = self._alone_us = self._begun_us = None

    def silent(self) -> tuple[Kind, ...]:
        """Which streams are gone, behind the other one, or have told nothing, for too long.

        Packets without events and frames without contrast tell nothing.
        """
        newest_us = max(self._reached_us.copy().values(), default=0)  # called from any thread
        longest_us = self.rules.silent_us + self.rules.skew_us
        return tuple(
            kind
            for kind in KINDS
            if kind in self._gone
            or newest_us - self._telling_us.get(kind, self._begun_us or 0) > longest_us
        )

    def _check(self, packet: Packet) -> None:
        kind, other = KINDS if isinstance(packet, Frame) else KINDS[::-1]
        names = dict(zip(KINDS, self._sources, strict=True))
        self._sizes[kind] = size_px = sensor_px(packet)
        other_px = self._sizes.get(other, size_px)
        if other_px != size_px:
            raise DataError(
                f"{kind} of '{names[kind]}' are {size_px[0]} × {size_px[1]} px, {other} of"
                f" '{names[other]}' {other_px[0]} × {other_px[1]} px",
                hint="frames and events must lie on the same pixels to be fused",
            )
        at_us, other_us = reach_us(packet), self._announced_us.get(other)
        if other_us is not None and other_us - at_us > self.rules.max_offset_us:
            raise DataError(
                f"{kind} of '{names[kind]}' are at {at_us / 1e6:.3f} s when {other} of"
                f" '{names[other]}' are at {other_us / 1e6:.3f} s",
                hint="frames and events must be stamped by one clock to be fused",
            )

    def _take_frame(self, frame: Frame) -> None:
        at_us, before_us = middle_us(frame), self._reached_us.get("frames")
        if at_us == before_us:
            self.counters.duplicated += 1
        elif any(us is not None and at_us <= us for us in (before_us, self._paired_us)):
            self.counters.late += 1
        else:
            step_us = 0 if before_us is None else at_us - before_us
            self.counters.frame_gaps += step_us >= self.rules.silent_us
            self._frames.append(frame)
            self._reached_us["frames"] = at_us
            if is_constant(frame):
                self.counters.constant_frames += 1
            else:
                self._telling_us["frames"] = at_us

    def _take_events(self, events: Events) -> None:
        reached_us = reach_us(events)
        self._reached_us["events"] = max(reached_us, self._reached_us.get("events", reached_us))
        if not len(events):
            return
        first_us, last_us = int(events.t[0]), self._last_event_us
        steps_us = np.diff(events.t, prepend=first_us if last_us is None else last_us)
        self.counters.event_gaps += int((steps_us >= self.rules.silent_us).sum())
        self._last_event_us = self._telling_us["events"] = int(events.t[-1])
        if self._paired_us is not None:
            until_us = self._paired_us + self.rules.after_us
            self.counters.late_events += int(np.searchsorted(events.t, until_us))
        if self._alone_us is None:
            self._alone_us = first_us + self.rules.silent_us
        self._parts.append(events)

    def _complete(self) -> Iterator[Pair]:
        while (due := self._due()) is not None:
            frame, at_us = due
            seq = self._seq if frame is None else frame.stamp.seq
            about = (at_us, seq, self._sources)
            made = paired(frame, self._window(at_us), about, self.rules, self.counters)
            self._seq = seq + (frame is not None or made is not None)
            self._alone_us = at_us + (
                self.rules.window_us if frame is None else self.rules.silent_us
            )
            self._paired_us = at_us
            self._forget(at_us - self.rules.before_us)
            if made is not None:
                yield made

    def _due(self) -> tuple[Frame | None, int] | None:
        """What is next in time, if by now it is certain: a frame or None, and its middle."""
        frame_us = middle_us(self._frames[0]) if self._frames else None
        alone_us = self._alone_us = self._not_empty(frame_us)
        if frame_us is not None and (alone_us is None or alone_us >= frame_us):
            known = self._knows_events(frame_us + self.rules.after_us)
            return (self._frames.popleft(), frame_us) if known else None
        if alone_us is None or not self._knows_events(alone_us + self.rules.after_us):
            return None
        if frame_us is None and not self._knows_no_frame(alone_us):
            return None
        return None, alone_us

    def _not_empty(self, frame_us: int | None) -> int | None:
        """The next window without a frame that has events in it, or may yet have some."""
        alone_us, rules = self._alone_us, self.rules
        if alone_us is None:
            return None
        next_us = self._next_event_us(alone_us - rules.before_us)
        if next_us is None and "events" in self._gone:
            return alone_us if frame_us is None else max(alone_us, frame_us)
        if next_us is None:
            next_us = max(
                self._reached_us.get("events", alone_us),
                self._reached_us.get("frames", alone_us) - rules.skew_us,
            )
        steps = (next_us - alone_us - rules.after_us) // rules.window_us + 1
        return alone_us + max(0, steps) * rules.window_us

    def _next_event_us(self, from_us: int) -> int | None:
        for part in self._parts:
            if part.t[-1] >= from_us:
                return int(part.t[np.searchsorted(part.t, from_us)])
        return None

    def _knows_events(self, until_us: int) -> bool:
        """Whether all events before a time have come."""
        return (
            "events" in self._gone
            or self._has_reached("events", until_us)
            or self._has_reached("frames", until_us + self.rules.skew_us)
        )

    def _knows_no_frame(self, until_us: int) -> bool:
        """Whether no frame up to a time is still to come, and its window of events is whole.

        Behind the last frame only whole windows count: one that is cut short may yet get a frame.
        """
        gone = "frames" in self._gone or self._has_reached("events", until_us + self.rules.skew_us)
        return gone and self._has_reached("events", until_us + self.rules.after_us)

    def _has_reached(self, kind: Kind, time_us: int) -> bool:
        return kind in self._reached_us and self._reached_us[kind] >= time_us

    def _window(self, at_us: int) -> list[Events]:
        """What there is of the events around a time, in parts that are not empty."""
        found = []
        for part in self._parts:
            ends = (at_us - self.rules.before_us, at_us + self.rules.after_us)
            start, stop = np.searchsorted(part.t, ends).tolist()
            if stop > start:
                found.append(part.slice(start, stop, part.stamp))
        return found

    def _forget(self, before_us: int) -> None:
        while self._parts and self._parts[0].t[-1] < before_us:
            self._parts.popleft()
