"""From brightness to events: what a DVS pixel does, for a whole sensor.

Between two pictures each pixel's log luminance is taken to move in a straight line, so an event
has its own time and not the picture's. A pixel fires when it has moved by its threshold since the
level it remembers, is then blind for the refractory time, and remembers the level at its end.
Model: Lichtsteiner, Posch and Delbruck (2008) for the pixel; thresholds that differ from pixel to
pixel, leak and shot noise as described for v2e (Hu, Liu and Delbruck, 2021). Not modelled:
photoreceptor bandwidth, arbiter delays and overload.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeperc.jit import kernel
from edgeperc.packet import Events, Stamp

DARK = 0.01
"""Luminance added before the logarithm: dark current, below which a pixel sees no contrast."""


MAX_STEP_US = 65_535
Columns = tuple[NDArray[np.int64], NDArray[np.uint16], NDArray[np.uint16], NDArray[np.bool_]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixel:
    """Constants of the event pixel. Thresholds in units of natural log luminance.

    mismatch: standard deviation of a pixel's thresholds. leak_rate_hz: brighter events of a pixel
    that sees no change. shot_rate_hz: random events of a pixel, either polarity alike.
    """

    threshold: float = 0.3
    mismatch: float = 0.03
    refractory_us: float = 500.0
    leak_rate_hz: float = 0.1
    shot_rate_hz: float = 0.3


class EventSensor:
    """Turns a series of pictures into events; remembers each pixel's level between calls."""

    def __init__(self, pixel: Pixel, rng: np.random.Generator, luminance: NDArray[np.float32]):
        """luminance: (H, W) float32, the picture before the first step.

        A pixel's remembered level starts somewhere within a threshold of it, as if the sensor had
        been running.
        """
        self.pixel, self._rng = pixel, rng
        shape = luminance.shape
        spread = rng.normal(pixel.threshold, pixel.mismatch, (2, *shape))
        self._thresholds = np.clip(spread, 0.05, None).astype(np.float32)
        self._log = np.log(luminance + np.float32(DARK))
        unsettled = rng.uniform(-0.9, 0.9, shape) * pixel.threshold
        self._level = (self._log + unsettled).astype(np.float32)
        self._ready_us = np.zeros(shape, np.float64)
        self._buffers = _buffers(0)

    def step(self, luminance: NDArray[np.float32], stamp: Stamp) -> Events:
        """Events while the picture changed to `luminance`, (H, W) float32, over the stamp's time.

        Steps follow each other without gaps, start and end on whole µs, and last at most 65 ms.
        """
        start_us, end_us = stamp.start_ns // 1000, stamp.end_ns // 1000
        duration_us = end_us - start_us
        if not 0 < duration_us <= MAX_STEP_US:
            raise ValueError(f"a step of {duration_us} µs, must be in 1..{MAX_STEP_US}")
        after = np.log(luminance + np.float32(DARK))
        most = luminance.size * (int(duration_us / self.pixel.refractory_us) + 2)
        if self._buffers[0].size < most:
            self._buffers = _buffers(most)
        count = _fire(
            self._log,
            after,
            self._level,
            self._ready_us,
            self._thresholds,
            (start_us, end_us, self.pixel.refractory_us),
            self.pixel.leak_rate_hz * self.pixel.threshold * 1e-6,
            self._buffers,
        )
        self._log = after
        shots = self._shots(start_us, end_us)
        t, x, y, p = (
            np.concatenate([fired[:count], noise])  # type: ignore[index, arg-type]
            for fired, noise in zip(self._buffers, shots, strict=True)
        )
        order = np.argsort((t - start_us).astype(np.uint16), kind="stable")  # 16 bits: radix sort
        height_px, width_px = luminance.shape
        return Events(
            stamp=stamp,
            t=t[order],
            x=x[order],
            y=y[order],
            p=p[order],
            width_px=width_px,
            height_px=height_px,
        )

    def _shots(self, start_us: int, end_us: int) -> Columns:
        """Random events: t, x, y, p."""
        height, width = self._log.shape
        expected = self.pixel.shot_rate_hz * height * width * (end_us - start_us) * 1e-6
        count = self._rng.poisson(expected)
        return (
            self._rng.integers(start_us, end_us, count),
            self._rng.integers(0, width, count, np.uint16),
            self._rng.integers(0, height, count, np.uint16),
            self._rng.integers(0, 2, count, np.uint8).astype(np.bool_),
        )


def _buffers(size: int) -> Columns:
    """Room for t, x, y, p; memory that is never touched is never taken."""
    return (
        np.empty(size, np.int64),
        np.empty(size, np.uint16),
        np.empty(size, np.uint16),
        np.empty(size, np.bool_),
    )


@kernel()
def _fire(
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    level: NDArray[np.float32],
    ready_us: NDArray[np.float64],
    thresholds: NDArray[np.float32],
    times_us: tuple[int, int, float],
    leak_per_us: float,
    found: Columns,
) -> int:
    """Find all crossings, pixel by pixel; returns how many were written to `found`.

    times_us: start and end of the step, and the refractory time. The leak lowers the remembered
    level; within a step that is the same as brightness that rises faster.
    """
    start_us, end_us, refractory_us = times_us
    t, x, y, p = found
    height, width = before.shape
    count = 0
    for row in range(height):
        for column in range(width):
            time_us = max(ready_us[row, column], float(start_us))
            if time_us >= end_us:
                continue  # blind throughout
            origin = before[row, column]
            slope = (after[row, column] - origin) / (end_us - start_us) + leak_per_us
            target = origin + slope * (end_us - start_us)
            if time_us > start_us:  # wakes up, and remembers what it sees
                level[row, column] = origin + slope * (time_us - start_us)
            while time_us < end_us:
                change = target - level[row, column]
                brighter = change > 0
                threshold = thresholds[int(brighter), row, column]
                if abs(change) < threshold:
                    break
                crossed = level[row, column] + (threshold if brighter else -threshold)
                if slope != 0:  # a level already passed fires at once
                    time_us = max(time_us, start_us + (crossed - origin) / slope)
                t[count] = min(np.int64(time_us), end_us - 1)
                x[count], y[count], p[count] = column, row, brighter
                count += 1
                time_us += refractory_us
                ready_us[row, column] = time_us
                level[row, column] = origin + slope * (time_us - start_us)
            level[row, column] -= leak_per_us * (end_us - start_us)
    return count
