"""What a scheduler is told, made fit to reckon with: bad values are counted and left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeperc.search.grid import Grid

Cells: TypeAlias = NDArray[np.float64]
"""(N, 3): x and y in cells, and confidence."""

MOST = 200
"""Detections beyond the most confident 200 of a picture are left out."""
PUT_BACK_S = 1.0
"""A clock that is so far behind was put back."""
BESIDE = 6.0
"""Cells outside the grid at which a detection is still believed."""


class Intake:
    """Checks detections, times and gazes. dropped: detections and gazes left out so far."""

    def __init__(self, grid: Grid) -> None:
        self.dropped = 0
        self._grid = grid
        self._now_s = -math.inf
        self._ahead_s = 0.0

    def detections(self, values: Cells) -> Cells:
        """Those that are finite, near the grid and of a confidence in [0, 1], the best 200."""
        values = np.asarray(values, np.float64)
        if values.size == 0:
            return np.empty((0, 3))
        if values.ndim != 2 or values.shape[1] != 3:
            self.dropped += max(len(values), 1) if values.ndim else 1
            return np.empty((0, 3))
        # Comparisons with NaN are false.
        low = values >= (-BESIDE, -BESIDE, 0.0)
        high = values <= (self._grid.width + BESIDE, self._grid.height + BESIDE, 1.0)
        kept = values[(low & high).all(axis=1)]
        if len(kept) > MOST:
            kept = kept[np.argsort(-kept[:, 2], kind="stable")[:MOST]]
        self.dropped += len(values) - len(kept)
        return kept

    def fits(self, labels: NDArray[np.uint8]) -> bool:
        """Whether a map of regions has the shape of the grid; counted if not."""
        fits = labels.shape == self._grid.shape
        self.dropped += not fits
        return fits

    def time(self, t_s: float) -> float:
        """The time, which never runs backwards.

        It stands still while it is asked for an earlier one, and runs on from there if the clock
        was put back for good.
        """
        if math.isfinite(t_s):
            if t_s + self._ahead_s < self._now_s - PUT_BACK_S:
                self._ahead_s = self._now_s - t_s
            self._now_s = max(self._now_s, t_s + self._ahead_s)
        return self._now_s if self._now_s > -math.inf else 0.0

    def gaze(self, gaze: Sequence[float]) -> tuple[float, float] | None:
        """The gaze within the grid; None if it is not finite."""
        x, y = float(gaze[0]), float(gaze[1])
        if not (math.isfinite(x) and math.isfinite(y)):
            self.dropped += 1
            return None
        return min(max(x, 0.0), self._grid.width), min(max(y, 0.0), self._grid.height)
