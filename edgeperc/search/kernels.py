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

FARTHEST = 60
"""Cells that targets move at most between two calls of `flow`; farther ones count as these."""


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
    padded = np.empty(width + 2 * FARTHEST + 2, np.float32)
    starts, shares = np.empty(moved.size, np.int64), np.empty(moved.size, np.float32)
    for k in range(4):
        layer = layers[k]
        outside = np.float32(1.0) if k < 2 else fresh
        line[:] = outside
        padded[:] = outside
        for label in range(moved.size):
            by = min(moved[label], float(FARTHEST))
            source = FARTHEST - by if k % 2 == 0 else FARTHEST + by
            starts[label] = int(source)
            shares[label] = source - starts[label]
        for y in range(height):
            padded[FARTHEST : FARTHEST + width] = layer[y]
            _shift(padded, labels[y], starts, shares, line[reach_x : reach_x + width])
            row = blurred[y + reach_y]
            row[:] = 0
            for i in range(across.size):
                _add(row, across[i], line[i : i + width])
        for i in range(reach_y):
            blurred[i] = blurred[reach_y]
            blurred[height + reach_y + i] = blurred[height + reach_y - 1]
        for y in range(height):
            row = layer[y]
            row[:] = recovery * outside
            for i in range(down.size):
                _add(row, down[i] * (np.float32(1.0) - recovery), blurred[y + i])
    for k in range(2):
        for y in range(height):
            _add(layers[k + 2, y], growth, layers[k, y])


@kernel(inline="always")
def _add(to: Map, weight: np.float32, values: Map) -> None:
    for x in range(to.size):
        to[x] += weight * values[x]


@kernel(inline="always")
def _shift(padded: Map, labels: Labels, starts: NDArray[np.int64], shares: Map, out: Map) -> None:
    """What stands in each cell after all has moved.

    padded: the row with what lies outside. starts, shares: by label, how much further on in it the
    first of two cells is from which a cell's content comes, and the share of the second.
    """
    for x in range(out.size):
        first = np.uint64(x + starts[labels[x]])  # unsigned: no test for a negative index
        before, after = padded[first], padded[first + np.uint64(1)]
        out[x] = before + shares[labels[x]] * (after - before)


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
    wide = side + 2 * frame
    sums = _sums(worth, top - frame, left - frame, bottom - top + wide, right - left + wide)
    for row in range(bottom - top):
        above, below = sums[row], sums[row + wide]
        upper, lower = sums[row + frame], sums[row + frame + side]
        _squares(
            (upper[frame:], upper[frame + side :], lower[frame:], lower[frame + side :]),
            (above, above[wide:], below, below[wide:]),
            share,
            scores[top + row, left:right],
        )


@kernel(inline="always")
def _squares(
    inner: tuple[Vector, Vector, Vector, Vector],
    outer: tuple[Vector, Vector, Vector, Vector],
    share: float,
    out: Map,
) -> None:
    """One row of scores by the corners of inner and outer squares: both above, both below."""
    for x in range(out.size):
        within = inner[3][x] - inner[2][x] - inner[1][x] + inner[0][x]
        whole = outer[3][x] - outer[2][x] - outer[1][x] + outer[0][x]
        out[x] = within - share * (whole - within)


@kernel()
def _sums(values: Map, top: int, left: int, rows: int, columns: int) -> Vector:
    """Sums over all above and to the left within a rectangle, with zeros beyond the map.

    In double precision, so that equal squares have equal scores. Returns (rows, columns).
    """
    height, width = values.shape
    sums = np.zeros((rows, columns))
    first, last = max(-left, 0), min(width - left, columns - 1)
    for y in range(1, rows):
        row = sums[y]
        if 0 <= top + y - 1 < height:
            total = 0.0
            for x in range(first, last):
                total += values[top + y - 1, left + x]
                row[x + 1] = total
            row[last + 1 :] = total
        for x in range(columns):
            row[x] += sums[y - 1, x]
    return sums
