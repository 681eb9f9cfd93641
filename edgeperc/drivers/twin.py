"""The digital twin as an event camera that also takes pictures: in a street, or on a roof."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Annotated

import msgspec

from edgeperc.clock import Clock
from edgeperc.packet import Events, Frame
from edgeperc.twin.drive import STEP_US, Drive, World
from edgeperc.twin.event_sensor import Pixel
from edgeperc.twin.scene import Camera

Size = Annotated[int, msgspec.Meta(ge=16, le=2048)]
Rate = Annotated[float, msgspec.Meta(gt=0, le=1000)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Seed = Annotated[int, msgspec.Meta(ge=0)]


class Twin:
    """Frames and events of a procedural world, on one clock that starts at 0.

    The same arguments give the same packets, whatever the clock's speed. world: "street", driven
    through, or "avenue", which the search rig's cameras see too. seed: which street or avenue.
    focal_px: the default sees 60° of it at 346 px. threshold, mismatch, refractory_us,
    leak_rate_hz, shot_rate_hz: see `edgeperc.twin.event_sensor.Pixel`. duration_s: None = no end.
    """

    def __init__(
        self,
        *,
        name: str,
        clock: Clock,
        world: World = "street",
        seed: Seed = 0,
        frame_rate_hz: Rate = 25.0,
        width_px: Size = 346,
        height_px: Size = 260,
        focal_px: Annotated[float, msgspec.Meta(gt=0)] = 300.0,
        threshold: Annotated[float, msgspec.Meta(ge=0.05, le=2)] = 0.3,
        mismatch: NotNegative = 0.03,
        refractory_us: Annotated[float, msgspec.Meta(ge=50)] = 500.0,
        leak_rate_hz: NotNegative = 0.1,
        shot_rate_hz: NotNegative = 0.3,
        duration_s: NotNegative | None = None,
    ) -> None:
        pixel = Pixel(
            threshold=threshold,
            mismatch=mismatch,
            refractory_us=refractory_us,
            leak_rate_hz=leak_rate_hz,
            shot_rate_hz=shot_rate_hz,
        )
        camera = Camera(width_px=width_px, height_px=height_px, focal_px=focal_px)
        self._drive = Drive(seed, camera=camera, pixel=pixel, name=name, world=world)
        self._clock = clock
        self._frame_rate_hz = frame_rate_hz
        self._end_us = math.inf if duration_s is None else round(duration_s * 1e6)
        self._closed = threading.Event()

    def packets(self) -> Iterator[Events | Frame]:
        """Yield events, at most 10 ms at a time, and after each frame period its frame."""
        steps_a_frame = math.ceil(1e6 / self._frame_rate_hz / STEP_US)
        step_us = 1e6 / self._frame_rate_hz / steps_a_frame
        step = 0
        while not self._closed.is_set():
            step += 1
            until_us = round(step * step_us)
            if until_us > self._end_us or not self._clock.wait_until(until_us * 1000):
                return
            yield self._drive.step(until_us)
            if step % steps_a_frame == 0:
                yield self._drive.frame()

    def close(self) -> None:
        """Stop after the packet in hand."""
        self._closed.set()
