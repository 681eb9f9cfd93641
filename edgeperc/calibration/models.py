"""Maps between a pixel of the wide picture and the gaze that shows it, and back.

A galvano mirror has no centre of projection (Manakov, Seidel, Ihrke, VMV 2011), so a map that holds
at every depth needs the depth. Arrays: wide_px (N, 2) float64, u right and v down, from the corner
of the picture, so that pixel k covers k to k + 1; gaze (N, 2) float64, pan and tilt in rad, right
and up positive; inverse_depth (N,) float64, 1/m along the ray, 0 = far away. Rows that are not
finite come back as NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
_ROUNDS = 12
_CLOSE_RAD = 1e-7
_CLOSE_PX = 1e-3
_WIDEST_PINHOLE_RAD = np.radians(110)


class Model(Protocol):
    """A map of one kind, fitted."""

    @property
    def name(self) -> str:
        """As in the calibration file."""

    @property
    def needs_depth(self) -> bool:
        """Whether `inverse_depth` matters."""

    def gaze(self, wide_px: Array, inverse_depth: Array) -> Array:
        """The gaze that shows each pixel's object in the middle of the search picture."""

    def wide_px(self, gaze: Array, inverse_depth: Array) -> Array:
        """The pixel that each gaze shows; NaN where none was found."""


@dataclass(frozen=True)
class IdealLens:
    """No calibration at all: a lens of known field of view, on the mirror's own axis.

    Pan is the angle to the side, tilt the elevation above the plane of pan. fisheye: the distance
    from the middle grows with the angle, not with its tangent.
    """

    centre_px: tuple[float, float]
    focal_px: float
    fisheye: bool = False
    name = "ideal lens"
    needs_depth = False

    @classmethod
    def of_view(cls, width_px: int, height_px: int, width_rad: float) -> IdealLens:
        """From the size of the wide picture and the angle that its width spans.

        A pinhole up to 110 degrees; wider ones are built as fisheyes.
        """
        fisheye = bool(width_rad > _WIDEST_PINHOLE_RAD)
        focal_px = width_px / (width_rad if fisheye else 2 * np.tan(width_rad / 2))
        return cls((width_px / 2, height_px / 2), float(focal_px), fisheye)

    def gaze(self, wide_px: Array, inverse_depth: Array) -> Array:
        """See Model."""
        right, down = ((wide_px - self.centre_px) / self.focal_px).T
        ahead = np.ones_like(right)
        if self.fisheye:
            angle = np.hypot(right, down)
            ahead, stretch = np.cos(angle), np.sinc(angle / np.pi)
            right, down = right * stretch, down * stretch
        pan = np.arctan2(right, ahead)
        return np.stack([pan, -np.arctan2(down, np.hypot(right, ahead))], axis=1)

    def wide_px(self, gaze: Array, inverse_depth: Array) -> Array:
        """See Model."""
        pan, tilt = gaze.T
        right, down, ahead = np.sin(pan) * np.cos(tilt), -np.sin(tilt), np.cos(pan) * np.cos(tilt)
        if self.fisheye:
            stretch = 1 / np.sinc(np.arctan2(np.hypot(right, down), ahead) / np.pi)
        else:
            stretch = 1 / np.where(ahead > 0, ahead, np.nan)
        seen = np.stack([right, down], axis=1) * (self.focal_px * stretch[:, None])
        return np.asarray(seen + self.centre_px)


@dataclass(frozen=True, eq=False)
class Polynomial:
    """Ten terms of third degree an axis, and with thirteen also (1, u, v)/z.

    u and v: the pixel, or, with from_angles, the gaze that an ideal lens would need for it, which
    leaves little to be bent where the wide lens is like that. centre and scale, (2,), bring those
    of the points into [-1, 1]; beyond, it extrapolates. coefficients: (2, 10) or (2, 13) rad; a
    column of the last three is rad * m.
    """

    lens: IdealLens
    from_angles: bool
    centre: Array
    scale: Array
    coefficients: Array

    @property
    def name(self) -> Literal["cubic", "cubic-1z"]:
        """See Model."""
        return "cubic-1z" if self.needs_depth else "cubic"

    @property
    def needs_depth(self) -> bool:
        """See Model."""
        return bool(self.coefficients.shape[1] == 13)

    def gaze(self, wide_px: Array, inverse_depth: Array) -> Array:
        """See Model."""
        return self._bent(start_of(self.lens, wide_px, self.from_angles), inverse_depth)

    def wide_px(self, gaze: Array, inverse_depth: Array) -> Array:
        """See Model. Newton from the linear part."""
        constant, slope = self.coefficients[:, 0], self.coefficients[:, 1:3]
        start = np.linalg.solve(slope, (gaze - constant).T).T * self.scale + self.centre
        step = 1e-4 * self.scale
        found = solve(lambda at: self._bent(at, inverse_depth), gaze, start, step=step)
        return self.lens.wide_px(found, inverse_depth) if self.from_angles else found

    def terms(self, start: Array, inverse_depth: Array) -> Array:
        """What the coefficients multiply, (N, 10) or (N, 13)."""
        cubic = cubic_terms((start - self.centre) / self.scale)
        if not self.needs_depth:
            return cubic
        return np.concatenate([cubic, cubic[:, :3] * inverse_depth[:, None]], axis=1)

    def _bent(self, start: Array, inverse_depth: Array) -> Array:
        gaze: Array = self.terms(start, inverse_depth) @ self.coefficients.T
        return gaze


def start_of(lens: IdealLens, wide_px: Array, from_angles: bool) -> Array:
    """What a polynomial bends: the pixels as they are, or the gazes of an ideal lens."""
    return lens.gaze(wide_px, np.zeros(len(wide_px))) if from_angles else wide_px


@dataclass(frozen=True)
class Physical:
    """Two plane mirrors behind one another and a fisheye lens: 17 parameters and a first guess.

    The search camera's axis meets the pan mirror, `gap_m` above the tilt mirror, which sends it
    forward. Mirror angles: gaze / 2 times a gain, plus a cubic term, an offset and, for pan, a
    skew times tilt. Rotation (a vector, rad) and translation (m) bring a point from the mirror's
    frame, x right, y up, z forward, to the wide camera's, x right, y down, z forward. Lens:
    r = focal_px (a + k1 a^3 + k2 a^5), a the angle to the axis, about the picture's centre (a
    shift of which is a rotation); a pinhole has k1 = 1/3, k2 = 2/15.
    """

    centre_px: tuple[float, float]
    guess: Polynomial
    focal_px: float
    k1: float = 0.0
    k2: float = 0.0
    gain_pan: float = 1.0
    gain_tilt: float = 1.0
    cubic_pan: float = 0.0
    cubic_tilt: float = 0.0
    offset_pan_rad: float = 0.0
    offset_tilt_rad: float = 0.0
    skew: float = 0.0
    gap_m: float = 0.0
    rotation_x_rad: float = 0.0
    rotation_y_rad: float = 0.0
    rotation_z_rad: float = 0.0
    translation_x_m: float = 0.0
    translation_y_m: float = 0.0
    translation_z_m: float = 0.0
    name = "physical"
    needs_depth = True

    def gaze(self, wide_px: Array, inverse_depth: Array) -> Array:
        """See Model. Newton from the cubic guess."""
        start = self.guess.gaze(wide_px, inverse_depth)
        return solve(
            lambda gaze: self.wide_px(gaze, inverse_depth),
            wide_px,
            start,
            step=np.full(2, 1e-5),
            close=_CLOSE_PX,
        )

    def wide_px(self, gaze: Array, inverse_depth: Array) -> Array:
        """See Model."""
        origin, direction = self.rays(gaze)
        # Homogeneous, so that a depth of infinity is a point like any other.
        point = (direction + origin * inverse_depth[:, None]) * (1.0, -1.0, 1.0)
        translation = np.array([self.translation_x_m, self.translation_y_m, self.translation_z_m])
        point = point @ self._rotation().T + translation * inverse_depth[:, None]
        across = np.hypot(point[:, 0], point[:, 1])
        angle = np.arctan2(across, point[:, 2])
        radius = self.focal_px * angle * (1 + self.k1 * angle**2 + self.k2 * angle**4)
        stretch = radius / np.maximum(across, 1e-12)
        seen: Array = point[:, :2] * stretch[:, None] + self.centre_px
        return seen

    def rays(self, gaze: Array) -> tuple[Array, Array]:
        """Where the search camera's axis leaves the tilt mirror, and its direction, (N, 3) each."""
        pan, tilt = gaze.T
        turn = self.gain_tilt * tilt + self.cubic_tilt * tilt**3 + self.offset_tilt_rad
        aside = self.gain_pan * pan + self.cubic_pan * pan**3 + self.offset_pan_rad
        aside = aside + self.skew * tilt
        down = np.stack([np.sin(aside), -np.cos(aside), np.zeros_like(aside)], axis=1)
        half = np.pi / 4 - turn / 2  # the tilt mirror's normal, from straight up towards forward
        normal = np.stack([np.zeros_like(half), np.cos(half), np.sin(half)], axis=1)
        facing = np.sum(down * normal, axis=1, keepdims=True)
        way = -self.gap_m * normal[:, 1:2] / facing
        origin = np.array([0.0, self.gap_m, 0.0]) + way * down
        return origin, down - 2 * facing * normal

    def _rotation(self) -> Array:
        vector = np.array([self.rotation_x_rad, self.rotation_y_rad, self.rotation_z_rad])
        angle = float(np.linalg.norm(vector))
        x, y, z = vector / max(angle, 1e-12)
        cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
        turned: Array = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
        return turned


PARAMETERS = tuple(f.name for f in fields(Physical) if f.name not in ("centre_px", "guess"))
"""The 17 numbers of the physical model, in the order in which they are fitted."""


def cubic_terms(xy: Array) -> Array:
    """All products of x and y up to degree three, (N, 10), low degrees first."""
    x, y = xy.T
    return np.stack(
        [np.ones_like(x), x, y, x * x, x * y, y * y, x**3, x * x * y, x * y * y, y**3], axis=1
    )


def solve(
    function: Callable[[Array], Array],
    target: Array,
    start: Array,
    *,
    step: Array,
    close: float = _CLOSE_RAD,
) -> Array:
    """Where a smooth map of the plane takes the values `target`, (N, 2), each row for itself.

    Newton with derivatives over `step`, (2,); a row that is not within `close` in the end is NaN.
    """
    at = np.array(start, np.float64)
    right, up = np.diag(step)
    with np.errstate(all="ignore"):
        for _ in range(_ROUNDS):
            miss = function(at) - target
            if not np.any(np.abs(miss) > close * 1e-3):  # NaN rows are beyond help
                break
            along_x = (function(at + right) - function(at - right)) / (2 * step[0])
            along_y = (function(at + up) - function(at - up)) / (2 * step[1])
            determinant = along_x[:, 0] * along_y[:, 1] - along_x[:, 1] * along_y[:, 0]
            at[:, 0] -= (miss[:, 0] * along_y[:, 1] - miss[:, 1] * along_y[:, 0]) / determinant
            at[:, 1] -= (miss[:, 1] * along_x[:, 0] - miss[:, 0] * along_x[:, 1]) / determinant
        off = ~(np.abs(function(at) - target).max(axis=1, initial=0.0) < close)
    at[off] = np.nan
    return at
