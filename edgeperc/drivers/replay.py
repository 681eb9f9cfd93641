"""A recording as a sensor: its packets in order of time, paced by a clock."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec

from edgeperc.clock import Clock
from edgeperc.drivers import formats
from edgeperc.drivers.formats.packets import UntilError, cut, in_order, numbered, of_source, trim
from edgeperc.drivers.formats.wire import Job
from edgeperc.drivers.formats.worker import Worker
from edgeperc.errors import ConfigError
from edgeperc.packet import Packet

Pixels = Annotated[int, msgspec.Meta(gt=0, lt=65536)]
Positive = Annotated[int, msgspec.Meta(gt=0)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class Replay:
    """Plays a recorded file, or the folder of a ROS 2 bag.

    Packets carry the sensor's own time. Events come in packets of less than `packet_us` and at most
    `packet_events`, a frame among them as soon as its exposure has ended. start_s and duration_s
    count from the first packet. width_px, height_px: the sensor, where the file does not say it;
    where it does, they must agree. topics: of a bag with several cameras. sensor: of a recording of
    edgeperc with several; its packets are left as they were recorded, stamps, cuts and all. clock:
    paces the packets; None never waits. max_gap_us: a jump in time that is not waited for.
    deadline_s: a decoder that yields nothing for so long is given up.

    Raises ConfigError if there is no such file, DataError if it is of no known format.
    """

    def __init__(
        self,
        path: str,
        *,
        name: str = "replay",
        clock: Clock | None = None,
        start_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0,
        duration_s: Seconds | None = None,
        width_px: Pixels | None = None,
        height_px: Pixels | None = None,
        topics: tuple[str, ...] = (),
        sensor: str = "",
        max_gap_us: Positive = 10_000_000,
        packet_us: Positive = 10_000,
        packet_events: Positive = 1 << 17,
        deadline_s: Seconds = 10.0,
    ) -> None:
        known = formats.sniff(existing(path))
        options = formats.Options(
            width_px=width_px,
            height_px=height_px,
            topics=topics,
            start_s=start_s,
            sensor=sensor,
        )
        job = Job(
            module=f"{formats.__name__}.{known.module}",
            source=str(Path(path).resolve()),
            options=options,
        )
        self._worker = Worker(job, label=path, deadline_s=deadline_s)
        self._pace = Pace(clock, max_gap_us=max_gap_us)
        self._name = name
        self._has_frames = known.frames
        self._exact = known.exact
        self._first_us = first_us(Path(path)) if known.exact else None
        self._start_us = round(start_s * 1e6)
        self._duration_us = None if duration_s is None else round(duration_s * 1e6)
        self._cut = partial(cut, span_us=packet_us, count=packet_events)

    def packets(self) -> Iterator[Packet]:
        """Yield the recording, each packet when the clock reaches its end.

        Raises DataError where the recording breaks, after all that could be read. Whether events
        make sense is not checked here: that is `edgeperc.validate`'s.
        """
        raw = UntilError(self._worker.packets())
        packets: Iterator[Packet] = iter(raw)
        if not self._exact:
            packets = self._cut(packets)
            packets = in_order(packets) if self._has_frames else packets
        if not self._exact or self._start_us or self._duration_us is not None:
            packets = trim(
                packets,
                start_us=self._start_us,
                duration_us=self._duration_us,
                first_us=self._first_us,
            )
        named = of_source(packets, self._name) if self._exact else numbered(packets, self._name)
        try:
            yield from self._pace.packets(named)
            raw.reraise()
        finally:
            self._worker.close()

    def close(self) -> None:
        """Stop, within a moment; may be called twice and from any thread."""
        self._pace.stop()
        self._worker.close()


class Pace:
    """Lets packets pass when a clock reaches their ends; None or a clock without speed never waits.

    A jump of more than `max_gap_us` in either direction is not waited for. It is the validator's to
    judge, and whoever waited for it would seem to hang.
    """

    _STEP_NS = 20_000_000  # a wait is done in steps, so that it can be called off

    def __init__(self, clock: Clock | None, *, max_gap_us: int) -> None:
        self._clock = clock
        self._max_gap_ns = max_gap_us * 1000
        self._stopped = threading.Event()

    def packets(self, packets: Iterator[Packet]) -> Iterator[Packet]:
        """Yield packets, each in its time, until they end or somebody stops the clock or this."""
        last_ns: int | None = None
        jumped_ns = 0
        for packet in packets:
            end_ns = packet.stamp.end_ns
            step_ns = 0 if last_ns is None else end_ns - last_ns
            if abs(step_ns) > self._max_gap_ns:
                jumped_ns, step_ns = jumped_ns + step_ns, 0
            if not self._wait(end_ns - jumped_ns, step_ns):
                return
            last_ns = end_ns
            yield packet

    def stop(self) -> None:
        """End the current wait and all later ones."""
        self._stopped.set()

    def _wait(self, due_ns: int, ahead_ns: int) -> bool:
        """Wait for a time that is `ahead_ns` away from the last one; False if called off."""
        while not self._stopped.is_set():
            ahead_ns = max(0, ahead_ns - self._STEP_NS)
            if self._clock and not self._clock.wait_until(due_ns - ahead_ns):
                return False
            if ahead_ns == 0:
                return True
        return False


def first_us(path: Path) -> int | None:
    """When a recording of edgeperc began, if it says so."""
    from edgeperc.recording.reader import head

    first_ns = head(path).first_ns
    return None if first_ns is None else first_ns // 1000


def existing(path: str) -> Path:
    """A path that leads somewhere. Raises ConfigError."""
    if not Path(path).exists():
        raise ConfigError(f"{path}: no such file")
    return Path(path)
