"""Correspondences from the rig itself: look around, and find each look in the wide picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeperc.calibration.locate import Match, locate, slope_of
from edgeperc.calibration.models import Array, Model
from edgeperc.errors import DataError
from edgeperc.packet import Gaze, GazeRange, Mirror

FIRST_WINDOW_RAD = np.radians(5.0)
NEXT_WINDOW_RAD = np.radians(1.2)
_NEIGHBOURS = 5
_SAME_PX = 1.0
_EDGE = 0.96

Picture = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Eyes:
    """The rig, as far as it is needed to collect.

    wide, search: take a picture now, (H, W) or (H, W, 3) uint8. wait_until: sleeps until a time of
    the mirror's clock, False to give up. px_per_rad: of the search camera.
    """

    wide: Callable[[], Picture]
    search: Callable[[], Picture]
    mirror: Mirror
    wait_until: Callable[[int], bool]
    px_per_rad: float


@dataclass
class Collected:
    """wide_px and gaze, (N, 2) each, of the looks that were found twice in the same place.

    tried: how many looks were made. refused: reason -> how many looks it cost.
    """

    wide_px: Array
    gaze: Array
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
    """Look at grid x grid gazes, twice each, and find the looks in the wide picture.

    guess: about where a gaze shows up; it may be some degrees off. The second round comes back the
    other way; a look that is then elsewhere in the wide picture saw something move, and is refused.
    on_look: told looks done, looks in all and looks found. Raises DeviceError if a camera or the
    mirror is lost, DataError if it is told to give up.
    """
    height_px, width_px = eyes.wide().shape[:2]
    gazes = _grid(eyes.mirror.range, guess, (width_px, height_px), grid)
    finder = _Finder(eyes, guess)
    refused: Counter[str] = Counter()
    first: list[tuple[Gaze, Match]] = []
    for number, gaze in enumerate(gazes, 1):
        found = finder.look(gaze)
        if isinstance(found, str):
            refused[found] += 1
        else:
            first.append((gaze, found[1]))
        on_look(number, 2 * len(gazes), len(first))
    total = len(gazes) + len(first)
    kept: list[tuple[Array, Array]] = []
    for number, (gaze, match) in enumerate(reversed(first), len(gazes) + 1):
        again = finder.look(gaze, near_px=match.wide_px)
        if isinstance(again, str):
            refused[again] += 1
        elif np.abs(again[1].wide_px - match.wide_px).max() > _SAME_PX:
            refused["moving"] += 1
        else:
            kept.append(((again[1].wide_px + match.wide_px) / 2, again[0]))
        on_look(number, total, len(kept))
    table = np.array(kept).reshape(len(kept), 2, 2)
    return Collected(table[:, 0], table[:, 1], len(gazes), refused)


class _Finder:
    """Looks, and learns from each look about where the next will be found."""

    def __init__(self, eyes: Eyes, guess: Model) -> None:
        self._eyes = eyes
        self._guess = guess
        self._at: list[Array] = []
        self._off_px: list[Array] = []

    def look(self, gaze: Gaze, near_px: Array | None = None) -> tuple[Array, Match] | str:
        """The measured gaze, (2,) rad, and where it is; or why it was not found."""
        eyes = self._eyes
        eyes.mirror.aim(gaze)
        settled_ns = eyes.mirror.settled_ns()
        if not eyes.wait_until(settled_ns):
            raise DataError("stopped before all points were collected")
        measured = eyes.mirror.measured()
        search, wide = eyes.search(), eyes.wide()
        at = np.array([measured.pan_rad, measured.tilt_rad])
        slope = slope_of(self._wide_px, at, eyes.px_per_rad)
        window_rad = NEXT_WINDOW_RAD
        if near_px is None:
            near_px, window_rad = self._expected(at)
        rad_per_wide_px = 1 / (np.sqrt(abs(np.linalg.det(slope))) * eyes.px_per_rad)
        found = locate(
            search, wide, near_px=near_px, slope=slope, window_px=window_rad / rad_per_wide_px
        )
        if isinstance(found, Match):
            self._at.append(at)
            self._off_px.append(found.wide_px - self._wide_px(at[None])[0])
            return at, found
        return found

    def _expected(self, at: Array) -> tuple[Array, float]:
        """Where the guess says, moved by what was found near by; and how sure that is."""
        guessed = self._wide_px(at[None])[0]
        if len(self._at) < _NEIGHBOURS:
            return guessed, FIRST_WINDOW_RAD
        nearest = np.argsort(np.linalg.norm(np.array(self._at) - at, axis=1))[:_NEIGHBOURS]
        off_px: Array = np.median(np.array(self._off_px)[nearest], axis=0)
        return guessed + off_px, NEXT_WINDOW_RAD

    def _wide_px(self, gazes: Array) -> Array:
        return self._guess.wide_px(gazes, np.zeros(len(gazes)))


def _grid(limits: GazeRange, guess: Model, picture_px: tuple[int, int], grid: int) -> list[Gaze]:
    """Gazes that the mirror reaches and the wide camera sees, middle first.

    The rectangle of both is found along its axes, so that most of the grid is of use.
    """
    low = np.array([limits.lowest.pan_rad, limits.lowest.tilt_rad])
    high = np.array([limits.highest.pan_rad, limits.highest.tilt_rad])
    right, bottom = picture_px
    middle = (right / 2, bottom / 2)
    edges = np.array([(0, middle[1]), (right, middle[1]), (middle[0], bottom), (middle[0], 0)])
    left, far_right, down, up = guess.gaze(edges, np.zeros(4))
    low = np.maximum(low, (left[0], down[1]))
    high = np.minimum(high, (far_right[0], up[1]))
    if not (high > low).all():
        raise DataError("the mirror reaches nothing that the wide camera sees")
    centre, half = (low + high) / 2, (high - low) / 2 * _EDGE
    steps = np.linspace(-1, 1, grid)
    pan, tilt = (m.ravel() for m in np.meshgrid(steps, steps))
    order = np.argsort(np.hypot(pan, tilt), kind="stable")
    at = centre + half * np.stack([pan, tilt], axis=1)[order]
    return [Gaze(pan_rad=float(p), tilt_rad=float(t)) for p, t in at]
