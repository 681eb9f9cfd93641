"""Where to look next: what all schedulers have in common, and those that never learn.

Places are in cells of the grid, times in seconds. `regions` says what the panorama shows, `wide`
where the wide camera suspects targets, `step` asks for the next gaze and `observe` tells what a
look has found. A step may come before the observation of the look before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Protocol, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeperc.search.grid import Grid
from edgeperc.search.intake import Cells, Intake
from edgeperc.search.prior import region_prior

Place: TypeAlias = tuple[float, float]
"""x and y in cells."""


Seed: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What one look sees and takes. Lengths in cells.

    fov, half: width of the picture, and half of what of it is usable. pd: how probably a target
    inside is detected. slot_s: looks come at multiples of it; 0 where they take what they take.
    look_s, turn_s: time of a look without a turn, and per cell that the mirror turns.
    """

    fov: float = 12.0
    half: float = 5.2
    pd: float = 0.92
    slot_s: float = 1 / 120
    look_s: float = 2.4e-3
    turn_s: float = 0.11e-3 * 60 / 256

    def cost_s(self, turn: float) -> float:
        """Time of a look after a turn, in whole slots. Source: search.md, section 3."""
        took_s = self.look_s + self.turn_s * turn
        if self.slot_s <= 0:
            return took_s
        return math.ceil(took_s / self.slot_s - 1e-9) * self.slot_s

    def turns(self, grid: Grid) -> Iterator[tuple[float, float]]:
        """Costs in s from the smallest to that of the longest turn, and how far each one reaches.

        At most eight, so long as that tells them apart; the last one reaches everything.
        """
        longest = float(max(grid.width, grid.height))
        low_s, high_s = self.cost_s(0), self.cost_s(longest)
        steps = min(round((high_s - low_s) / self.slot_s), 7) if self.slot_s > 0 else 7
        for k in range(steps):
            cost_s = low_s + (high_s - low_s) * (k if self.slot_s > 0 else k + 0.5) / steps
            yield cost_s, (cost_s - self.look_s) / self.turn_s
        yield high_s, longest

    def clamp(self, grid: Grid, x: float, y: float) -> Place:
        """The nearest gaze whose picture lies within the grid; the middle where it cannot."""
        return _within(x, self.fov / 2, grid.width), _within(y, self.fov / 2, grid.height)


class Scheduler(Protocol):
    """Decides where the search camera looks. Used from one thread; deterministic by its seed.

    Nothing that it is told raises: values that are not finite or out of bounds are left out and
    counted in `dropped`. Gazes are finite and within [fov / 2, size - fov / 2].
    """

    @property
    def dropped(self) -> int:
        """Detections and gazes left out so far."""

    def regions(self, t_s: float, labels: NDArray[np.uint8], weights: Mapping[int, float]) -> None:
        """What the panorama shows. labels: (H, W) class of each cell, 255 = unknown.

        weights: class -> share of the targets that are in its region, however large it is; a class
        without one has none. Until the first call all cells are alike.
        """

    def wide(self, t_s: float, detections: Cells) -> None:
        """Detections of the wide camera; called with none where nothing is suspected."""

    def step(self, t_s: float) -> Place:
        """The next gaze, which counts as looked at from now on."""

    def observe(self, t_s: float, gaze: Place, detections: Cells) -> None:
        """What a look has found, at the gaze that was measured."""

    def snapshot(self, t_s: float) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """To be drawn: expected undetected targets a cell (H, W), and tracks.

        tracks: (N, 4) x, y, confidence and seconds since last seen.
        """


def _within(value: float, margin: float, size: float) -> float:
    return min(max(value, margin), size - margin) if size > 2 * margin else size / 2


OVERLAP = 1.4
"""Least overlap of a sweep's windows in cells: 25 x 12 of them on the default grid."""

Plan: TypeAlias = Callable[[NDArray[np.float64], Sight, np.random.Generator], Iterator[Place]]
"""Prior (H, W) -> gazes without end."""


class Blind:
    """Follows a plan made from the prior alone, which begins anew when the prior changes."""

    def __init__(self, plan: Plan, grid: Grid, sight: Sight, seed: int) -> None:
        self._plan, self._grid, self._sight = plan, grid, sight
        self._rng = np.random.default_rng(seed)
        self._intake = Intake(grid)
        self._prior = np.full(grid.shape, 1 / (grid.width * grid.height))
        self._gazes = plan(self._prior, sight, self._rng)

    @property
    def dropped(self) -> int:
        """Detections and gazes left out so far."""
        return self._intake.dropped

    def regions(self, t_s: float, labels: NDArray[np.uint8], weights: Mapping[int, float]) -> None:
        """Begin anew if the prior has changed."""
        if not self._intake.fits(labels):
            return
        prior = region_prior(labels, weights)
        if not np.array_equal(prior, self._prior):
            self._prior = prior
            self._gazes = self._plan(prior, self._sight, self._rng)

    def wide(self, t_s: float, detections: Cells) -> None:
        """Learn nothing."""
        self._intake.detections(detections)

    def step(self, t_s: float) -> Place:
        """The plan's next gaze."""
        return self._sight.clamp(self._grid, *next(self._gazes))

    def observe(self, t_s: float, gaze: Place, detections: Cells) -> None:
        """Learn nothing."""
        self._intake.gaze(gaze)
        self._intake.detections(detections)

    def snapshot(self, t_s: float) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Nothing is known."""
        return np.zeros(self._grid.shape, np.float32), np.empty((0, 4))


def raster(grid: Grid, sight: Sight, *, seed: Seed = 0) -> Blind:
    """Sweep the whole grid row by row, to and fro."""
    return Blind(_sweep(0.0), grid, sight, seed)


def raster_region(grid: Grid, sight: Sight, *, seed: Seed = 0) -> Blind:
    """Sweep the windows that hold more than 0.2 % of the prior."""
    return Blind(_sweep(2e-3), grid, sight, seed)


def uniform(grid: Grid, sight: Sight, *, seed: Seed = 0) -> Blind:
    """Look anywhere."""
    return Blind(lambda prior, s, rng: _drawn(np.ones(prior.shape), rng), grid, sight, seed)


def ppm_iid(grid: Grid, sight: Sight, *, seed: Seed = 0) -> Blind:
    """Look at cells drawn from the prior, each time anew."""
    return Blind(lambda prior, s, rng: _drawn(prior, rng), grid, sight, seed)


def _sweep(least: float) -> Plan:
    """Windows, a little less than a field of view apart, whose prior mass is above `least`."""

    def plan(prior: NDArray[np.float64], sight: Sight, rng: np.random.Generator) -> Iterator[Place]:
        gazes = [
            gaze
            for gaze in _snake(prior.shape, sight.fov)
            if least == 0 or _window_mass(prior, gaze, sight.fov) > least
        ] or list(_snake(prior.shape, sight.fov))
        while True:
            yield from gazes

    return plan


def _snake(shape: tuple[int, ...], fov: float) -> Iterator[Place]:
    height, width = shape
    margin = fov / 2
    columns, rows = (
        np.linspace(margin, size - margin, math.ceil((size - fov) / (fov - OVERLAP)) + 1)
        for size in (width, height)
    )
    for number, y in enumerate(rows.tolist()):
        for x in columns.tolist()[:: -1 if number % 2 else 1]:
            yield x, y


def _window_mass(prior: NDArray[np.float64], gaze: Place, fov: float) -> float:
    x, y = (round(centre - fov / 2) for centre in gaze)
    side = round(fov)
    return float(prior[y : y + side, x : x + side].sum())


def _drawn(weights: NDArray[np.float64], rng: np.random.Generator) -> Iterator[Place]:
    while True:
        for x, y in draw_cells(weights, 256, rng).tolist():
            yield x + 0.5, y + 0.5


def draw_cells(
    weights: NDArray[np.float64], count: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Cells (count, 2) x and y, drawn independently by weight."""
    cumulative = np.cumsum(weights)
    flat = np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right")
    y, x = np.divmod(np.minimum(flat, weights.size - 1), weights.shape[1])
    return np.stack([x, y], axis=1)
