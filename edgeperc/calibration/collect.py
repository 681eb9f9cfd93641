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
from edgeperc.calibration.locate import grey, locate, slope_of
from edgeperc.calibration.models import Array, Model, cubic_terms
from edgeperc.errors import DataError
from edgeperc.packet import Gaze, GazeRange, Mirror

FIRST_WINDOW_RAD = np.radians(5.0)
NEXT_WINDOW_RAD = np.radians(0.35)
_MARGIN_PX = 3.0
_LEAST_STRUCTURE = 0.5
_FEWEST_SEEDS = 5
_SURE_LEAD = 0.08
_TRIPLES = 500
_LEAST_AREA = 0.005
_TOLERANCES_PX = (10.0, 5.0, 3.0)
_SAME_PX = 0.7

_WHAT_TO_TRY = (
    "do both cameras see the same, in focus, and are [field] wide_deg and search_deg right?"
    " Look at a scene with more texture"
)

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

    wide: a picture of the wide camera. search_size_px: width and height. tried: how many places
    were thought of. refused: reason -> how many of them it cost.
    """

    wide_px: Array
    gaze: Array
    wide: Picture
    search_size_px: tuple[int, int]
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
    """Look at up to grid x grid places, three times each, and find them in the wide picture.

    guess: about where a gaze shows up; it may be some degrees off. The first round searches far
    around it and trusts what is alike in one place only; what the looks of a round have in common
    tells the next one where to search, so closely that one window of a house is not taken for the
    next. A look is kept if the last two agree; what they saw move is refused. on_look: told looks
    done, looks in all and looks found. Raises DeviceError if a camera or the mirror is
    lost, DataError if it is told to give up or the looks have nothing in common.
    """
    eyes.mirror.aim(Gaze(pan_rad=0.0, tilt_rad=0.0))
    wide, search_px = eyes.wide(), eyes.search().shape[:2]
    view = View(min(search_px), search_px[1] / eyes.search_rad)
    half_px = view.side_px / 2 * _scale(guess, np.zeros(2), view)
    spots = spots_of(wide, grid, half_px, _reached_px(eyes.mirror.range, guess))
    rounds: list[list[Look | str]] = []

    def look_around(near: Near, window_rad: float) -> list[Look | str]:
        looks: list[Look | str] = []
        for spot in spots:
            looks.append(_look(eyes, view, spot, guess, near, window_rad))
            found = sum(isinstance(look, Look) for look in looks)
            on_look(len(rounds) * len(spots) + len(looks), 3 * len(spots), found)
        return looks

    rounds.append(look_around(_nothing_known, FIRST_WINDOW_RAD))
    rounds.append(look_around(_agreed(rounds[0]), NEXT_WINDOW_RAD))
    rounds.append(look_around(_agreed(rounds[1]), NEXT_WINDOW_RAD))
    wide_px, gaze, refused = _kept(rounds[1], rounds[2])
    refused["no contrast"] += grid * grid - len(spots)
    size_px = (int(search_px[1]), int(search_px[0]))
    return Collected(wide_px, gaze, wide, size_px, grid * grid, +refused)


def spots_of(wide: Picture, grid: int, half_px: float, reached_px: Array) -> Array:
    """The place with most to hold on to in each of grid x grid fields of a picture, (N, 2) px.

    half_px: half the side of what a look covers; it lies within the picture. reached_px: corners
    of what the mirror reaches, (2, 2). Fields without structure in both directions (Shi and Tomasi
    1994) have none. Middle ones first. Raises DataError if the mirror reaches nothing of it.
    """
    import cv2

    side = 2 * int(half_px) + 1
    picture = cv2.GaussianBlur(grey(wide), (0, 0), 1.0)
    structure = cv2.boxFilter(cv2.cornerMinEigenVal(picture, 3), -1, (side, side))
    margin = half_px + _MARGIN_PX
    low = np.maximum(reached_px[0], margin)
    high = np.minimum(reached_px[1], np.array(wide.shape[1::-1]) - margin)
    if (high - low).min() < grid:
        raise DataError(
            "the mirror reaches nothing that the wide camera sees",
            hint="is [field] wide_deg right, and the mirror's range?",
        )
    columns, rows = np.linspace(low, high, grid + 1).astype(int).T
    spots: list[tuple[float, float]] = []
    for top, bottom in itertools.pairwise(rows):
        for left, right in itertools.pairwise(columns):
            field = structure[top:bottom, left:right]
            if field.max() < _LEAST_STRUCTURE:
                continue
            row, column = np.unravel_index(np.argmax(field), field.shape)
            spots.append((left + int(column) + 0.5, top + int(row) + 0.5))
    found = np.array(spots).reshape(-1, 2)
    return found[np.argsort(np.linalg.norm(found - (low + high) / 2, axis=1), kind="stable")]


def _reached_px(limits: GazeRange, guess: Model) -> Array:
    """Corners of the rectangle around all that the mirror reaches, (2, 2) px; perhaps infinite."""
    along = np.linspace(0, 1, 9)
    pan, tilt = (
        low + (high - low) * along
        for low, high in (
            (limits.lowest.pan_rad, limits.highest.pan_rad),
            (limits.lowest.tilt_rad, limits.highest.tilt_rad),
        )
    )
    everywhere = np.stack(np.meshgrid(pan, tilt), axis=-1).reshape(-1, 2)
    seen = _wide_px(guess, everywhere)
    beyond = np.isnan(seen)
    low = np.where(beyond, -np.inf, seen).min(axis=0)
    high = np.where(beyond, np.inf, seen).max(axis=0)
    return np.stack([low, high])


@dataclass(frozen=True, eq=False)
class Look:
    """gaze: (2,) rad, as measured. wide_px: (2,), where it was found. off_px: from the guess."""

    gaze: Array
    wide_px: Array
    off_px: Array
    lead: float


Near: TypeAlias = Callable[[Array], Array]
"""From a gaze, (2,) rad, to how far from the guess it is expected, (2,) px."""


def _nothing_known(_gaze: Array) -> Array:
    return np.zeros(2)


def _look(
    eyes: Eyes, view: View, spot_px: Array, guess: Model, near: Near, window_rad: float
) -> Look | str:
    """Aim, wait, take both pictures and compare; a word if they do not match."""
    gaze = _gaze_at(spot_px, guess, near)
    if eyes.mirror.range.clip(gaze) != gaze:
        return "out of the mirror's reach"
    eyes.mirror.aim(gaze)
    if not eyes.wait_until(eyes.mirror.settled_ns()):
        raise DataError("stopped before all points were collected")
    measured = eyes.mirror.measured()
    search, wide = eyes.search(), eyes.wide()
    at = np.array([measured.pan_rad, measured.tilt_rad])
    guessed = _wide_px(guess, at[None])[0]
    found = locate(
        search,
        wide,
        near_px=guessed + near(at),
        slope=slope_of(lambda gazes: _wide_px(guess, gazes), at, view.px_per_rad),
        window_px=window_rad * view.px_per_rad * _scale(guess, at, view),
    )
    if isinstance(found, str):
        return found
    return Look(at, found.wide_px, found.wide_px - guessed, found.lead)


def _gaze_at(spot_px: Array, guess: Model, near: Near) -> Gaze:
    """The gaze that is expected to show a place of the wide picture."""
    at = np.zeros(2)
    for _ in range(3):  # `near` hardly changes over its own length
        at = guess.gaze((spot_px - near(at))[None], np.zeros(1))[0]
    return Gaze(pan_rad=float(at[0]), tilt_rad=float(at[1]))


def _scale(guess: Model, at: Array, view: View) -> float:
    """Wide px by search px near a gaze."""
    slope = slope_of(lambda gazes: _wide_px(guess, gazes), at, view.px_per_rad)
    return float(np.sqrt(abs(np.linalg.det(slope))))


def _agreed(all_looks: list[Look | str]) -> Near:
    """What most looks have in common: how the guess is off, a quadratic map of the gaze.

    An affine one is found first, by least median of squares over triples, and then bent while
    looks that do not follow are left out. Only looks that are alike in one place by far count, if
    they are enough. Raises DataError if most looks do not agree.
    """
    looks = [look for look in all_looks if isinstance(look, Look)]
    sure = [look for look in looks if look.lead >= _SURE_LEAD]
    looks = sure if len(sure) >= 2 * _FEWEST_SEEDS else looks
    if len(looks) < _FEWEST_SEEDS:
        raise DataError(
            f"{len(looks)} looks were found in the wide picture, need {_FEWEST_SEEDS} at first",
            hint=_WHAT_TO_TRY,
        )
    gaze = np.array([look.gaze for look in looks])
    off_px = np.array([look.off_px for look in looks])
    affine = cubic_terms(gaze)[:, :3]
    triples = np.random.default_rng(0).random((_TRIPLES, len(looks))).argsort(axis=1)[:, :3]
    triples = triples[np.abs(np.linalg.det(affine[triples])) > _LEAST_AREA]
    if not len(triples):
        raise DataError("the looks that were found lie on one line", hint=_WHAT_TO_TRY)
    maps = np.linalg.solve(affine[triples], off_px[triples])
    miss_px = np.median(np.linalg.norm(affine @ maps - off_px, axis=2), axis=1)
    best, terms = maps[np.argmin(miss_px)], 3
    for tolerance_px in _TOLERANCES_PX:
        basis = cubic_terms(gaze)[:, :terms]
        good = np.linalg.norm(basis @ best - off_px, axis=1) < tolerance_px
        terms = 6 if good.sum() >= 12 else 3
        if good.sum() < max(_FEWEST_SEEDS, len(looks) / 2):
            raise DataError(
                f"only {good.sum()} of {len(looks)} looks that were found agree", hint=_WHAT_TO_TRY
            )
        best = np.linalg.lstsq(cubic_terms(gaze[good])[:, :terms], off_px[good], rcond=None)[0]
    return lambda at: np.asarray((cubic_terms(at[None])[:, :terms] @ best)[0], np.float64)


def _kept(second: list[Look | str], third: list[Look | str]) -> tuple[Array, Array, Counter[str]]:
    """Pixels and gazes of the looks that were found twice in one place, and why not the others."""
    refused: Counter[str] = Counter()
    kept: list[tuple[Array, Array]] = []
    for one, other in zip(second, third, strict=True):
        if isinstance(one, str) or isinstance(other, str):
            refused[one if isinstance(one, str) else str(other)] += 1
        elif np.abs(one.off_px - other.off_px).max() > _SAME_PX:
            refused["moving"] += 1
        else:
            kept.append(((one.wide_px + other.wide_px) / 2, (one.gaze + other.gaze) / 2))
    table = np.array(kept).reshape(len(kept), 2, 2)
    return table[:, 0], table[:, 1], refused


def _wide_px(model: Model, gazes: Array) -> Array:
    return model.wide_px(gazes, np.zeros(len(gazes)))
