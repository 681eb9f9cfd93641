"""Arithmetic on the maps of a search, compiled: a look, the passing of time, scores of looks.

Maps are (H, W) float32. Their cells are so small that a look covers `side` x `side` of them, and
its place is named by the row and column of the first; `scores` has one number for each place.

`layers` is (4, H, W): how much of a cell is unseen to targets that move to the right, and to the
left; and both again, grown by the time for which it was unseen. The worth of a cell is the mean of
the latter times the rate of its region, plus what is suspected there.
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

    maps: layers, suspected and worth, changed in place. window: first row, first column, side.
    searched: (256,) cells by label.
    """
    layers, suspected, worth = maps
    top, left, side = window
    height, width = worth.shape
    missed = np.float32(1.0 - pd)
    for y in range(max(top, 0), min(top + side, height)):
        for x in range(max(left, 0), min(left + side, width)):
            searched[labels[y, x]] += pd * 0.5 * (layers[0, y, x] + layers[1, y, x])
            for k in range(4):
                layers[k, y, x] *= missed
            suspected[y, x] *= missed
            worth[y, x] *= missed


@kernel()
def unlook(
    maps: tuple[Map, Map, Map], labels: Labels, rates: Vector, window: tuple[int, int, int],
    pd: float,
) -> None:  # fmt: skip
    """Take back a look that did not happen."""
    layers, suspected, worth = maps
    top, left, side = window
    height, width = worth.shape
    back = np.float32(1.0 / max(1.0 - pd, 1e-3))
    for y in range(max(top, 0), min(top + side, height)):
        for x in range(max(left, 0), min(left + side, width)):
            for k in range(2):
                grown = layers[k + 2, y, x] / max(layers[k, y, x], np.float32(1e-9))
                layers[k, y, x] = min(layers[k, y, x] * back, np.float32(1.0))
                layers[k + 2, y, x] = layers[k, y, x] * grown
            suspected[y, x] = min(suspected[y, x] * back, np.float32(1.0))
            mean = 0.5 * (layers[2, y, x] + layers[3, y, x])
            worth[y, x] = rates[labels[y, x]] * mean + suspected[y, x]


@kernel()
def value(layers: Map, suspected: Map, labels: Labels, rates: Vector, worth: Map) -> None:
    """Fill worth by layers, suspicions and rates."""
    half = np.empty(rates.size, np.float32)
    for label in range(rates.size):
        half[label] = 0.5 * rates[label]
    for y in range(worth.shape[0]):
        for x in range(worth.shape[1]):
            both = layers[2, y, x] + layers[3, y, x]
            worth[y, x] = half[labels[y, x]] * both + suspected[y, x]


@kernel()
def flow(
    layers: Map, labels: Labels, moved: Vector, blur: tuple[Map, Map],
    gains: tuple[float, float, float],
) -> None:  # fmt: skip
    """Let what is unseen move to the right and to the left, and blur it along rows and columns.

    moved: cells by label (256,). blur: odd numbers of weights with sum 1, along rows and along
    columns. Beyond the left and right border all is unseen, so targets come in from there; beyond
    the upper and lower border it is as inside. gains: share of what was seen that becomes unseen
    wherever it is, growth of the worth of what stays unseen, and worth of what comes in.
    """
    across, down = blur
    height, width = labels.shape
    reach_x, reach_y = across.size // 2, down.size // 2
    line = np.empty(width + 2 * reach_x, np.float32)
    blurred = np.empty((height + 2 * reach_y, width), np.float32)
    recovery, growth, fresh = np.float32(gains[0]), np.float32(gains[1]), np.float32(gains[2])
    for k in range(4):
        layer = layers[k]
        sign = 1.0 - 2.0 * (k % 2)
        outside = np.float32(1.0) if k < 2 else fresh
        line[:] = outside
        for y in range(height):
            _shift(layer[y], labels[y], moved, sign, outside, line[reach_x : reach_x + width])
            row = blurred[y + reach_y]
            row[:] = 0
            for i in range(across.size):
                for x in range(width):
                    row[x] += across[i] * line[x + i]
        for i in range(reach_y):
            blurred[i] = blurred[reach_y]
            blurred[height + reach_y + i] = blurred[height + reach_y - 1]
        for y in range(height):
            row = layer[y]
            row[:] = recovery * outside
            for i in range(down.size):
                weight = down[i] * (np.float32(1.0) - recovery)
                for x in range(width):
                    row[x] += weight * blurred[y + i, x]
    for k in range(2):
        for y in range(height):
            for x in range(width):
                layers[k + 2, y, x] += growth * layers[k, y, x]


@kernel()
def _shift(
    row: Map, labels: Labels, moved: Vector, sign: float, outside: np.float32, out: Map
) -> None:
    """What stands in each cell after all has moved, `outside` where it comes from there."""
    width = row.size
    for x in range(width):
        source = x - sign * moved[labels[x]]
        lower = int(np.floor(source))
        share = np.float32(source - lower)
        first = row[lower] if 0 <= lower < width else outside
        second = row[lower + 1] if -1 <= lower < width - 1 else outside
        out[x] = first + share * (second - first)


@kernel()
def score(
    worth: Map, side: int, beside: tuple[int, float], part: tuple[int, int, int, int],
    scores: Map,
) -> None:  # fmt: skip
    """Score looks by the worth they cover, less a share of what lies close beside them.

    What lies beside counts against a look so that looks begin at the corners and edges of what is
    left, and leave no slivers that later looks could only take one at a time.
    beside: width in cells of the frame around a look, and its share. part: first and last row,
    first and last column of the scores to be renewed.
    """
    frame, share = beside
    top, bottom, left, right = part
    first_y, first_x = max(top - frame, 0), max(left - frame, 0)
    last_y = min(bottom - 1 + side + frame, worth.shape[0])
    last_x = min(right - 1 + side + frame, worth.shape[1])
    # Sums over everything above and to the left, in double precision, so that equal is equal.
    sums = np.zeros((last_y - first_y + 1, last_x - first_x + 1))
    for y in range(1, sums.shape[0]):
        total = 0.0
        for x in range(1, sums.shape[1]):
            total += worth[first_y + y - 1, first_x + x - 1]
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
