"""A made-up rig that a calibration must find out: two mirrors, a fisheye, and parallax.

Written with rotation matrices and reflections of points, apart from the model that is fitted.
Source: search.md, section 9.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeperc.calibration import IdealLens, Points, RigIdentity, View

Array = NDArray[np.float64]

PX_PER_VOLT = 498.0
RAD_PER_VOLT = np.radians(4.0)
"""What a gaze of one volt is called."""
SIDE_PX = 224
PX_PER_RAD = PX_PER_VOLT / RAD_PER_VOLT


@dataclass(frozen=True)
class TwoMirrors:
    """The rig. x right, y down, z forward; the tilt mirror in the origin, the pan mirror above."""

    gain_deg: tuple[float, float] = (2.02, 1.97)
    cubic_deg: tuple[float, float] = (0.004, -0.003)
    offset_rad: tuple[float, float] = (0.004, -0.003)
    skew: float = 0.01
    gap_m: float = 0.012
    rotation_rad: tuple[float, float, float] = (0.01, -0.015, 0.02)
    offset_m: tuple[float, float, float] = (0.10, 0.03, 0.02)
    focal_px: float = 1900.0
    centre_px: tuple[float, float] = (1920.0, 1080.0)
    k: tuple[float, float] = (-0.09, 0.012)

    def wide_px(self, volt: Array, depth_m: Array) -> Array:
        """Where the wide camera sees what lies depth_m along the search camera's axis."""
        angle = np.radians(self.gain_deg * volt + self.cubic_deg * volt**3) + self.offset_rad
        angle[:, 0] += self.skew * np.radians(2.0) * volt[:, 1]
        pan_at = np.array([0.0, -self.gap_m, 0.0])
        aside = np.array([1.0, 0.0, 0.0])
        eye = np.tile(pan_at + aside, (len(volt), 1))  # looks along -x
        ahead = np.tile(pan_at - aside, (len(volt), 1))
        pan = _turned((1.0, 1.0, 0.0), (0.0, 0.0, -1.0), angle[:, 0])
        tilt = _turned((0.0, -1.0, 1.0), (-1.0, 0.0, 0.0), -angle[:, 1])
        seen_eye = _mirrored(_mirrored(eye, pan_at, pan), np.zeros(3), tilt)
        seen_ahead = _mirrored(_mirrored(ahead, pan_at, pan), np.zeros(3), tilt)
        way = (seen_ahead - seen_eye) / np.linalg.norm(seen_ahead - seen_eye, axis=1)[:, None]
        leaves = seen_eye - way * np.sum(seen_eye * tilt, axis=1, keepdims=True) / np.sum(
            way * tilt, axis=1, keepdims=True
        )
        return self._lens(leaves + way * depth_m[:, None])

    def _lens(self, point: Array) -> Array:
        x, y, z = self.rotation_rad
        about_x = [[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]]
        about_y = [[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]]
        about_z = [[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]]
        at = point @ (np.array(about_z) @ about_y @ about_x).T + self.offset_m
        off_axis = np.arccos(at[:, 2] / np.linalg.norm(at, axis=1))
        radius = self.focal_px * off_axis * (1 + self.k[0] * off_axis**2 + self.k[1] * off_axis**4)
        side = np.arctan2(at[:, 1], at[:, 0])
        seen: Array = np.stack([np.cos(side), np.sin(side)], axis=1) * radius[:, None]
        return seen + self.centre_px


class Truth:
    """The rig from outside: points of it, and how far a model is off."""

    lens = IdealLens.of_view(3840, 2160, np.radians(90))
    view = View(SIDE_PX, PX_PER_VOLT / RAD_PER_VOLT)
    identity = RigIdentity(
        wide="video", search="basler 123", mirror="optotune", width_px=3840, height_px=2160
    )

    def points(
        self, seed: int, count: int, depth_m: tuple[float, float], noise_px: float = 0.5
    ) -> Points:
        """Random commands within +-4.5 V to things at random depths."""
        random = np.random.default_rng(seed)
        return self._seen(random, random.uniform(-4.5, 4.5, (count, 2)), depth_m, noise_px)

    def grid(
        self, seed: int, side: int, depth_m: tuple[float, float], noise_px: float = 0.5
    ) -> Points:
        """Commands in a square of side x side over +-4.5 V, as a calibration takes them."""
        steps = np.linspace(-4.5, 4.5, side)
        volt = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
        return self._seen(np.random.default_rng(seed), volt, depth_m, noise_px)

    def _seen(
        self,
        random: np.random.Generator,
        volt: Array,
        depth_m: tuple[float, float],
        noise_px: float,
    ) -> Points:
        count = len(volt)
        depth = random.uniform(*depth_m, count)
        seen = TwoMirrors().wide_px(volt, depth)
        noise = random.normal(0, noise_px, (count, 2)) if noise_px else 0.0
        return Points(seen + noise, volt * RAD_PER_VOLT, depth)

    def error_px(self, gaze: Array, points: Points) -> Array:
        """(N,) search px between gazes and those of the points."""
        apart: Array = (gaze - points.gaze) * self.view.px_per_rad
        return np.hypot(apart[:, 0], apart[:, 1])


def _turned(normal: tuple[float, ...], axis: tuple[float, ...], angle: Array) -> Array:
    """Unit normals turned about an axis by each angle (Rodrigues)."""
    start, about = np.array(normal) / np.linalg.norm(normal), np.array(axis)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    turned: Array = start * cos + np.cross(about, start) * sin + about * (about @ start) * (1 - cos)
    return turned


def _mirrored(point: Array, on_mirror: Array, normal: Array) -> Array:
    """Points mirrored at planes."""
    beyond = np.sum((point - on_mirror) * normal, axis=1, keepdims=True)
    mirrored: Array = point - 2 * beyond * normal
    return mirrored
