"""What a map of regions says about where targets are, before anything was seen."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

CLASSES = 256


def region_weights(weights: Mapping[int, float]) -> NDArray[np.float64]:
    """Weights (256,) by label; what is not finite or below zero counts as nothing."""
    table = np.zeros(CLASSES)
    for label, weight in weights.items():
        if 0 <= label < CLASSES and np.isfinite(weight) and weight > 0:
            table[label] = weight
    return table


def region_prior(labels: NDArray[np.uint8], weights: Mapping[int, float]) -> NDArray[np.float64]:
    """Probability of each cell (H, W): the region's weight over its area, normalised.

    Uniform if no region with a weight is present. Source: search.md, sections 1 and 3.
    """
    area = np.bincount(labels.ravel(), minlength=CLASSES)
    density = region_weights(weights) / np.maximum(area, 1)
    prior: NDArray[np.float64] = density[labels]
    total = prior.sum()
    return prior / total if total > 0 else np.full(labels.shape, 1 / labels.size)
