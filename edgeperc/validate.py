"""The one check that every packet passes: pixels on the sensor, time in order, no silent jump."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeperc.errors import DataError
from edgeperc.packet import Events, Frame, Packet, Stamp

Policy = Literal["raise", "drop", "clamp"]
Mask = NDArray[np.bool_]

_EVER_US = 1 << 62


@dataclass
class Counters:
    """What a validator has seen so far, in events and frames.

    backwards: older than the one before. gaps: jumps ahead by more than the allowed gap. dropped:
    not delivered, for whatever reason. clamped: delivered with a pixel or time that was moved.
    """

    received: int = 0
    out_of_bounds: int = 0
    backwards: int = 0
    gaps: int = 0
    dropped: int = 0
    clamped: int = 0


@dataclass
class _Track:
    """Where the events, or the frames, of a sensor have come to.

    last_us: the last one delivered. astray_us: the one dropped for its time since.
    """

    kind: str
    seen: int = 0
    last_us: int | None = None
    astray_us: int | None = None


@dataclass(frozen=True)
class _Faults:
    """Where a packet breaks which rule, (N,) each: off the sensor, back in time, too far ahead."""

    outside: Mask
    back: Mask
    ahead: Mask


class Validator:
    """Checks the packets of one sensor, in order, and deals with those that break the rules.

    The rules: events lie on the sensor; events do not go back in time, nor do frames; nothing
    comes more than `max_gap_us` before or after the last packet. A frame's time is its stamp's end.

    raise   deliver what comes before the first fault, then raise DataError (recordings)
    drop    leave out what breaks a rule (live cameras). A jump that lasts costs a packet or two: a
            real pause is accepted then, a clock that was set back is continued by an offset
    clamp   move pixels to the sensor's edge and limit steps of time to 0 .. max_gap_us, so that
            time runs on evenly after a jump
    """

    def __init__(self, policy: Policy = "raise", *, max_gap_us: int = 10_000_000) -> None:
        self.policy = policy
        self.max_gap_us = max_gap_us
        self.counters = Counters()
        self.fault: DataError | None = None
        self._events = _Track("event")
        self._frames = _Track("frame")
        self._offset_us = 0

    def stream(self, packets: Iterable[Packet]) -> Iterator[Packet]:
        """Yield what is good of `packets`; under `raise`, DataError after the good prefix."""
        for packet in packets:
            good = self.check(packet)
            if good is not None:
                yield good
            if self.fault:
                raise self.fault

    def check(self, packet: Packet) -> Packet | None:
        """What may be delivered of a packet: usually the packet itself, without a copy.

        Under `raise`, the good prefix of the first faulty packet is returned, the DataError stands
        in `fault`, and the next call raises it.
        """
        if self.fault:
            raise self.fault
        packet = _later(packet, self._offset_us)
        if isinstance(packet, Events):
            track, times = self._events, packet.t
        else:
            track, times = self._frames, np.array([packet.stamp.end_ns // 1000], np.int64)
        if times.size == 0:
            return packet
        self.counters.received += times.size
        outside = _outside(packet)
        good: Packet | None = packet
        if outside is None and self._in_time(times, track):
            track.last_us, track.astray_us = int(times[-1]), None
        elif self.policy == "drop":
            good = self._sift(packet, times, outside, track)
        else:
            back, ahead = self._breaks(times, track)
            outside = np.zeros_like(back) if outside is None else outside
            change = self._cut if self.policy == "raise" else self._clamp
            good = change(packet, times, _Faults(outside, back, ahead), track)
        track.seen += times.size
        return good

    def _range_us(self, track: _Track) -> tuple[int, int]:
        """Earliest and latest time at which the next event, or the next frame, may come."""
        lasts = [t.last_us for t in (self._events, self._frames) if t.last_us is not None]
        if not lasts:
            return -_EVER_US, _EVER_US
        earliest_us = max(lasts) - self.max_gap_us
        if track.last_us is not None:
            earliest_us = max(earliest_us, track.last_us)
        return earliest_us, max(lasts) + self.max_gap_us

    def _in_time(self, times: NDArray[np.int64], track: _Track) -> bool:
        earliest_us, latest_us = self._range_us(track)
        if not earliest_us <= times[0] <= latest_us:
            return False
        steps = np.diff(times)
        return not steps.size or bool(steps.min() >= 0 and steps.max() <= self.max_gap_us)

    def _breaks(self, times: NDArray[np.int64], track: _Track) -> tuple[Mask, Mask]:
        """Where time steps back, and where it jumps ahead: (N,) each."""
        earliest_us, latest_us = self._range_us(track)
        steps = np.diff(times)
        back = np.concatenate(([times[0] < earliest_us], steps < 0))
        ahead = np.concatenate(([times[0] > latest_us], steps > self.max_gap_us))
        return back, ahead

    def _cut(
        self, packet: Packet, times: NDArray[np.int64], faults: _Faults, track: _Track
    ) -> Packet | None:
        """Policy `raise`: return what comes before the first fault, and keep the fault."""
        first = int(np.argmax(faults.outside | faults.back | faults.ahead))
        earliest_us, latest_us = self._range_us(track)
        before_us = earliest_us if faults.back[0] else latest_us - self.max_gap_us
        before_us = int(times[first - 1]) if first else before_us
        step = f"from {before_us} to {int(times[first])} µs"
        where = f"{packet.stamp.source}: {track.kind} {track.seen + first:,}"
        counters = self.counters
        counters.dropped += times.size - first
        if faults.outside[first] and isinstance(packet, Events):
            counters.out_of_bounds += 1
            self.fault = DataError(
                f"{where}: pixel ({packet.x[first]}, {packet.y[first]}) is not on the sensor"
                f" of {packet.width_px} × {packet.height_px}",
                hint="if the sensor is larger, set width_px and height_px",
            )
        elif faults.back[first]:
            counters.backwards += 1
            self.fault = DataError(f"{where}: time goes back {step}")
        else:
            counters.gaps += 1
            self.fault = DataError(
                f"{where}: time jumps ahead {step}",
                hint=f"if that pause of over {self.max_gap_us / 1e6:g} s is real, raise max_gap_us",
            )
        return _pick(packet, slice(0, first)) if first else None

    def _clamp(
        self, packet: Packet, times: NDArray[np.int64], faults: _Faults, track: _Track
    ) -> Packet:
        """Policy `clamp`: return the packet with pixels and steps of time inside the limits."""
        counters = self.counters
        counters.out_of_bounds += int(faults.outside.sum())
        counters.backwards += int(faults.back.sum())
        counters.gaps += int(faults.ahead.sum())
        counters.clamped += int((faults.outside | faults.back | faults.ahead).sum())
        steps = np.diff(times, prepend=times[0]).clip(0, self.max_gap_us)
        even = np.clip(times[0], *self._range_us(track)) + np.cumsum(steps)
        moved_us = int(even[-1] - times[-1])
        self._offset_us += moved_us
        track.last_us = int(even[-1])
        if isinstance(packet, Frame):
            return _later(packet, moved_us)
        return Events(
            stamp=_spanning(packet.stamp, even),
            t=even,
            x=np.minimum(packet.x, np.uint16(packet.width_px - 1)),
            y=np.minimum(packet.y, np.uint16(packet.height_px - 1)),
            p=packet.p,
            width_px=packet.width_px,
            height_px=packet.height_px,
        )

    def _sift(
        self, packet: Packet, times: NDArray[np.int64], outside: Mask | None, track: _Track
    ) -> Packet | None:
        """Policy `drop`: return what keeps the rules.

        Between two breaks of time events run evenly; such a stretch is kept, cut or left out.
        """
        inside = np.arange(times.size) if outside is None else np.flatnonzero(~outside)
        self.counters.out_of_bounds += times.size - inside.size
        steps = np.diff(times[inside])
        breaks = np.flatnonzero((steps < 0) | (steps > self.max_gap_us)) + 1
        kept = [np.zeros(0, np.intp)]
        for number, stretch in enumerate(np.split(inside, breaks)):
            if stretch.size:
                skip = self._unfit(times[stretch], track, is_first=number == 0)
                kept.append(stretch[skip:])
        keep = np.concatenate(kept)
        self.counters.dropped += times.size - keep.size
        return _pick(packet, keep) if keep.size else None

    def _unfit(self, times: NDArray[np.int64], track: _Track, *, is_first: bool) -> int:
        """How many events at the start of an even stretch to leave out; all, if it lies astray.

        The first stretch of a packet that goes on where the last packet went astray shows that
        the jump was no accident.
        """
        earliest_us, latest_us = self._range_us(track)
        lasts = is_first and track.astray_us is not None
        lasts = lasts and 0 <= times[0] - (track.astray_us or 0) <= self.max_gap_us
        if times[0] > latest_us and not lasts:
            self.counters.gaps += 1
            track.astray_us = int(times[-1])
            return times.size
        behind = int(np.searchsorted(times, earliest_us))
        self.counters.backwards += behind
        if behind < times.size:
            track.last_us, track.astray_us = int(times[-1]), None
            return behind
        if lasts and earliest_us - times[-1] > self.max_gap_us:
            self._offset_us += earliest_us - int(times[-1])
        track.astray_us = int(times[-1])
        return times.size


def _outside(packet: Packet) -> Mask | None:
    """Which events lie off the sensor, (N,); None if all are on it."""
    if not isinstance(packet, Events):
        return None
    if packet.x.max() < packet.width_px and packet.y.max() < packet.height_px:
        return None
    return (packet.x >= packet.width_px) | (packet.y >= packet.height_px)


def _pick(packet: Packet, keep: slice | NDArray[np.intp]) -> Packet:
    """The events of a packet that `keep` selects; a frame stays itself."""
    if isinstance(packet, Frame):
        return packet
    return Events(
        stamp=_spanning(packet.stamp, packet.t[keep]),
        t=packet.t[keep],
        x=packet.x[keep],
        y=packet.y[keep],
        p=packet.p[keep],
        width_px=packet.width_px,
        height_px=packet.height_px,
    )


def _later(packet: Packet, offset_us: int) -> Packet:
    """A packet with its time moved."""
    if offset_us == 0:
        return packet
    stamp = replace(
        packet.stamp,
        start_ns=packet.stamp.start_ns + offset_us * 1000,
        end_ns=packet.stamp.end_ns + offset_us * 1000,
    )
    if isinstance(packet, Frame):
        return replace(packet, stamp=stamp)
    return replace(packet, stamp=stamp, t=packet.t + offset_us)


def _spanning(stamp: Stamp, times: NDArray[np.int64]) -> Stamp:
    """A stamp from the first to the last of some times in µs."""
    return replace(stamp, start_ns=int(times[0]) * 1000, end_ns=int(times[-1]) * 1000)
