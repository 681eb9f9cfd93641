"""Arithmetic on the maps of a search, compiled: a look, the passing of time, scores of looks.

Maps are (H, W) float32, what is unseen (2, H, W): as targets see it that move to the right, and to
the left. Cells are so small that a look covers `side` x `side` of them, and
its place is named by the row and column of the first; `scores` has one number for each place.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeperc.jit import kernel

Map: TypeAlias = NDArray[np.float32]
Labels: TypeAlias = NDArray[np.uint8]
Vector: TypeAlias = NDArray[np.float64]


@kernel()
def look(
    maps: tuple[Map, Map, Map], labels: Labels, rates: Vector, window: tuple[int, int, int],
    pd: float, searched: Vector,
) -> None:  # fmt: skip
    """Thin what is unseen where a look falls, and add up by label how much of it was searched.

    maps: unseen, suspected and intensity, changed in place; intensity = rates[labels] * unseen +
    suspected. window: first row, first column, side. searched: (256,) cells by label.
    """
    unseen, suspected, intensity = maps
    top, left, side = window
    height, width = intensity.shape
    for y in range(max(top, 0), min(top + side, height)):
        for x in range(max(left, 0), min(left + side, width)):
            both = 0.5 * (unseen[0, y, x] + unseen[1, y, x])
            searched[labels[y, x]] += pd * both
            unseen[0, y, x] *= 1.0 - pd
            unseen[1, y, x] *= 1.0 - pd
            suspected[y, x] *= 1.0 - pd
            intensity[y, x] = rates[labels[y, x]] * both * (1.0 - pd) + suspected[y, x]


@kernel()
def unlook(
    maps: tuple[Map, Map, Map], labels: Labels, rates: Vector, window: tuple[int, int, int],
    pd: float,
) -> None:  # fmt: skip
    """Take back a look that did not happen."""
    unseen, suspected, intensity = maps
    top, left, side = window
    height, width = intensity.shape
    back = 1.0 / max(1.0 - pd, 1e-3)
    for y in range(max(top, 0), min(top + side, height)):
        for x in range(max(left, 0), min(left + side, width)):
            for way in range(2):
                unseen[way, y, x] = min(unseen[way, y, x] * back, 1.0)
            suspected[y, x] = min(suspected[y, x] * back, 1.0)
            both = 0.5 * (unseen[0, y, x] + unseen[1, y, x])
            intensity[y, x] = rates[labels[y, x]] * both + suspected[y, x]


@kernel()
def expect(unseen: Map, suspected: Map, labels: Labels, rates: Vector, intensity: Map) -> None:
    """Make intensity = rates[labels] * unseen + suspected."""
    half = np.empty(rates.size, np.float32)
    for label in range(rates.size):
        half[label] = 0.5 * rates[label]
    for y in range(intensity.shape[0]):
        for x in range(intensity.shape[1]):
            both = unseen[0, y, x] + unseen[1, y, x]
            intensity[y, x] = half[labels[y, x]] * both + suspected[y, x]


@kernel()
def flow(
    unseen: Map, labels: Labels, moved: Vector, blur: tuple[Map, Map], recovery: float
) -> None:
    """Let what is unseen move to the right and to the left, and blur it along rows and columns.

    moved: cells by label (256,). blur: odd numbers of weights with sum 1, along rows and along
    columns. Beyond the left and right border all is unseen, so targets come in from there; beyond
    the upper and lower border it is as inside. recovery: share of what was seen that becomes unseen
    wherever it is.
    """
    across, down = blur
    height, width = labels.shape
    reach_x, reach_y = across.size // 2, down.size // 2
    line = np.ones(width + 2 * reach_x, np.float32)
    blurred = np.empty((height + 2 * reach_y, width), np.float32)
    kept = np.float32(1.0 - recovery)
    for way in range(2):
        sign = 1.0 - 2.0 * way
        for y in range(height):
            for x in range(width):
                source = x - sign * moved[labels[y, x]]
                lower = int(np.floor(source))
                share = np.float32(source - lower)
                first = unseen[way, y, lower] if 0 <= lower < width else np.float32(1.0)
                second = unseen[way, y, lower + 1] if -1 <= lower < width - 1 else np.float32(1.0)
                line[reach_x + x] = first + share * (second - first)
            row = blurred[y + reach_y]
            row[:] = 0
            for k in range(across.size):
                for x in range(width):
                    row[x] += across[k] * line[x + k]
        for k in range(reach_y):
            blurred[k] = blurred[reach_y]
            blurred[height + reach_y + k] = blurred[height + reach_y - 1]
        for y in range(height):
            row = unseen[way, y]
            row[:] = np.float32(recovery)
            for k in range(down.size):
                weight = down[k] * kept
                for x in range(width):
                    row[x] += weight * blurred[y + k, x]


@kernel()
def score(
    intensity: Map, side: int, beside: tuple[int, float], part: tuple[int, int, int, int],
    scores: Map,
) -> None:  # fmt: skip
    """Score looks by the mass they cover, less a share of the mass that lies close beside them.

    What lies beside counts against a look so that looks begin at the corners and edges of what is
    left, and leave no slivers that later looks could only take one at a time.
    beside: width in cells of the frame around a look, and its share. part: first and last row,
    first and last column of the scores to be renewed.
    """
    frame, share = beside
    top, bottom, left, right = part
    first_y, first_x = max(top - frame, 0), max(left - frame, 0)
    last_y = min(bottom - 1 + side + frame, intensity.shape[0])
    last_x = min(right - 1 + side + frame, intensity.shape[1])
    # Sums over everything above and to the left, in double precision, so that equal is equal.
    sums = np.zeros((last_y - first_y + 1, last_x - first_x + 1))
    for y in range(1, sums.shape[0]):
        total = 0.0
        for x in range(1, sums.shape[1]):
            total += intensity[first_y + y - 1, first_x + x - 1]
            sums[y, x] = total
        for x in range(1, sums.shape[1]):
            sums[y, x] += sums[y - 1, x]
    for row in range(top, bottom):
        y0, y1 = row - first_y, row + side - first_y
        upper, lower = sums[y0], sums[y1]
        above, below = sums[max(y0 - frame, 0)], sums[min(y1 + frame, sums.shape[0] - 1)]
        for column in range(left, right):
            x0, x1 = column - first_x, column + side - first_x
            before, after = max(x0 - frame, 0), min(x1 + frame, sums.shape[1] - 1)
            inner = lower[x1] - lower[x0] - upper[x1] + upper[x0]
            outer = below[after] - below[before] - above[after] + above[before]
            scores[row, column] = inner - share * (outer - inner)


@kernel()
def add_squares(
    scores: Map, corners: NDArray[np.int64], gains: Vector, limits: tuple[int, int, int, int]
) -> None:
    """Add each gain to the scores of a rectangle of places, cut to the limits.

    corners: (N, 4) first row, row after the last, first column, column after the last.
    """
    top, bottom, left, right = limits
    for k in range(gains.size):
        gain = np.float32(gains[k])
        for row in range(max(corners[k, 0], top), min(corners[k, 1], bottom)):
            for column in range(max(corners[k, 2], left), min(corners[k, 3], right)):
                scores[row, column] += gain
