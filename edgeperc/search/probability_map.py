"""Where targets may be that were not seen yet.

A cell's expected number of undetected targets is the rate of its region, times how much of the cell
is unseen, plus what the wide camera suspects there. A look makes what it covers seen, but for the
probability to miss; time makes it unseen again, from the sides and by the motion of targets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgeperc.search import kernels
from edgeperc.search.grid import Grid
from edgeperc.search.intake import Cells
from edgeperc.search.region_rates import RegionRates
from edgeperc.search.region_speeds import RegionSpeeds
from edgeperc.search.schedulers import Place, Sight

SIDE = 13
"""Cells of the map to each side of a look; then looks fit beside each other without a gap."""
BESIDE = (3, 0.1)
"""Frame around a look in which what is left counts against it, and by what share."""
MOTION_X, MOTION_Y = 0.3, 0.15
"""Standard deviation in grid cells by which targets leave their way in 0.1 s, along and across."""
RECOVERY_S = 300.0
"""Time in which what was seen becomes unseen, where nothing moves."""
URGENCY_HZ = 1.0
"""By what a target that waits to be found is worth more with each second."""
FRESH = 0.4
"""Worth of a target that has just come in, one that was there from the beginning being worth 1."""
SUSPECT = 0.4
"""Expected targets of a wide detection of confidence 1."""
SUSPECT_X, SUSPECT_Y = 3.5, 2.5
"""Half of the block in grid cells over which a suspicion is spread."""
SUSPECT_S = 1.0
CLUTTER_S = 6.0
CLUTTER = 1.2
"""What an empty look at a suspicion adds to the exponent by which later ones there shrink."""


class ProbabilityMap:
    """Expected undetected targets in small cells, and the scores of all looks at them."""

    def __init__(self, grid: Grid, sight: Sight, *, expected: float = 20.0) -> None:
        self._grid, self._sight = grid, sight
        self.cell = 2 * sight.half / SIDE
        """Width of a cell of the map in cells of the grid."""
        rows, columns = (max(math.ceil(size / self.cell), SIDE) for size in grid.shape)
        self._rows = _nearest(rows, self.cell, grid.height)
        self._columns = _nearest(columns, self.cell, grid.width)
        self.layers = np.ones((4, rows, columns), np.float32)
        self.suspected = np.zeros((rows, columns), np.float32)
        self.clutter = np.zeros((rows, columns), np.float32)
        self.worth = np.zeros((rows, columns), np.float32)
        self.labels = np.zeros((rows, columns), np.uint8)
        self.rates = RegionRates(expected, self.cell**2)
        self.rates.regions(self.labels, {})
        self.speeds = RegionSpeeds()
        self.scores = np.full((rows - SIDE + 1, columns - SIDE + 1), -np.inf, np.float32)
        self.limits = self._limits()
        self.renew()

    def _limits(self) -> tuple[int, int, int, int]:
        """First row, row after the last, first and after the last column of allowed looks."""
        low = self.corner(*self._sight.clamp(self._grid, -math.inf, -math.inf))
        high = self.corner(*self._sight.clamp(self._grid, math.inf, math.inf))
        rows, columns = self.scores.shape
        top, left = max(low[0], 0), max(low[1], 0)
        return (
            top,
            max(min(high[0] + 1, rows), top + 1),
            left,
            max(min(high[1] + 1, columns), left + 1),
        )

    def corner(self, x: float, y: float) -> tuple[int, int]:
        """Row and column of the first cell of a look."""
        half = self._sight.half
        return round((y - half) / self.cell), round((x - half) / self.cell)

    def place(self, row: int, column: int) -> Place:
        """Where to look so that the first cell is the given one."""
        half = self._sight.half
        return self._sight.clamp(self._grid, column * self.cell + half, row * self.cell + half)

    def index(self, x: float, y: float) -> tuple[int, int]:
        """Row and column of the cell at a place, the nearest one for a place outside."""
        rows, columns = self.labels.shape
        row, column = math.floor(y / self.cell), math.floor(x / self.cell)
        return min(max(row, 0), rows - 1), min(max(column, 0), columns - 1)

    def regions(self, labels: NDArray[np.uint8], weights: Mapping[int, float]) -> None:
        """A map of regions, (H, W) in cells of the grid."""
        self.labels = np.ascontiguousarray(labels[self._rows[:, None], self._columns])
        self.rates.regions(self.labels, weights)
        self.renew()

    def look(self, x: float, y: float) -> NDArray[np.float64]:
        """Thin what a look covers; returns the unseen cells (256,) that it searches, by label."""
        searched = np.zeros(256)
        row, column = self.corner(x, y)
        window = (row, column, SIDE)
        kernels.look(self._maps(), self.labels, self.rates.rates, window, self._sight.pd, searched)
        self._rescore_around(row, column)
        return searched

    def unlook(self, x: float, y: float) -> None:
        """Take back a look that did not happen there."""
        row, column = self.corner(x, y)
        kernels.unlook(
            self._maps(), self.labels, self.rates.rates, (row, column, SIDE), self._sight.pd
        )
        self._rescore_around(row, column)

    def learn(self, searched: NDArray[np.float64], found: Cells) -> None:
        """Shift the rates of regions by what a look found anew."""
        self.rates.looked(searched)
        if not len(found):
            return
        at = [self.index(x, y) for x, y, _ in found.tolist()]
        rows, columns = np.array(at).T
        unseen = self.layers[:2, rows, columns].mean(axis=0)
        self.rates.found(self.labels[rows, columns], unseen)
        self.renew()

    def learn_speeds(self, moving: NDArray[np.float64]) -> None:
        """Targets that were seen again: (N, 3) x, y and speed along x in grid cells per second."""
        rows, columns = np.array([self.index(x, y) for x, y, _ in moving.tolist()]).T
        self.speeds.learn(self.labels[rows, columns], moving[:, 2])

    def suspect(self, x: float, y: float, confidence: float) -> None:
        """The wide camera saw something: raise the mass around it to what that is worth."""
        mass = SUSPECT * confidence * math.exp(-float(self.clutter[self.index(x, y)]))
        self._raise(x, y, SUSPECT_X, SUSPECT_Y, mass)

    def lost(self, x: float, y: float, mass: float) -> None:
        """A target that was followed is somewhere around here."""
        block = self._block(x, y, 12.5, 3.5)
        self.suspected[block] += mass / max(self.suspected[block].size, 1)

    def _raise(self, x: float, y: float, half_x: float, half_y: float, mass: float) -> None:
        block = self._block(x, y, half_x, half_y)
        lacking = mass - float(self._expected(block).sum())
        if lacking > 0 and self.suspected[block].size:
            each = np.float32(lacking / self.suspected[block].size)
            self.suspected[block] += each
            self.worth[block] += each

    def _expected(self, block: tuple[slice, slice]) -> NDArray[np.float64]:
        """Expected undetected targets in each cell of a part of the map."""
        unseen = self.layers[:2, block[0], block[1]].mean(axis=0)
        expected: NDArray[np.float64] = self.rates.rates[self.labels[block]] * unseen
        return expected + self.suspected[block]

    def disprove(self, x: float, y: float) -> None:
        """Nothing was found where the wide camera had suspected something."""
        self.clutter[self._block(x, y, 2.5, 2.5)] += np.float32(CLUTTER)

    def pass_time(self, dt_s: float) -> None:
        """Let targets move and memories fade, without renewing the scores."""
        steps = math.sqrt(dt_s / 0.1) / self.cell
        kernels.flow(
            self.layers, self.labels, self.speeds.mean() * (dt_s / self.cell),
            (_gauss(MOTION_X * steps), _gauss(MOTION_Y * steps)),
            (-math.expm1(-dt_s / RECOVERY_S), URGENCY_HZ * dt_s, FRESH),
        )  # fmt: skip
        self.suspected *= np.float32(math.exp(-dt_s / SUSPECT_S))
        self.clutter *= np.float32(math.exp(-dt_s / CLUTTER_S))
        self.rates.forget(dt_s)

    def value(self) -> None:
        """The worth of all cells by the rates of now."""
        kernels.value(self.layers, self.suspected, self.labels, self.rates.renew(), self.worth)

    def renew(self) -> None:
        """The worth of all cells and all scores."""
        self.value()
        self.rescore()

    def rescore(self) -> None:
        """All scores by the worth of now."""
        kernels.score(self.worth, SIDE, BESIDE, self.limits, self.scores)

    def grid_intensity(self) -> NDArray[np.float32]:
        """Expected undetected targets in each cell of the grid, (H, W)."""
        x = (np.arange(self._grid.width) + 0.5) / self.cell
        y = (np.arange(self._grid.height) + 0.5) / self.cell
        rows, columns = y.astype(np.intp), x.astype(np.intp)
        expected = self._expected((slice(None), slice(None)))[rows[:, None], columns]
        return (expected / self.cell**2).astype(np.float32)

    def _maps(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        return self.layers, self.suspected, self.worth

    def _rescore_around(self, row: int, column: int) -> None:
        reach = SIDE + BESIDE[0]
        top, bottom, left, right = self.limits
        part = (
            max(row - reach + 1, top), min(row + reach, bottom),
            max(column - reach + 1, left), min(column + reach, right),
        )  # fmt: skip
        if part[0] < part[1] and part[2] < part[3]:
            kernels.score(self.worth, SIDE, BESIDE, part, self.scores)

    def _block(self, x: float, y: float, half_x: float, half_y: float) -> tuple[slice, slice]:
        top, left = max(y - half_y, 0) / self.cell, max(x - half_x, 0) / self.cell
        bottom, right = max(y + half_y, 0) / self.cell, max(x + half_x, 0) / self.cell
        return slice(round(top), round(bottom)), slice(round(left), round(right))


def _nearest(count: int, step: float, size: int) -> NDArray[np.intp]:
    """Cell of the grid in which the middle of each cell of the map lies."""
    middles: NDArray[np.intp] = ((np.arange(count) + 0.5) * step).astype(np.intp)
    return np.minimum(middles, size - 1)


def _gauss(sigma: float) -> NDArray[np.float32]:
    """Weights of a Gaussian blur out to three standard deviations, at most 31."""
    reach = min(max(1, math.ceil(3 * sigma)), 15)
    weights: NDArray[np.float64] = np.exp(
        -0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-3)) ** 2
    )
    weights /= weights.sum()
    return weights.astype(np.float32)
