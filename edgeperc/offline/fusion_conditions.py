"""Light and motion under which the twin's frames and events are made: day, night, glare, speed.

A frame is the mean of what was seen while the shutter was open, with a veil of stray light, the
sensor's noise and its limits; events come from the same light. How much darker night is, and how
noisy the sensors are, is our choice and of no measured camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeperc.twin.event_sensor import Pixel

Light = NDArray[np.float32]

READ_NOISE, SHOT_NOISE = 0.006, 0.01
"""Standard deviations of a frame's signal, of which 1 is white by day: constant, and at white."""
NIGHT_SHOT_RATE_HZ = 3.0
"""Random events of a pixel at night; ten times those of the day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Ranges that a sample's light and motion are drawn from, evenly; of night evenly in decades.

    light: of that by day, as the frame sees it; the event sensor, whose range is wider, loses the
    square root of it. gain: of the frame. glare: brightness of the stray light's middle. speed: of
    the world. steps: of the world's pictures over a window. open_steps: so many of these before and
    after the middle the shutter is open, too.
    """

    light: tuple[float, float] = (1.0, 1.0)
    gain: float = 1.0
    glare: tuple[float, float] = (0.0, 0.0)
    speed: tuple[float, float] = (1.0, 1.0)
    steps: int = 6
    open_steps: int = 0


CONDITIONS = {
    "day": Condition(),
    "night": Condition(light=(0.006, 0.04), gain=8.0, open_steps=1),
    "glare": Condition(glare=(1.0, 4.0)),
    "fast": Condition(speed=(3.0, 6.0), steps=12, open_steps=3),
    "night-fast": Condition(
        light=(0.006, 0.04), gain=8.0, speed=(3.0, 6.0), steps=12, open_steps=3
    ),
    "night-glare": Condition(light=(0.006, 0.04), gain=8.0, glare=(4.0, 16.0), open_steps=1),
}
TRAINED = ("day", "night", "glare", "fast")
"""What networks learn from; the others they have never seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """One draw of a condition. veil: (H, W) float32 stray light, 1 = white by day, if any."""

    condition: Condition
    light: float
    speed: float
    veil: Light | None

    @classmethod
    def draw(
        cls, condition: Condition, rng: np.random.Generator, shape: tuple[int, int]
    ) -> Circumstances:
        """Draw light, speed and the place of the glare for pictures of a shape (H, W)."""
        light = float(np.exp(rng.uniform(*np.log(condition.light))))
        speed = float(rng.uniform(*condition.speed))
        glare = float(rng.uniform(*condition.glare))
        veil = _veil(glare, rng, shape) if condition.glare[1] else None
        return cls(condition=condition, light=light, speed=speed, veil=veil)

    def pixel(self) -> Pixel:
        """The event pixel's constants in this light."""
        return Pixel(shot_rate_hz=NIGHT_SHOT_RATE_HZ) if self.light < 1 else Pixel()

    def for_events(self, seen: Light) -> Light:
        """What the event sensor gets of a luminance, (H, W)."""
        veiled = seen if self.veil is None else seen + self.veil
        return np.asarray(veiled * np.float32(self.light**0.5), np.float32)

    def expose(self, seen: Light, rng: np.random.Generator) -> NDArray[np.uint8]:
        """The frame of a mean luminance, (H, W) uint8."""
        veiled = seen if self.veil is None else seen + self.veil
        signal = veiled * np.float32(self.light)
        noise = rng.standard_normal(seen.shape, np.float32)
        noise *= np.sqrt(np.float32(READ_NOISE**2) + np.float32(SHOT_NOISE**2) * signal)
        amplified = np.float32(self.condition.gain) * (signal + noise)
        return np.asarray(255 * np.sqrt(amplified.clip(0, 1)), np.uint8)


def _veil(glare: float, rng: np.random.Generator, shape: tuple[int, int]) -> Light:
    """A disc of light in the upper half with a halo around it, (H, W) float32."""
    height, width = shape
    x, y = rng.uniform(0.1, 0.9) * width, rng.uniform(0.15, 0.55) * height
    rows, columns = np.ogrid[:height, :width]
    distance = np.hypot(columns - x, rows - y) / width
    core, halo = np.exp(-((distance / 0.08) ** 2)), 0.25 / (1 + (distance / 0.15) ** 2)
    return np.asarray(glare * (core + halo), np.float32)
