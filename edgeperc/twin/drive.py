"""Both sensors of the event camera in a world of the twin, and the truth about each pixel."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeperc.packet import Events, Frame, Stamp, join
from edgeperc.twin.avenue import Avenue
from edgeperc.twin.event_sensor import EventSensor, Pixel
from edgeperc.twin.plots import REGIONS
from edgeperc.twin.render import Painter
from edgeperc.twin.rig import DVS_X_M, upright
from edgeperc.twin.scene import CLASSES, Camera
from edgeperc.twin.stock import stock
from edgeperc.twin.street import Street
from edgeperc.twin.views import UprightView

STEP_US = 10_000
"""Longest time between two rendered pictures; the brightness in between is interpolated."""
WARM_UP_US = 20_000
"""Events of this time before a sample are thrown away, so that no pixel starts afresh in it."""

CLASS_OF_REGION = np.array(
    [
        CLASSES.index(
            {
                **{"sky": "background", "building": "background", "tree": "vegetation"},
                **{"road": "flat", "sidewalk": "flat", "grass": "vegetation"},
                **{"object": "object", "person": "human", "vehicle": "vehicle"},
            }[region]
        )
        for region in REGIONS
    ],
    np.uint8,
)
"""The avenue's regions in the classes of the event networks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One window with its answer. labels: (H, W) uint8 classes at the window's end."""

    events: Events
    frame: Frame
    labels: NDArray[np.uint8]


World = Literal["street", "avenue"]
"""A drive through a street, or an avenue seen from a roof."""


class Eye(Protocol):
    """What a camera sees of a world."""

    def look(self, time_s: float) -> NDArray[np.float32]:
        """Luminance at a time, (height, width)."""

    def labels(self) -> NDArray[np.uint8]:
        """Classes of what was looked at last, (height, width) index into `scene.CLASSES`."""


class StreetEye:
    """The eye of a car that drives through the street."""

    def __init__(self, seed: int, camera: Camera) -> None:
        self._street = Street(seed)
        self._painter = Painter(camera, stock().atlas, stock().noise)

    def look(self, time_s: float) -> NDArray[np.float32]:
        """See Eye."""
        return self._painter.paint(self._street.scene(time_s))

    def labels(self) -> NDArray[np.uint8]:
        """See Eye."""
        return self._painter.labels()


class AvenueEye:
    """An eye that stands on a roof at the avenue, beside the search rig's wide camera."""

    def __init__(self, seed: int, camera: Camera) -> None:
        lens = upright(camera.width_px, camera.height_px, camera.focal_px, x=DVS_X_M)
        self._view = UprightView(Avenue(seed), lens)
        self._time_s = 0.0

    def look(self, time_s: float) -> NDArray[np.float32]:
        """See Eye."""
        self._time_s = time_s
        return self._view.luminance(time_s)

    def labels(self) -> NDArray[np.uint8]:
        """See Eye."""
        return CLASS_OF_REGION[self._view.regions(self._time_s)]


class Drive:
    """Camera and event sensor in the world of a seed, one step at a time."""

    def __init__(
        self,
        seed: int,
        *,
        camera: Camera,
        pixel: Pixel,
        name: str = "twin",
        start_us: int = 0,
        world: World = "street",
    ) -> None:
        self.name, self.time_us = name, start_us
        self._eye: Eye = (AvenueEye if world == "avenue" else StreetEye)(seed, camera)
        rng = np.random.default_rng((seed, 0, start_us))
        self._luminance = self._look(start_us)
        self._sensor = EventSensor(pixel, rng, self._luminance)
        self._packets = 0
        self._frames = 0

    def step(self, until_us: int) -> Events:
        """Move on to a time; returns the events on the way."""
        stamp = Stamp(
            source=self.name,
            seq=self._packets,
            start_ns=1000 * self.time_us,
            end_ns=1000 * until_us,
        )
        self._luminance = self._look(until_us)
        self.time_us = until_us
        self._packets += 1
        return self._sensor.step(self._luminance, stamp)

    def frame(self) -> Frame:
        """The picture at the present time; the exposure is taken to be very short."""
        stamp = Stamp(
            source=self.name,
            seq=self._frames,
            start_ns=1000 * self.time_us,
            end_ns=1000 * self.time_us,
        )
        self._frames += 1
        image = 255 * np.sqrt(np.clip(self._luminance, 0, 1))
        return Frame(stamp=stamp, image=image.astype(np.uint8))

    def labels(self) -> NDArray[np.uint8]:
        """Classes at the present time, (H, W) uint8 index into `scene.CLASSES`."""
        return self._eye.labels()

    def _look(self, time_us: int) -> NDArray[np.float32]:
        return self._eye.look(time_us * 1e-6)


def samples(
    seed: int,
    *,
    count: int,
    first: int = 0,
    window_us: int = 50_000,
    stride_us: int = 1_500_000,
    camera: Camera,
    pixel: Pixel | None = None,
) -> Iterator[Sample]:
    """Windows first, first + 1, ... of a street, `stride_us` apart, each with frame and truth.

    Each is drawn by itself: a window is the same whichever others are asked for.
    """
    for k in range(first, first + count):
        start_us = k * stride_us
        drive = Drive(seed, camera=camera, pixel=pixel or Pixel(), start_us=start_us)
        drive.step(start_us + WARM_UP_US)
        yield Sample(
            events=_window(drive, window_us, seq=k), frame=drive.frame(), labels=drive.labels()
        )


def _window(drive: Drive, window_us: int, *, seq: int) -> Events:
    """Events of the next `window_us` in one piece."""
    start_us, steps = drive.time_us, math.ceil(window_us / STEP_US)
    parts = [drive.step(start_us + round((k + 1) * window_us / steps)) for k in range(steps)]
    end_us = start_us + window_us
    stamp = Stamp(source=drive.name, seq=seq, start_ns=1000 * start_us, end_ns=1000 * end_us)
    return join(parts, stamp)
