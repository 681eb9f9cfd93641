"""What the painter's two halves share.

Inside, pictures are (width, height): the work goes column by column, and so do the bytes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeperc.jit import kernel

Canvas = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]]
"""Luminance so far, share of the pixel that is covered, and class of what covers its half."""
View = tuple[float, float, float, float, float, float, float, float]
"""Camera x, y, z; cosine and sine of yaw; focal length, middle column and row of the horizon."""
FULL = 0.996
"""A pixel covered this far is finished."""


@kernel(fastmath=True)
def overlap(low: float, high: float, start: float, stop: float) -> float:
    """Share of [low, high] inside [start, stop]."""
    if high <= start or low >= stop:
        return 0.0
    return max(0.0, min(high, stop) - max(low, start)) / (high - low)
