"""The search rig on the roof: where its three sensors stand and how its mirror points.

The wide camera is an upright pinhole camera whose horizon lies above the middle of its picture.
The search camera stands a few cm beside it and looks over a mirror. A gaze of (0, 0) points it
about to the middle of the wide picture; the mirror's scale is not exactly 1, its axes are a little
turned, and its angle bends a little with the command: a calibration has something to find.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeperc.packet import Gaze
from edgeperc.twin.backdrop import Lens
from edgeperc.twin.plots import EYE_M

FIELD_RAD = math.radians(60.0)
"""The wide camera sees so much from left to right."""
DOWN = 448 / 6 / (480 / math.tan(FIELD_RAD / 2))
"""Tangent of the angle by which the middle of the wide picture lies below the horizon: 5.1°."""
SEARCH_FIELD_RAD = math.radians(2.81)
"""The search camera sees so much from left to right."""
DVS_X_M = -0.05
"""The event camera stands so far to the right of the wide camera."""


def wide_lens(width_px: int = 960, height_px: int = 448) -> Lens:
    """The wide camera."""
    return upright(width_px, height_px, width_px / 2 / math.tan(FIELD_RAD / 2))


def upright(width_px: int, height_px: int, focal_px: float, x: float = 0.0, y: float = 0.0) -> Lens:
    """A camera on the roof, x and y m from the wide one, that looks where the wide one looks."""
    return Lens(
        x=x,
        y=EYE_M + y,
        z=0.0,
        width_px=width_px,
        height_px=height_px,
        focal_px=focal_px,
        centre_px=(width_px - 1) / 2,
        horizon_px=(height_px - 1) / 2 - focal_px * DOWN,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """How the mirror's gaze becomes a direction in the world, and where its camera stands.

    x_m, y_m: right of and above the wide camera. gain: of pan and tilt. cubic: added angle over
    angle³, 1/rad². turn_rad: clockwise roll of the mirror's axes. pan_rad, tilt_rad: where a gaze
    of (0, 0) looks, from the wide camera's middle.
    """

    x_m: float = 0.06
    y_m: float = -0.04
    gain: tuple[float, float] = (1.011, 0.992)
    cubic: tuple[float, float] = (0.018, -0.03)
    turn_rad: float = 0.017
    pan_rad: float = 0.009
    tilt_rad: float = -0.007

    @classmethod
    def drawn(cls, seed: int) -> Mount:
        """Another rig of the same make; 0 is the default one."""
        if seed == 0:
            return cls()
        rng = np.random.default_rng((seed, 23))
        pan_gain, tilt_gain = rng.normal(1, 0.01, 2).tolist()
        pan_cubic, tilt_cubic = rng.normal(0, 0.02, 2).tolist()
        return cls(
            x_m=float(rng.uniform(-0.08, 0.08)),
            y_m=float(rng.uniform(-0.08, 0.08)),
            gain=(pan_gain, tilt_gain),
            cubic=(pan_cubic, tilt_cubic),
            turn_rad=float(rng.normal(0, 0.015)),
            pan_rad=float(rng.normal(0, 0.008)),
            tilt_rad=float(rng.normal(0, 0.008)),
        )

    def direction(self, gaze_rad: NDArray[np.float64]) -> NDArray[np.float64]:
        """Azimuth and elevation in the world, rad, of gazes; both (..., 2)."""
        pan, tilt = np.moveaxis(np.asarray(gaze_rad, np.float64), -1, 0)
        across = self.gain[0] * pan + self.cubic[0] * pan**3
        up = self.gain[1] * tilt + self.cubic[1] * tilt**3
        cosine, sine = math.cos(self.turn_rad), math.sin(self.turn_rad)
        azimuth = self.pan_rad + cosine * across + sine * up
        elevation = self.tilt_rad - math.atan(DOWN) - sine * across + cosine * up
        return np.stack([azimuth, elevation], axis=-1)

    def gaze_to(self, direction_rad: NDArray[np.float64]) -> NDArray[np.float64]:
        """Gazes that look in a direction: the inverse of `direction`."""
        wanted = np.asarray(direction_rad, np.float64)
        gaze: NDArray[np.float64] = wanted.copy()
        for _ in range(12):  # gain is near 1, so each round leaves a few hundredths of the error
            gaze += wanted - self.direction(gaze)
        return gaze

    def gaze_at(self, points_m: NDArray[np.float64]) -> NDArray[np.float64]:
        """Gazes that look at points x, y, z of the world, (..., 3); (..., 2) rad."""
        x, y, z = np.moveaxis(np.asarray(points_m, np.float64), -1, 0)
        x, y = x - self.x_m, y - EYE_M - self.y_m
        return self.gaze_to(np.stack([np.arctan2(x, z), np.arctan2(y, np.hypot(x, z))], axis=-1))


def as_array(gaze: Gaze) -> NDArray[np.float64]:
    """(2,) rad."""
    return np.array([gaze.pan_rad, gaze.tilt_rad])
