"""Correspondences from the rig itself: look around, and find each look in the wide picture."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeperc.calibration.fit import View
from edgeperc.calibration.locate import locate, slope_of
from edgeperc.calibration.models import Array, Model
from edgeperc.errors import DataError
from edgeperc.packet import Gaze, GazeRange, Mirror

FIRST_WINDOW_RAD = np.radians(5.0)
NEXT_WINDOW_RAD = np.radians(0.4)
_FEWEST_SEEDS = 5
_MOST_SEEDS = 24
_LEAST_AREA = 0.01
_GOOD_PX = 2.0
_SAME_PX = 0.7

Picture = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Eyes:
    """The rig, as far as it is needed to collect.

    wide, search: take a picture now, (H, W) or (H, W, 3) uint8. wait_until: sleeps until a time of
    the mirror's clock, False to give up. search_rad: angle that the width of the search picture
    spans.
    """

    wide: Callable[[], Picture]
    search: Callable[[], Picture]
    mirror: Mirror
    wait_until: Callable[[int], bool]
    search_rad: float


@dataclass
class Collected:
    """wide_px and gaze, (N, 2) each, of the looks that were found twice in the same place.

    picture_px: width and height of the wide picture. view: of the search camera. tried: how many
    looks were made. refused: reason -> how many looks it cost.
    """

    wide_px: Array
    gaze: Array
    picture_px: tuple[int, int]
    view: View
    tried: int
    refused: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        text = f"{len(self.gaze)} of {self.tried} looks were found in the wide picture"
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.refused.most_common())
        return f"{text} (not found: {reasons})" if reasons else text


def collect(
    eyes: Eyes,
    guess: Model,
    *,
    grid: int = 8,
    on_look: Callable[[int, int, int], None] = lambda _done, _total, _found: None,
) -> Collected:
    """Look at grid x grid gazes, three times each, and find the looks in the wide picture.

    guess: about where a gaze shows up; it may be some degrees off. The first round searches far
    around it and trusts only what is alike in one place; what these looks have in common tells
    the other two rounds where to search, so closely that one window of a house is not taken for
    the next. A look is kept if these two agree; what they saw move is refused. on_look: told
    looks done, looks in all and looks found. Raises DeviceError if a camera or the mirror is
    lost, DataError if it is told to give up or the looks have nothing in common.
    """
    eyes.mirror.aim(Gaze(pan_rad=0.0, tilt_rad=0.0))
    (height_px, width_px), search_px = eyes.wide().shape[:2], eyes.search().shape[:2]
    view = View(min(search_px), search_px[1] / eyes.search_rad)
    gazes = _grid(eyes.mirror.range, guess, (width_px, height_px), view, grid)
    rounds: list[list[Look | str]] = []

    def look_around(order: list[Gaze], near: Near, window_rad: float) -> list[Look | str]:
        looks: list[Look | str] = []
        for gaze in order:
            looks.append(_look(eyes, view.px_per_rad, gaze, guess, near, window_rad))
            found = sum(isinstance(look, Look) for look in looks)
            on_look(len(rounds) * len(gazes) + len(looks), 3 * len(gazes), found)
        return looks

    rounds.append(look_around(gazes, _nothing_known, FIRST_WINDOW_RAD))
    near = _agreed([look for look in rounds[0] if isinstance(look, Look)])
    rounds.append(look_around(gazes, near, NEXT_WINDOW_RAD))
    rounds.append(look_around(gazes[::-1], near, NEXT_WINDOW_RAD)[::-1])
    wide_px, gaze, refused = _kept(rounds[1], rounds[2])
    return Collected(wide_px, gaze, (width_px, height_px), view, len(gazes), refused)


@dataclass(frozen=True, eq=False)
class Look:
    """gaze: (2,) rad, as measured. wide_px: (2,) px, where it was found. off_px: from the guess."""

    gaze: Array
    wide_px: Array
    off_px: Array


Near: TypeAlias = Callable[[Array], Array]
"""From a gaze, (2,) rad, to how far from the guess it is expected, (2,) px."""


def _nothing_known(_gaze: Array) -> Array:
    return np.zeros(2)


def _look(
    eyes: Eyes, px_per_rad: float, gaze: Gaze, guess: Model, near: Near, window_rad: float
) -> Look | str:
    """Aim, wait, take both pictures and compare; a word if they do not match."""
    eyes.mirror.aim(gaze)
    if not eyes.wait_until(eyes.mirror.settled_ns()):
        raise DataError("stopped before all points were collected")
    measured = eyes.mirror.measured()
    search, wide = eyes.search(), eyes.wide()
    at = np.array([measured.pan_rad, measured.tilt_rad])
    guessed = _wide_px(guess, at[None])[0]
    slope = slope_of(lambda gazes: _wide_px(guess, gazes), at, px_per_rad)
    wide_px_per_rad = float(np.sqrt(abs(np.linalg.det(slope)))) * px_per_rad
    found = locate(
        search,
        wide,
        near_px=guessed + near(at),
        slope=slope,
        window_px=window_rad * wide_px_per_rad,
    )
    return found if isinstance(found, str) else Look(at, found.wide_px, found.wide_px - guessed)


def _agreed(looks: list[Look]) -> Near:
    """What most looks have in common: the guess is off by an affine map of the gaze.

    Least median of squares over all triples of looks, or some of them.
    """
    if len(looks) < _FEWEST_SEEDS:
        raise DataError(
            f"{len(looks)} looks were found in the wide picture, need {_FEWEST_SEEDS} at first",
            hint="do both cameras see the same, in focus, and are [field] wide_deg and search_deg"
            " right? Look at a scene with more texture",
        )
    basis = np.array([[1.0, *look.gaze] for look in looks])
    off_px = np.array([look.off_px for look in looks])
    triples = np.array(list(itertools.combinations(range(min(len(looks), _MOST_SEEDS)), 3)))
    triples = triples[np.abs(np.linalg.det(basis[triples])) > _LEAST_AREA]
    if not len(triples):
        raise DataError("what was found lies on one line", hint="use a scene with more texture")
    maps = np.linalg.solve(basis[triples], off_px[triples])
    miss_px = np.linalg.norm(basis @ maps - off_px, axis=2)
    best = int(np.argmin(np.median(miss_px, axis=1)))
    good = miss_px[best] <= max(3.0 * float(np.median(miss_px[best])), _GOOD_PX)
    affine = np.linalg.lstsq(basis[good], off_px[good], rcond=None)[0]
    return lambda gaze: np.asarray(np.array([1.0, *gaze]) @ affine, np.float64)


def _kept(second: list[Look | str], third: list[Look | str]) -> tuple[Array, Array, Counter[str]]:
    """Pixels and gazes of the looks that were found twice in one place, and why not the others."""
    refused: Counter[str] = Counter()
    kept: list[tuple[Array, Array]] = []
    for one, other in zip(second, third, strict=True):
        if isinstance(one, str) or isinstance(other, str):
            refused[one if isinstance(one, str) else str(other)] += 1
        elif np.abs(one.wide_px - other.wide_px).max() > _SAME_PX:
            refused["moving"] += 1
        else:
            kept.append(((one.wide_px + other.wide_px) / 2, (one.gaze + other.gaze) / 2))
    table = np.array(kept).reshape(len(kept), 2, 2)
    return table[:, 0], table[:, 1], refused


def _wide_px(model: Model, gazes: Array) -> Array:
    return model.wide_px(gazes, np.zeros(len(gazes)))


def _grid(
    limits: GazeRange, guess: Model, picture_px: tuple[int, int], view: View, grid: int
) -> list[Gaze]:
    """Gazes that the mirror reaches and that the wide camera sees whole, middle first."""
    low = np.array([limits.lowest.pan_rad, limits.lowest.tilt_rad])
    high = np.array([limits.highest.pan_rad, limits.highest.tilt_rad])
    right, bottom = picture_px
    middle = (right / 2, bottom / 2)
    edges = np.array([(0, middle[1]), (right, middle[1]), (middle[0], bottom), (middle[0], 0)])
    left, far_right, down, up = guess.gaze(edges, np.zeros(4))
    margin = view.side_px / 2 / view.px_per_rad + NEXT_WINDOW_RAD
    low = np.maximum(low, np.array([left[0], down[1]]) + margin)
    high = np.minimum(high, np.array([far_right[0], up[1]]) - margin)
    if not (high > low).all():
        raise DataError("the mirror reaches nothing that the wide camera sees")
    centre, half = (low + high) / 2, (high - low) / 2
    steps = np.linspace(-1, 1, grid)
    pan, tilt = (m.ravel() for m in np.meshgrid(steps, steps))
    order = np.argsort(np.hypot(pan, tilt), kind="stable")
    at = centre + half * np.stack([pan, tilt], axis=1)[order]
    return [Gaze(pan_rad=float(p), tilt_rad=float(t)) for p, t in at]
