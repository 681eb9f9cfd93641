"""From what a decoder yields to the packets of a recording: small, and in order of time."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeperc.packet import Events, Frame, Packet, Stamp, join

Array = NDArray[Any]
_EVER_US = 1 << 61


class Columns(NamedTuple):
    """Events as columns: t (N,) int64 µs, x and y (N,) uint16, p (N,) bool."""

    t: NDArray[np.int64]
    x: NDArray[np.uint16]
    y: NDArray[np.uint16]
    p: NDArray[np.bool_]


def events(t: Array, x: Array, y: Array, p: Array, size_px: tuple[int, int]) -> Events:
    """Events as a decoder has them, t of any number type, in µs. size_px: width and height.

    Coordinates beyond uint16 become 65535, which no sensor has, so that the validator sees them.
    """
    if t.dtype.kind == "f":  # text may say nan or 1e300; as a time that never is, it is a fault
        t = np.nan_to_num(t, nan=-_EVER_US).clip(-_EVER_US, _EVER_US)
    t = np.ascontiguousarray(t, np.int64)
    if t.size and (t.min() < -_EVER_US or t.max() > _EVER_US):
        t = t.clip(-_EVER_US, _EVER_US)  # so that differences do not overflow
    start_us, end_us = (int(t[0]), int(t[-1])) if t.size else (0, 0)
    return Events(
        stamp=Stamp(source="", seq=0, start_ns=start_us * 1000, end_ns=end_us * 1000),
        t=t,
        x=_pixels(x),
        y=_pixels(y),
        p=np.ascontiguousarray(p, np.bool_),
        width_px=size_px[0],
        height_px=size_px[1],
    )


def frame(image: Array, start_ns: int, end_ns: int, *, seq: int = 0) -> Frame:
    """A picture and its exposure. image: (H, W) or (H, W, 3) RGB uint8."""
    stamp = Stamp(source="", seq=seq, start_ns=start_ns, end_ns=end_ns)
    return Frame(stamp=stamp, image=np.ascontiguousarray(image))


def cut(packets: Iterable[Packet], *, span_us: int, count: int) -> Iterator[Packet]:
    """Join and split events into packets of less than `span_us` and at most `count` events.

    Frames pass as they are; events before a frame are not joined with those behind it.
    """
    held: list[Events] = []
    for packet in packets:
        if isinstance(packet, Frame):
            yield from _joined(held)
            held = []
            yield packet
            continue
        for piece in _split(packet, span_us, count):
            span = piece.stamp.end_ns - held[0].stamp.start_ns if held else 0
            full = span >= span_us * 1000 or sum(map(len, held)) + len(piece) > count
            if held and (full or span < 0):
                yield from _joined(held)
                held = []
            held.append(piece)
    yield from _joined(held)


def in_order(packets: Iterable[Packet], *, late_us: int = 500_000) -> Iterator[Packet]:
    """Put frames, which a file may hold behind younger events, before these by their stamps' ends.

    A frame that comes over `late_us` behind its events stays late. Events keep their order, also
    where it is wrong.
    """
    held: deque[Packet] = deque()
    for packet in packets:
        end_ns, place = packet.stamp.end_ns, len(held)
        if isinstance(packet, Frame):
            while place and _is_younger(held[place - 1], end_ns):
                place -= 1
        held.insert(place, packet)
        while abs(end_ns - held[0].stamp.end_ns) > late_us * 1000:
            yield held.popleft()
    yield from held


def trim(
    packets: Iterable[Packet],
    *,
    start_us: int,
    duration_us: int | None,
    first_us: int | None = None,
) -> Iterator[Packet]:
    """What lies in [first packet + start, + duration); frames count by their end.

    first_us: when the recording began, if not with the first of these packets.
    """
    packets = iter(packets)
    first = next(packets, None)
    if first is None:
        return
    begin_us = first.stamp.start_ns // 1000 if first_us is None else first_us
    # Events in the same 10 ms as a first frame may be older than that; a start of 0 drops nothing.
    from_us = begin_us + start_us if start_us else -_EVER_US
    until_us = _EVER_US if duration_us is None else begin_us + start_us + duration_us
    for packet in itertools.chain([first], packets):
        if packet.stamp.start_ns // 1000 >= until_us:
            return
        if isinstance(packet, Frame):
            if from_us <= packet.stamp.end_ns // 1000 < until_us:
                yield packet
        else:
            inside = (packet.t >= from_us) & (packet.t < until_us)
            if inside.all():
                yield packet
            elif inside.any():
                start, stop = np.flatnonzero(inside)[[0, -1]]
                yield _part(packet, int(start), int(stop) + 1)


def numbered(packets: Iterable[Packet], source: str) -> Iterator[Packet]:
    """Stamp packets with their source and counts without gaps, of events and of frames."""
    counts: Counter[type] = Counter()
    for packet in packets:
        seq = counts[type(packet)]
        counts[type(packet)] += 1
        yield replace(packet, stamp=replace(packet.stamp, source=source, seq=seq))


def of_source(packets: Iterable[Packet], source: str) -> Iterator[Packet]:
    """Stamp packets with their source, and leave their numbers as they are."""
    for packet in packets:
        yield replace(packet, stamp=replace(packet.stamp, source=source))


class UntilError:
    """Packets up to the first error, which is kept for `reraise`.

    So whoever holds packets back, as `cut` and `in_order` do, comes to hand them on.
    """

    def __init__(self, packets: Iterable[Packet]) -> None:
        self._packets = packets
        self._error: Exception | None = None

    def __iter__(self) -> Iterator[Packet]:
        try:
            yield from self._packets
        except Exception as error:
            self._error = error

    def reraise(self) -> None:
        """Raise the error, if there was one."""
        if self._error:
            raise self._error


def _is_younger(packet: Packet, end_ns: int) -> bool:
    return isinstance(packet, Events) and packet.stamp.end_ns > end_ns


def _pixels(values: Array) -> NDArray[np.uint16]:
    if values.dtype != np.uint16:
        values = np.where((values >= 0) & (values < 0xFFFF), values, 0xFFFF)
    return np.ascontiguousarray(values, np.uint16)


def _split(packet: Events, span_us: int, count: int) -> Iterator[Events]:
    """Cut where `span_us` or `count` is reached; where time has run backwards only by `count`."""
    backwards = np.flatnonzero(packet.t[1:] < packet.t[:-1])
    in_order = int(backwards[0]) + 1 if backwards.size else len(packet)
    start = 0
    while start < len(packet):
        stop = min(start + count, in_order if start < in_order else len(packet))
        if start < in_order:
            reached = np.searchsorted(packet.t[start:stop], packet.t[start] + span_us)
            stop = start + int(reached)
        yield _part(packet, start, stop)
        start = stop


def _joined(parts: list[Events]) -> Iterator[Events]:
    if parts:
        yield join(parts, replace(parts[0].stamp, end_ns=parts[-1].stamp.end_ns))


def _part(packet: Events, start: int, stop: int) -> Events:
    if (start, stop) == (0, len(packet)):
        return packet
    stamp = replace(
        packet.stamp,
        start_ns=int(packet.t[start]) * 1000,
        end_ns=int(packet.t[stop - 1]) * 1000,
    )
    return packet.slice(start, stop, stamp)
