"""Prompts that a patient person would give: simulated clicks, corrections and boxes from the truth.

    point = first_click(truth)                       # the middle of the object
    correction = next_click(truth, answer)           # where the answer is most wrong

The middle of a region is its point farthest from its border, and the next click goes to the middle
of the error that holds the largest circle, as in the evaluations of RITM (Sofiiuk et al., arXiv
2102.06583) and SAM 2. Nothing is random: of equally good points the first in reading order counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Click:
    """Column and row of a pixel; foreground: whether it lies on the object."""

    x: int
    y: int
    foreground: bool = True

    @property
    def point(self) -> tuple[float, float]:
        """Its centre as prompts have it: that of the upper left pixel is (0.5, 0.5)."""
        return self.x + 0.5, self.y + 0.5


def first_click(truth: Mask) -> Click:
    """The middle of a mask (H, W) that is not empty."""
    x, y, depth = _middle(truth, ())
    if depth == 0:
        raise ValueError("no click can be on an empty mask")
    return Click(x=x, y=y)


def next_click(
    truth: Mask, answer: Mask, *, given: Sequence[Click] = (), void: Mask | None = None
) -> Click | None:
    """The correction of an answer, None where nothing is wrong; all masks are (H, W).

    given: earlier clicks, which are not repeated. void: where the truth is not known.
    """
    missed, invented = truth & ~answer, answer & ~truth
    if void is not None:
        missed, invented = missed & ~void, invented & ~void
    x, y, depth = _middle(missed, given)
    other_x, other_y, other_depth = _middle(invented, given)
    if max(depth, other_depth) == 0:
        return None
    if other_depth > depth:
        return Click(x=other_x, y=other_y, foreground=False)
    return Click(x=x, y=y)


def box_of(mask: Mask) -> NDArray[np.float32]:
    """The tight box (4,) xyxy px of a mask (H, W) that is not empty; x1, y1 are outer edges."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(columns):
        raise ValueError("an empty mask has no box")
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def _middle(region: Mask, given: Sequence[Click]) -> tuple[int, int, float]:
    """Column, row and depth in px of a region's deepest pixel; the picture's edge is a border."""
    top, left, bottom, right = _extent(region)
    if bottom == top:
        return 0, 0, 0.0
    height, width = bottom - top, right - left
    padded = np.zeros((height + 2, width + 2), np.uint8)
    padded[1:-1, 1:-1] = region[top:bottom, left:right]
    depth: Any = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    for click in given:
        if top <= click.y < bottom and left <= click.x < right:
            depth[click.y - top + 1, click.x - left + 1] = 0
    squared = np.rint(depth * depth)  # whole: what rounds otherwise elsewhere still ties
    row, column = divmod(int(squared.argmax()), width + 2)
    return left + column - 1, top + row - 1, float(depth[row, column])


def _extent(region: Mask) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of what is true; four zeros if nothing is."""
    rows = np.flatnonzero(region.any(1))
    if not len(rows):
        return 0, 0, 0, 0
    columns = np.flatnonzero(region.any(0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
