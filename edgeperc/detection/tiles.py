"""Where a large picture is looked at piece by piece."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def tile_views(
    width_px: int, height_px: int, tile_px: Sequence[int], *, overlap: float
) -> NDArray[np.int64]:
    """Squares of each size that together cover the picture, as (T, 4) xyxy px.

    Neighbours share at least `overlap` of their side; the last row and column end at the picture's
    border. A tile longer than the picture is as long as the picture. No sizes: the whole picture.
    """
    views = [
        (x, y, x + min(side, width_px), y + min(side, height_px))
        for side in tile_px or [max(width_px, height_px)]
        for y in _starts(height_px, side, overlap)
        for x in _starts(width_px, side, overlap)
    ]
    return np.array(list(dict.fromkeys(views)), np.int64)


def _starts(length_px: int, side_px: int, overlap: float) -> list[int]:
    if side_px >= length_px:
        return [0]
    step = max(side_px * (1 - overlap), 1)
    count = math.ceil((length_px - side_px) / step) + 1
    return [int(start) for start in np.linspace(0, length_px - side_px, count)]
