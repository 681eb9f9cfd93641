"""Which events belong to which frame: the rules, and a plain reference for recorded streams.

    pairs, counts = pair(frames, events, Rules())

A frame's window lies around the middle of its exposure, half-open. Where no frame comes for
`silent_us`, windows follow each other without frames as long as there are events in them; where no
events come, frames go on alone. `edgeperc.pairing` does the same as packets come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgeperc.packet import Events, Frame, Packet, Pair, Stamp, join

Kind = Literal["frames", "events"]
KINDS: tuple[Kind, Kind] = ("frames", "events")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """before_us, after_us: the window around the middle of an exposure.

    silent_us: a stream that says nothing for so long is taken to be gone. skew_us: how much later
    than the other a stream may come. max_offset_us: farther apart, they are not on one clock.
    skip_single: what lacks a frame, or all events, is counted but not paired.
    """

    before_us: int = 25_000
    after_us: int = 25_000
    silent_us: int = 200_000
    skew_us: int = 100_000
    max_offset_us: int = 10_000_000
    skip_single: bool = False

    @property
    def window_us(self) -> int:
        """Length of a window, and the step between those without frames."""
        return self.before_us + self.after_us


@dataclass
class PairCounters:
    """What a pairing has seen so far.

    duplicated, late: frames left out, of the time of the last one, or older than what was paired.
    constant_frames: of one value throughout, as of a covered lens; they are paired all the same.
    frame_gaps, event_gaps: pauses of silent_us or more between frames, or between events.
    without_frame, without_events: what lacks one side. late_events: came when their pair was gone.
    """

    pairs: int = 0
    duplicated: int = 0
    late: int = 0
    late_events: int = 0
    constant_frames: int = 0
    frame_gaps: int = 0
    event_gaps: int = 0
    without_frame: int = 0
    without_events: int = 0


def middle_us(frame: Frame) -> int:
    """The middle of a frame's exposure, in whole µs."""
    return (frame.stamp.start_ns + frame.stamp.end_ns) // 2000


def pair(
    frames: Sequence[Frame],
    events: Sequence[Events],
    rules: Rules,
    *,
    sources: tuple[str, str] = ("", ""),
) -> tuple[list[Pair], PairCounters]:
    """All pairs of two whole streams, each in the order in which it came: the plain reference.

    sources: names of the sensors of frames and of events.
    """
    counts, kept = PairCounters(), list[Frame]()
    for frame in frames:
        step_us = middle_us(frame) - middle_us(kept[-1]) if kept else 1
        counts.duplicated += step_us == 0
        counts.late += step_us < 0
        counts.frame_gaps += step_us >= rules.silent_us
        if step_us > 0:
            kept.append(frame)
            counts.constant_frames += is_constant(frame)
    whole = join(events, events[0].stamp) if events else None
    t = np.zeros(0, np.int64) if whole is None else whole.t
    counts.event_gaps = int((np.diff(t) >= rules.silent_us).sum())

    def made(frame: Frame | None, at_us: int, seq: int) -> Pair | None:
        inside = np.flatnonzero((t >= at_us - rules.before_us) & (t < at_us + rules.after_us))
        some = (
            [whole.slice(inside[0], inside[-1] + 1, whole.stamp)] if whole and inside.size else []
        )
        return paired(frame, some, (at_us, seq, sources), rules, counts)

    found = list[Pair | None]()
    last_us, seq = int(t[0]) if t.size else None, 0
    whole_us = max(map(reach_us, events), default=0) - rules.after_us
    for after in (*kept, None):
        until_us = whole_us + 1 if after is None else middle_us(after)
        if last_us is not None:
            for alone_us in range(last_us + rules.silent_us, until_us, rules.window_us):
                single = made(None, alone_us, seq)
                found.append(single)
                seq += single is not None
        if after is not None:
            last_us, seq = until_us, after.stamp.seq + 1
            found.append(made(after, until_us, after.stamp.seq))
    return [each for each in found if each is not None], counts


def paired(
    frame: Frame | None,
    parts: Sequence[Events],
    about: tuple[int, int, tuple[str, str]],
    rules: Rules,
    counts: PairCounters,
) -> Pair | None:
    """A pair, counted; None for nothing at all, or where the rules want no pair of one side.

    about: the middle in µs, the number and the sources.
    """
    if frame is None and not parts:
        return None
    counts.without_frame += frame is None
    counts.without_events += not parts
    if rules.skip_single and (frame is None or not parts):
        return None
    counts.pairs += 1
    at_us, seq, (frames_source, events_source) = about
    start_us, end_us = at_us - rules.before_us, at_us + rules.after_us
    stamp = Stamp(source=events_source, seq=seq, start_ns=1000 * start_us, end_ns=1000 * end_us)
    if frame is None:
        middle = Stamp(source=frames_source, seq=seq, start_ns=1000 * at_us, end_ns=1000 * at_us)
        return Pair(stamp=middle, frame=None, events=join(parts, stamp))
    events = join(parts, stamp) if parts else _no_events(stamp, sensor_px(frame))
    return Pair(stamp=frame.stamp, frame=frame, events=events)


def _no_events(stamp: Stamp, size_px: tuple[int, int]) -> Events:
    return Events(
        stamp=stamp,
        t=np.zeros(0, np.int64),
        x=np.zeros(0, np.uint16),
        y=np.zeros(0, np.uint16),
        p=np.zeros(0, np.bool_),
        width_px=size_px[0],
        height_px=size_px[1],
    )


def is_constant(frame: Frame) -> bool:
    """Whether all of a frame's values are equal."""
    first = frame.image.flat[0] if frame.image.size else 0
    return bool((frame.image == first).all())


def sensor_px(packet: Packet) -> tuple[int, int]:
    """Width and height of what a sensor sees."""
    if isinstance(packet, Frame):
        return packet.image.shape[1], packet.image.shape[0]
    return packet.width_px, packet.height_px


def reach_us(packet: Packet) -> int:
    """Up to when a packet tells all that its stream has to say."""
    if isinstance(packet, Frame):
        return middle_us(packet)
    end_us = packet.stamp.end_ns // 1000
    return max(end_us, int(packet.t[-1])) if len(packet) else end_us
