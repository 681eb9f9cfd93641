"""Our re-implementation of the published search: rounds of samples from the panoramic prior.

Written from the first author's sibling code, not from a release of the paper (arXiv 2405.04589);
constants and differences are in search.md, sections 1 and 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from edgeperc.search.grid import Grid
from edgeperc.search.intake import Cells, Intake
from edgeperc.search.prior import region_prior
from edgeperc.search.schedulers import Place, Seed, Sight, draw_cells

SAMPLES = 145
AROUND = int(0.8 * SAMPLES)
"""Samples of a local round that are spent around detections; the rest is drawn from the prior."""
ROUNDS = 3
MERGE_DEG = 0.48
"""L1 distance under which detections are one, and samples are thinned."""
RANGE_DEG = 2.0
"""Half-range around a detection of confidence 1."""
DISC_CELLS = 4.0


class Paper:
    """A round from the prior, then two around what the round before has found, and so on.

    wide_prior: whether the wide camera's detections raise the prior, an extension of ours.
    """

    def __init__(
        self, grid: Grid, sight: Sight, *, seed: Seed = 0, wide_prior: bool = False
    ) -> None:
        self._grid, self._sight = grid, sight
        self._wide_prior = wide_prior
        self._rng = np.random.default_rng(seed)
        self._intake = Intake(grid)
        self._prior = np.full(grid.shape, 1 / (grid.width * grid.height))
        self._suspects = np.empty((0, 3))
        self._found: list[NDArray[np.float64]] = []
        self._cell_deg = float(np.degrees(grid.cell_rad))
        self._last: Place = (grid.width / 2, grid.height / 2)
        self._gazes = self._rounds()

    @property
    def dropped(self) -> int:
        """Detections and gazes left out so far."""
        return self._intake.dropped

    def regions(self, t_s: float, labels: NDArray[np.uint8], weights: Mapping[int, float]) -> None:
        """A new prior; the round under way begins anew if it differs."""
        if not self._intake.fits(labels):
            return
        prior = region_prior(labels, weights)
        if not np.array_equal(prior, self._prior):
            self._prior = prior
            self._gazes = self._rounds()

    def wide(self, t_s: float, detections: Cells) -> None:
        """Remember the detections for the next round from the prior."""
        self._suspects = self._intake.detections(detections)

    def step(self, t_s: float) -> Place:
        """The next sample."""
        self._last = self._sight.clamp(self._grid, *next(self._gazes))
        return self._last

    def observe(self, t_s: float, gaze: Place, detections: Cells) -> None:
        """Keep detections for the next round."""
        self._intake.gaze(gaze)
        self._found.extend(self._intake.detections(detections))

    def snapshot(self, t_s: float) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """The density that samples are drawn from."""
        return self._prior.astype(np.float32), np.empty((0, 4))

    def _rounds(self) -> Iterator[Place]:
        number = 0
        while True:
            found, self._found = self._merged(), []
            if number % ROUNDS == 0 or not found:
                samples = self._from_prior(SAMPLES)
            else:
                samples = [*self._around(found), *self._from_prior(SAMPLES - AROUND)]
            yield from self._toured(self._thinned(samples))
            number += 1

    def _merged(self) -> list[NDArray[np.float64]]:
        """The last round's detections, the most confident of those that lie close together."""
        return self._thinned(sorted(self._found, key=lambda one: -one[2]))

    def _around(self, found: list[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
        """Samples shared out by confidence, the wider apart the less confident."""
        total = sum(one[2] for one in found) or 1.0
        samples: list[NDArray[np.float64]] = []
        for x, y, confidence in found:
            count = max(1, int(AROUND * confidence / total))
            reach = RANGE_DEG / max(confidence, 0.05) / self._cell_deg
            samples.extend(self._rng.uniform(-reach, reach, (count, 2)) + np.array((x, y)))
        return samples

    def _from_prior(self, count: int) -> list[NDArray[np.float64]]:
        density = self._raised() if self._wide_prior else self._prior
        return list(draw_cells(density, count, self._rng) + 0.5)

    def _raised(self) -> NDArray[np.float64]:
        density: NDArray[np.float64] = self._prior.copy()
        top = 0.2 * density.max()
        columns, rows = np.arange(self._grid.width) + 0.5, np.arange(self._grid.height) + 0.5
        for x, y, confidence in self._suspects:
            disc = np.hypot(columns - x, rows[:, None] - y) <= DISC_CELLS
            density[disc] += 0.001 * confidence + top
        return density

    def _thinned(self, places: list[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
        """Those farther than 0.48 deg (L1) from all kept before them."""
        if not places:
            return []
        xy = np.array([place[:2] for place in places])
        kept = np.empty((0, 2))
        chosen = []
        for place, at in zip(places, xy, strict=True):
            if (np.abs(kept - at).sum(axis=1) * self._cell_deg >= MERGE_DEG).all():
                kept = np.vstack([kept, at])
                chosen.append(place)
        return chosen

    def _toured(self, places: list[NDArray[np.float64]]) -> Iterator[Place]:
        """Each time the nearest one left, by the larger of the two distances."""
        margin = self._sight.fov / 2
        high = (self._grid.width - margin, self._grid.height - margin)
        left = np.clip([place[:2] for place in places], margin, high)
        while len(left):
            nearest = int(np.abs(left - self._last).max(axis=1).argmin())
            x, y = left[nearest].tolist()
            left = np.delete(left, nearest, axis=0)
            yield x, y


def paper_wide(grid: Grid, sight: Sight, *, seed: Seed = 0) -> Paper:
    """`Paper` whose prior the wide camera raises, for comparison."""
    return Paper(grid, sight, seed=seed, wide_prior=True)
