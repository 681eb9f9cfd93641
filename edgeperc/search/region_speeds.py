"""How fast targets move in each region, learned from those that are followed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeperc.search.prior import CLASSES

PROMISED = 4.0
"""Cells of the grid per second, before any target was followed."""
TRUST = 2.0
"""Sights that the promise is worth."""
MOST = 200.0
"""Sights that are remembered."""


class RegionSpeeds:
    """Mean speed along x by label of the region, in cells of the grid per second."""

    def __init__(self) -> None:
        self._sum = np.full(CLASSES, PROMISED * TRUST)
        self._count = np.full(CLASSES, TRUST)

    def mean(self) -> NDArray[np.float64]:
        """Speeds (256,) by label."""
        speeds: NDArray[np.float64] = self._sum / self._count
        return speeds

    def learn(self, labels: NDArray[np.uint8], speeds: NDArray[np.float64]) -> None:
        """Targets that were seen again in these regions, at these speeds of either sign."""
        np.add.at(self._sum, labels, np.abs(speeds))
        np.add.at(self._count, labels, 1.0)
        kept = np.minimum(1.0, MOST / self._count)
        self._sum *= kept
        self._count *= kept
