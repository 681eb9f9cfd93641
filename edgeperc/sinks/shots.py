"""What results were made from, for clients that ask for the image.

    shots = Shots()
    with shots.wanted():            # while somebody asks
        shots.take(packet)          # from any thread, never blocks
        if shot := shots.of(result):
            message = shot.image    # a JPEG, encoded by whoever asks first, for all

Of each source the newest pictures and events are kept, as far back as results may look. Without
anybody who asks nothing is kept, and nothing is encoded.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from edgeperc.packet import Events, Frame, Packet, Stamp
from edgeperc.proto.edgeperc.v1 import perception_pb2 as pb
from edgeperc.result import Result, SearchMap
from edgeperc.sinks.drawn import event_picture, event_steps, jpeg

MOST_BYTES = 48 << 20
"""Of the pictures of one source: half a second of full HD in colour at 15 Hz."""
MOST_SHOTS = 64
MOST_WINDOWS = 8
MOST_EVENTS = 4_000_000
EVENTS_NS = 1_000_000_000
"""Events that are older than this are forgotten."""
LINGER_S = 5.0
"""So long after a single question pictures are kept for the next one."""


class Shot:
    """One picture, or the events of one window. draw: makes the image, once."""

    def __init__(self, draw: Callable[[], pb.Image]) -> None:
        self._draw: Callable[[], pb.Image] | None = draw
        self._lock = threading.Lock()
        self._image = pb.Image()
        self._wire = b""

    @property
    def image(self) -> pb.Image:
        """As a message. Not to be changed."""
        self._encode()
        return self._image

    @property
    def wire(self) -> bytes:
        """A serialized Result with nothing but the image, to be put behind another."""
        self._encode()
        return self._wire

    def _encode(self) -> None:
        with self._lock:
            if self._draw:
                self._image = self._draw()
                self._wire = bytes(pb.Result(image=self._image).SerializeToString())
                self._draw = None  # the pixels are not needed any more


@dataclass
class _Kept:
    """The newest of one source."""

    frames: deque[tuple[Stamp, Shot, int]] = field(default_factory=deque)
    frame_bytes: int = 0
    events: deque[Events] = field(default_factory=deque)
    count: int = 0
    windows: dict[Stamp, Shot] = field(default_factory=dict)


class Shots:
    """The newest pictures and events of all sources; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sources: dict[str, _Kept] = {}
        self._asking = 0
        self._until_s = 0.0

    @property
    def are_wanted(self) -> bool:
        """Whether anybody asks for images."""
        return self._asking > 0 or time.monotonic() < self._until_s

    @contextmanager
    def wanted(self) -> Iterator[None]:
        """Keep what comes while this is held."""
        with self._lock:
            self._asking += 1
        try:
            yield
        finally:
            with self._lock:
                self._asking -= 1
            self.forget()

    def linger(self) -> None:
        """Keep what comes for a while, as somebody has asked who may ask again."""
        self._until_s = time.monotonic() + LINGER_S

    def forget(self) -> None:
        """Keep nothing, unless somebody still wants it."""
        if self._sources and not self.are_wanted:
            with self._lock:
                self._sources.clear()

    def take(self, packet: Packet) -> None:
        """Keep a packet, if anybody wants it."""
        if not self.are_wanted:
            self.forget()
            return
        with self._lock:
            kept = self._sources.setdefault(packet.stamp.source, _Kept())
            if isinstance(packet, Frame):
                _keep_frame(kept, packet)
            else:
                _keep_events(kept, packet)

    def of(self, result: Result) -> Shot | None:
        """What a result was made from; None where it is not at hand, or nobody asks."""
        self.forget()
        stamp = result.stamp
        if isinstance(result, SearchMap):  # says what is believed, not what is seen
            return None
        with self._lock:
            kept = self._sources.get(stamp.source)
            if kept is None:
                return None
            for known, shot, _ in reversed(kept.frames):  # the newest is the likeliest
                if known == stamp:
                    return shot
            if not kept.events or not (
                kept.events[0].stamp.start_ns <= stamp.start_ns <= kept.events[-1].stamp.end_ns
            ):
                return None
            return _window(kept, stamp)


def _keep_frame(kept: _Kept, frame: Frame) -> None:
    kept.frames.append((frame.stamp, Shot(lambda: _picture(frame)), frame.image.nbytes))
    kept.frame_bytes += frame.image.nbytes
    while len(kept.frames) > MOST_SHOTS or (kept.frame_bytes > MOST_BYTES and len(kept.frames) > 1):
        kept.frame_bytes -= kept.frames.popleft()[2]


def _keep_events(kept: _Kept, events: Events) -> None:
    if kept.events and _size(kept.events[-1]) != _size(events):  # came back with other settings
        kept.events.clear()
        kept.count = 0
    kept.events.append(events)
    kept.count += len(events)
    while len(kept.events) > 1 and (
        kept.count > MOST_EVENTS
        or kept.events[0].stamp.end_ns < events.stamp.end_ns - EVENTS_NS
        or kept.events[0].stamp.start_ns > events.stamp.end_ns  # its clock began anew
    ):
        kept.count -= len(kept.events.popleft())


def _window(kept: _Kept, stamp: Stamp) -> Shot:
    """The events of a window; those who ask for the same one share it."""
    shot = kept.windows.get(stamp)
    if shot is None:
        parts = [
            part
            for part in kept.events
            if part.stamp.end_ns >= stamp.start_ns and part.stamp.start_ns <= stamp.end_ns
        ] or [kept.events[-1]]
        shot = kept.windows[stamp] = Shot(lambda: _drawn(parts, stamp))
        if len(kept.windows) > MOST_WINDOWS:
            del kept.windows[next(iter(kept.windows))]
    return shot


def _picture(frame: Frame) -> pb.Image:
    height, width = frame.image.shape[:2]
    return pb.Image(jpeg=jpeg(frame.image), width=width, height=height)


def _drawn(parts: list[Events], stamp: Stamp) -> pb.Image:
    end_us = max(stamp.end_ns, stamp.start_ns + 1000) // 1000  # a window of one moment has it
    steps, _ = event_steps(parts, since_us=stamp.start_ns // 1000, until_us=end_us)
    height, width = steps.shape
    return pb.Image(jpeg=jpeg(event_picture(steps)), width=width, height=height)


def _size(events: Events) -> tuple[int, int]:
    return events.width_px, events.height_px
