"""A wide and a search camera before a painted wall, as drivers: the rig of section 9 in small.

What the search camera sees is the wide picture at the places that the two mirrors look at, finer.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from edgeperc.bench.two_mirrors import TwoMirrors
from edgeperc.clock import Clock
from edgeperc.errors import DeviceError
from edgeperc.packet import Frame, Gaze, GazeRange, Mirror, Stamp

WIDE_PX = (960, 540)
SEARCH_PX = 128
SEARCH_RAD = np.radians(5.0)
REACH_RAD = np.radians(17.0)
DEPTH_M = 30.0
WIDE_RAD = 2 * np.arctan(480 / 475)


def wide_px_of(gaze: Any) -> Any:
    """Where gazes, (N, 2) rad, really are in the wide picture."""
    volt = np.asarray(gaze, np.float64).reshape(-1, 2) / np.radians(4.0)
    truth = TwoMirrors(focal_px=475.0, centre_px=(480.0, 270.0))
    return truth.wide_px(volt, np.full(len(volt), DEPTH_M))


@lru_cache
def wall(kind: str = "stones") -> Any:
    """(540, 960) float32: stones; or, left of them, houses with windows alike, below a sky."""
    random = np.random.default_rng(4)
    width, height = WIDE_PX
    picture = np.full((height, width), 110.0, np.float32)
    for sigma, strength in ((2.0, 90.0), (6.0, 160.0), (20.0, 300.0)):
        grain = random.normal(0, 1, (height, width)).astype(np.float32)
        picture += strength * cv2.GaussianBlur(grain, (0, 0), sigma)
    if kind == "houses":
        picture[:, :560] = 128 + 0.3 * (picture[:, :560] - 110)
        for left in range(6, 552, 16):
            for top in range(200, height - 12, 20):
                picture[top : top + 11, left : left + 8] -= 70
        picture[:180] = 200
    if kind == "blank":
        picture[:] = 128
    return np.clip(picture, 0, 255)


class Wall:
    """What both cameras look at, at a time; with `moving`, a poster drives along it."""

    def __init__(self, kind: str, moving: bool) -> None:
        self.still, self.moving = wall(kind), moving
        self.poster = 128 + 40 * cv2.GaussianBlur(
            np.random.default_rng(5).normal(0, 6, (80, 110)).astype(np.float32), (0, 0), 2.0
        )

    def seen(self, time_s: float) -> Any:
        if not self.moving:
            return self.still
        picture = self.still.copy()
        left = 300 + int(40 * time_s) % 300
        picture[230:310, left : left + 110] = self.poster
        return picture


@lru_cache
def grain(shape: tuple[int, int]) -> Any:
    return np.random.default_rng(1).normal(0, 1.5, (8, *shape)).astype(np.float32)


def exposed(light: Any, number: int) -> Any:
    return cv2.convertScaleAbs(np.maximum(light + grain(light.shape)[number % 8], 0))


@lru_cache
def powers(count: int) -> Any:
    """Of x and y up to degree three, at count x count places from edge to edge, (..., 10)."""
    ends = (np.arange(count) + 0.5) / count * 2 - 1
    x, y = np.meshgrid(ends, ends)
    return np.stack([x**i * y**j for i in range(4) for j in range(4 - i)], axis=-1)


def places_seen(gaze: Gaze) -> tuple[Any, Any]:
    """Column and row of the wide picture for each pixel of the search picture.

    A polynomial through some pixels: over so few degrees it is exact to a thousandth of a pixel.
    """
    ends = (np.arange(8) + 0.5) / 8 * 2 - 1
    pan = gaze.pan_rad + ends * SEARCH_RAD / 2
    tilt = gaze.tilt_rad - ends * SEARCH_RAD / 2
    at = wide_px_of(np.stack(np.meshgrid(pan, tilt), axis=-1)) - 0.5
    curve = np.linalg.lstsq(powers(8).reshape(-1, 10), at, rcond=None)[0]
    seen = (powers(SEARCH_PX) @ curve).astype(np.float32)
    return seen[..., 0], seen[..., 1]


class PairWide:
    """Runs at 10 Hz on the run's clock."""

    def __init__(
        self, *, name: str, clock: Clock, kind: str = "stones", moving: bool = False
    ) -> None:
        self._clock, self._wall = clock, Wall(kind, moving)
        self._name = name

    def packets(self) -> Any:
        for seq in range(100_000):
            end_ns = (seq + 1) * 100_000_000
            if not self._clock.wait_until(end_ns):
                return
            image = exposed(self._wall.seen(end_ns * 1e-9), seq)
            stamp = Stamp(source=self._name, seq=seq, start_ns=end_ns - 1000, end_ns=end_ns)
            yield Frame(stamp=stamp, image=image)

    def close(self) -> None:
        pass


class PairSearch:
    """Exposes when asked. flipped: as a camera whose picture stands on its head."""

    def __init__(
        self,
        *,
        name: str,
        clock: Clock,
        mirror: Mirror,
        kind: str = "stones",
        moving: bool = False,
        dies_after: int = 1_000_000,
    ) -> None:
        self._clock, self._mirror, self._wall = clock, mirror, Wall(kind, moving)
        self._name, self._seq, self._dies_after = name, 0, dies_after

    def expose(self) -> Frame:
        if self._seq >= self._dies_after:
            raise DeviceError("search: unplugged")
        start_ns = self._clock.now_ns()
        gaze = self._mirror.measured()
        x, y = places_seen(gaze)
        light = cv2.remap(self._wall.seen(start_ns * 1e-9), x, y, cv2.INTER_CUBIC)
        stamp = Stamp(source=self._name, seq=self._seq, start_ns=start_ns, end_ns=start_ns + 1000)
        self._seq += 1
        return Frame(stamp=stamp, image=exposed(light, self._seq + 3))

    def packets(self) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        pass


class PairMirror:
    """Arrives 5 ms later, 0.02 rad beside where it was asked to be, and says so."""

    source = "made up"

    def __init__(self, *, now_ns: Any, reach_rad: float = float(REACH_RAD)) -> None:
        corner = Gaze(pan_rad=reach_rad, tilt_rad=reach_rad)
        self.range = GazeRange(lowest=Gaze(pan_rad=-reach_rad, tilt_rad=-reach_rad), highest=corner)
        self.clipped = 0
        self.asked: list[Gaze] = []
        self._now_ns, self._settled_ns = now_ns, 0
        self._at = self._next = Gaze(pan_rad=0.0, tilt_rad=0.0)

    def aim(self, gaze: Gaze) -> Gaze:
        asked = self.range.clip(gaze)
        self.asked.append(gaze)
        self._at, self._settled_ns = self.measured(), self._now_ns() + 5_000_000
        self._next = Gaze(pan_rad=asked.pan_rad + 0.02, tilt_rad=asked.tilt_rad)
        return asked

    def measured(self, time_ns: int | None = None) -> Gaze:
        now_ns = self._now_ns() if time_ns is None else time_ns
        return self._next if now_ns >= self._settled_ns else self._at

    def settled_ns(self) -> int:
        return self._settled_ns

    def close(self) -> None:
        pass


class LiveWide:
    """Runs by itself on the host's clock, as a real camera does."""

    def __init__(self, *, name: str) -> None:
        self._name, self._closed = name, threading.Event()

    def packets(self) -> Any:
        seq = 0
        while not self._closed.wait(0.005):
            end_ns = time.monotonic_ns()
            stamp = Stamp(source=self._name, seq=seq, start_ns=end_ns - 1000, end_ns=end_ns)
            yield Frame(stamp=stamp, image=np.full((20, 30), seq % 250, np.uint8))
            seq += 1

    def close(self) -> None:
        self._closed.set()


class LiveSearch(LiveWide):
    """The same behind the mirror; its frames arrive late, so that some are older than a move."""

    def __init__(self, *, name: str, late_ms: int = 12) -> None:
        super().__init__(name=name)
        self._late_ns = late_ms * 1_000_000

    def packets(self) -> Any:
        for frame in super().packets():
            start_ns = frame.stamp.start_ns - self._late_ns
            stamp = dataclasses.replace(frame.stamp, start_ns=start_ns)
            yield dataclasses.replace(frame, stamp=stamp)
