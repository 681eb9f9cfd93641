"""What no search can exceed on average, from the prior alone, while targets stay put."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def koopman(prior: NDArray[np.float64], looks: int, *, half: float, pd: float) -> float:
    """Share of targets found if effort could be spread like sand: the Koopman bound.

    prior: (H, W) probability of each cell, summing to 1. half: half-width of a look in cells.
    Source: Koopman 1957; search.md, section 5.
    """
    p = np.sort(prior[prior > 0])[::-1]
    effort = looks * (2 * half) ** 2
    if effort <= 0 or not p.size or pd <= 0:
        return 0.0
    k = -np.log1p(-min(pd, 1 - 1e-12))
    low, high = 1e-12, k * p[0]
    for _ in range(80):
        middle = np.sqrt(low * high)
        spread = np.maximum(0, np.log(p * k / middle)) / k
        low, high = (middle, high) if spread.sum() > effort else (low, middle)
    return float((p * -np.expm1(-k * spread)).sum())


def whole_looks(prior: NDArray[np.float64], looks: int, *, half: float, pd: float) -> float:
    """Share of targets found if looks could take any shape but a cell is looked at or not.

    Below `koopman`, because half a look does not exist: at few looks by a quarter and more.
    """
    levels = np.log(1e-15) / np.log1p(-min(pd, 1 - 1e-12))
    again = pd * (1 - pd) ** np.arange(max(1, min(int(np.ceil(levels)), looks)))
    gains = np.sort((prior.reshape(-1, 1) * again).ravel())[::-1]
    whole, part = divmod(min(looks * (2 * half) ** 2, gains.size), 1)
    rest = gains[int(whole)] * part if int(whole) < gains.size else 0.0
    return float(gains[: int(whole)].sum() + rest)
