"""What it is worth to look at a target again, and from where it is seen."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edgeperc.jit import kernel
from edgeperc.search.tracks import AGE, CONFIDENCE, NOT_WAITING, PX, SX, WAITING, Y

REVISIT_S = 0.4
REVISIT_MOST = 8.0
REST_S = 0.12
"""A target seen so lately is not looked at for its own sake."""
SURE = 1.5
"""Standard deviations of its place within which a target must lie inside the look."""
EDGE = 0.2
"""Cells by which it must."""
CLOSEST = 0.4
"""Share of a look's half-width that is close enough however unsure the place is."""


@kernel()
def add_revisits(
    rows: NDArray[np.float64],
    predicted: NDArray[np.float64],
    sight: tuple[float, float],
    visible: tuple[float, float, float, float],
    limits: tuple[int, int, int, int],
    value: float,
    scores: NDArray[np.float32],
) -> None:
    """Add to the scores of looks what each track that they cover is worth.

    rows, predicted: of tracks. sight: half-width of a look, and width of a map cell. visible: first
    and last x and y that any look sees; tracks beyond are sought there. limits: first and after the
    last row and column of scores. value: of a sure track unseen for REVISIT_S; it grows with the
    square of the age, as a sum of ages that the look resets does.
    """
    half, cell = sight
    top, bottom, left, right = limits
    for k in range(rows.shape[0]):
        age_s, deviation = predicted[k, AGE], predicted[k, SX]
        if age_s < REST_S or rows[k, WAITING] != NOT_WAITING:
            continue
        sharp = min(1.0, half / max(1.3 * deviation, 1e-9))
        worth = value * min((age_s / REVISIT_S) ** 2, REVISIT_MOST)
        gain = np.float32(worth * rows[k, CONFIDENCE] * sharp)
        near = max(half - EDGE - SURE * deviation, CLOSEST * half)
        spare = half - near
        x = min(max(predicted[k, PX], visible[0] + spare), visible[1] - spare)
        y = min(max(rows[k, Y], visible[2] + spare), visible[3] - spare)
        first = max(math.ceil((x - near - half) / cell), left)
        last = min(math.floor((x + near - half) / cell), right - 1)
        for row in range(
            max(math.ceil((y - near - half) / cell), top),
            min(math.floor((y + near - half) / cell), bottom - 1) + 1,
        ):
            for column in range(first, last + 1):
                scores[row, column] += gain
