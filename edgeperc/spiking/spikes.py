"""Arithmetic on spikes: kernels in which a neuron's output is one bit.

Spikes are (H, W, words) uint32: channel c of a pixel is bit c % 32 of word c // 32. Potentials are
(H, W, C) float32, C padded with zeros to a multiple of 16. A neuron fires above zero.

A convolution of spikes needs no multiplication: the weights under each four input channels are
summed beforehand for each of the 16 patterns that these can show, and a pixel adds up the table
rows that its neighbourhood selects. 32 output channels of up to 64 pixels are summed at a time, tap
by tap, so that the 16 KiB of table in use stay in the nearest cache. The order of a sum depends on
nothing but the layer, so computing only some of the pixels changes no bit of them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeperc.jit import kernel
from edgeperc.spiking.lanes import LANES, add_product, add_selected, fires

Spikes: TypeAlias = NDArray[np.uint32]
Potentials: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.uint8]
Truth: TypeAlias = tuple[
    np.uint32, np.uint32, np.uint32, np.uint32, np.uint32, np.uint32, np.uint32, np.uint32
]

WORD = 32
_TILE = 64


class Convolution(NamedTuple):
    """A convolution of spikes as tables; padded by half the kernel, as all of SLTNet's are.

    table: flat float32 of (output words, taps, input words, groups of four inputs, 16 patterns,
    outputs of a word). A word has 4 groups and 16 outputs where there are no more, else 8 and 32.
    bias: (output words × outputs of a word,). channels: outputs, padded for a potential array.
    """

    table: NDArray[np.float32]
    bias: NDArray[np.float32]
    groups: int
    columns: int
    channels: int
    height: int
    width: int
    stride: int


def padded(channels: int) -> int:
    """Channels of a potential array: the next multiple of 16."""
    return -(-channels // LANES) * LANES


def words(channels: int) -> int:
    """Words of a spike array."""
    return -(-channels // WORD)


def convolution(
    weight: NDArray[np.floating[Any]],
    bias: NDArray[np.floating[Any]] | None = None,
    *,
    stride: int = 1,
) -> Convolution:
    """Tables of a convolution. weight: (out, in, kh, kw); bias: (out,) or None for zeros."""
    outputs, inputs, height, width = weight.shape
    word_in, columns = (WORD if n > LANES else LANES for n in (inputs, outputs))
    into, out_of = words(outputs), words(inputs)
    cells = np.zeros((height * width, out_of * word_in, into * columns))
    cells[:, :inputs, :outputs] = weight.transpose(2, 3, 1, 0).reshape(-1, inputs, outputs)
    groups = cells.reshape(height * width, out_of * word_in // 4, 4, into, columns)
    patterns = (np.arange(16)[:, None] >> np.arange(4)) & 1
    table = np.einsum("pc,tgcow->otgpw", patterns, groups)
    biases = np.zeros(into * columns, np.float32)
    biases[:outputs] = 0 if bias is None else bias
    return Convolution(
        table=np.ascontiguousarray(table, np.float32).reshape(-1),
        bias=biases,
        groups=word_in // 4,
        columns=columns,
        channels=padded(outputs),
        height=height,
        width=width,
        stride=stride,
    )


@kernel()
def convolve(spikes: Spikes, conv: Convolution, rows: tuple[int, int], out: Potentials) -> None:
    """Potentials in rows [first, last).

    out: (ceil(H / stride), ceil(W / stride), C or more), of which the convolution's C are written.
    """
    totals = np.empty((_TILE, conv.columns), np.float32)
    tile = np.empty(_TILE, np.int64)
    for y in range(rows[0], rows[1]):
        for x in range(0, out.shape[1], _TILE):
            places = tile[: out.shape[1] - x]
            for i in range(places.size):
                places[i] = x + i
            for k in range(conv.bias.size // conv.columns):
                _sum(spikes, conv, k, y, places, totals)
                size = min(WORD, conv.channels - k * WORD)
                for i in range(places.size):
                    cells = out[y, places[i]][k * WORD : k * WORD + size]
                    total = totals[i]
                    for c in range(size):
                        cells[c] = total[c]


@kernel()
def convolve_and_fire(
    spikes: Spikes, conv: Convolution, active: Mask, rows: tuple[int, int], out: Spikes
) -> None:
    """The neurons behind a convolution, where `active`, (h, w), is set in rows [first, last).

    out: (h, w, words); elsewhere it keeps what it held.
    """
    totals = np.empty((_TILE, conv.columns), np.float32)
    places = np.empty(_TILE, np.int64)
    for y in range(rows[0], rows[1]):
        x = 0
        while x < out.shape[1]:
            count = 0
            while x < out.shape[1] and count < _TILE:
                places[count] = x
                count += active[y, x] != 0
                x += 1
            for k in range(out.shape[2]):
                _sum(spikes, conv, k, y, places[:count], totals)
                for i in range(count):
                    _fire_pixel(totals[i], out[y, places[i], k : k + 1])


@kernel(inline="always")
def _sum(
    spikes: Spikes,
    conv: Convolution,
    output_word: int,
    y: int,
    places: NDArray[np.int64],
    totals: Potentials,
) -> None:
    """Potentials of a word's channels at output pixels (y, places), one row of `totals` each."""
    height, width, depth = spikes.shape
    top = y * conv.stride - conv.height // 2
    bias = conv.bias[output_word * conv.columns : (output_word + 1) * conv.columns]
    wide = (conv.groups == 8, conv.columns == WORD)
    for i in range(places.size):
        total = totals[i]
        for c in range(bias.size):
            total[c] = bias[c]
    for dy in range(max(0, -top), min(conv.height, height - top)):
        line = spikes[top + dy]
        for dx in range(conv.width):
            shift = dx - conv.width // 2
            for k in range(depth):
                tap = ((output_word * conv.height + dy) * conv.width + dx) * depth + k
                first = np.uint64(tap * conv.groups * 16 * conv.columns)
                for i in range(places.size):
                    # A place left of the image is a huge unsigned number, right of it as well.
                    x = np.uint64(places[i] * conv.stride + shift)
                    if x < np.uint64(width):
                        word = line[x, k]
                        if word != 0:
                            add_selected(
                                totals, np.uint64(i), conv.table, first, np.uint64(word), wide
                            )


@kernel(inline="always")
def _fire_pixel(potentials: Potentials, spikes: Spikes) -> None:
    for k in range(spikes.size):
        first = np.uint64(WORD * k)
        word: np.uint32 = fires(potentials, first)
        if first + np.uint64(LANES) < np.uint64(potentials.size):
            word |= fires(potentials, first + np.uint64(LANES)) << np.uint32(LANES)
        spikes[k] = word


@kernel()
def fire(potentials: Potentials, scale: Potentials, shift: Potentials, out: Spikes) -> None:
    """Neurons on `scale * potential + shift`. scale, shift: (C,); out: (H, W, words)."""
    total = np.empty(potentials.shape[2], np.float32)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            for c in range(total.size):
                total[c] = scale[c] * potentials[y, x, c] + shift[c]
            _fire_pixel(total, out[y, x])


@kernel()
def gather(grid: Potentials, rows: tuple[int, int], near: Mask, pixels: Potentials) -> None:
    """Bring a voxel grid's bins together: pixels[y, (x + 1) * bins + b] = grid[b, y, x].

    grid: (bins, H, W). near: (H, W), set where the pixel, the one before or the one after it in
    the row holds anything. pixels: (H, more than (W + 2) * bins), zero outside the image.
    Rows [first, last) are written.
    """
    bins, _, width = grid.shape
    seen = np.zeros(width + 2, np.uint8)
    for y in range(rows[0], rows[1]):
        seen[:] = 0
        for b in range(bins):
            values, cells = grid[b, y], pixels[y, bins + b : (width + 1) * bins + b]
            for x in range(width):
                seen[x + 1] |= values[x] != 0
            for x in range(width):
                cells[np.uint64(x) * np.uint64(bins)] = values[x]
        neighbours = near[y]
        for x in range(width):
            neighbours[x] = seen[x] | seen[x + 1] | seen[x + 2]


@kernel()
def changed(spikes: Spikes, rest: Spikes, out: Mask) -> None:
    """Set out, (H, W), where any channel is not what it is at rest."""
    for y in range(out.shape[0]):
        differs = out[y]
        differs[:] = 0
        for k in range(spikes.shape[2]):
            for x in range(differs.size):
                differs[x] |= spikes[y, x, k] != rest[y, x, k]


@kernel()
def spread(active: Mask, reach: int, stride: int, out: Mask) -> None:
    """Set out, (h, w), where a convolution of this stride sees anything active, (H, W).

    Its kernel is 3 high and `2 * reach + 1` wide, reach 0 or 1.
    """
    height, width = active.shape
    line = np.zeros(width + 2, np.uint8)
    for y in range(out.shape[0]):
        line[:] = 0
        for above in range(max(0, y * stride - 1), min(height, y * stride + 2)):
            seen = active[above]
            for x in range(width):
                line[x + 1] |= seen[x]
        sees = out[y]
        if stride == 1:
            for x in range(sees.size):
                sees[x] = line[x + 1] | reach * (line[x] | line[x + 2])
        else:
            for x in range(sees.size):
                sides = line[x * stride] | line[x * stride + 2]
                sees[x] = line[x * stride + 1] | reach * sides


@kernel()
def fire_on_pixels(
    pixels: Potentials,
    near: Mask,
    weights: tuple[Potentials, Potentials],
    active: Mask,
    rows: tuple[int, int],
    out: Spikes,
) -> None:
    """The neurons behind a 3x3 convolution of a voxel grid, as `convolve_and_fire`.

    pixels, near: from `gather`; three neighbours of a row lie side by side. weights: (3 * n, C), n
    the next multiple of 4 above 3 * bins and the rows in between zero, and bias (C,).
    """
    table, bias = weights
    height, width, _ = out.shape
    size = table.shape[0] // 3
    bins = pixels.shape[1] // (width + 2)
    total = np.empty(bias.size, np.float32)
    for y in range(rows[0], rows[1]):
        for x in range(width):
            if active[y, x]:
                for c in range(total.size):
                    total[c] = bias[c]
                for i in range(max(0, 1 - y), min(3, height + 1 - y)):
                    if near[y + i - 1, x]:
                        seen = pixels[y + i - 1, x * bins : x * bins + size]
                        add_product(total, seen, table, np.uint64(i * size))
                _fire_pixel(total, out[y, x])


class Channels(NamedTuple):
    """Some channels of a spike array: those of word k are bits[edges[k] : edges[k + 1]]."""

    bits: Spikes
    edges: NDArray[np.int64]


def channels(indices: NDArray[np.integer[Any]], depth: int) -> Channels:
    """Channels by ascending index, of a spike array with this many words."""
    edges = np.searchsorted(indices, np.arange(depth + 1) * WORD)
    return Channels((indices % WORD).astype(np.uint32), edges.astype(np.int64))


@kernel()
def add_spikes(spikes: Spikes, chosen: Channels, first: int, out: Potentials) -> None:
    """Add the chosen channels, as 0.0 and 1.0, to the channels of out from `first` on."""
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            for k in range(spikes.shape[2]):
                word = spikes[y, x, k]
                start, stop = chosen.edges[k], chosen.edges[k + 1]
                cells, bits = out[y, x][first + start : first + stop], chosen.bits[start:stop]
                for i in range(bits.size):
                    cells[i] += np.float32((word >> bits[i]) & np.uint32(1))


@kernel()
def count_spikes(spikes: Spikes, counts: NDArray[np.int64]) -> None:
    """How many pixels of each channel fired. counts: (words * 32,), overwritten."""
    counts[:] = 0
    for y in range(spikes.shape[0]):
        for x in range(spikes.shape[1]):
            for k in range(spikes.shape[2]):
                word = spikes[y, x, k]
                part = counts[WORD * k : WORD * k + WORD]
                for c in range(part.size):
                    part[c] += (word >> np.uint32(c)) & np.uint32(1)


@kernel(inline="always")
def _choose(a: np.uint32, b: np.uint32, c: np.uint32, truth: Truth) -> np.uint32:
    """For each bit the entry of its truth table; bit a is worth 1, b 2 and c 4."""
    low: np.uint32 = (truth[0] & ~a | truth[1] & a) & ~b | (truth[2] & ~a | truth[3] & a) & b
    high: np.uint32 = (truth[4] & ~a | truth[5] & a) & ~b | (truth[6] & ~a | truth[7] & a) & b
    chosen: np.uint32 = low & ~c | high & c
    return chosen


@kernel(inline="always")
def _truth(table: Spikes, k: int) -> Truth:
    """The table of word k, out of (8, words), as values that no store can change."""
    a, b, c, d = table[0, k], table[1, k], table[2, k], table[3, k]
    return a, b, c, d, table[4, k], table[5, k], table[6, k], table[7, k]


@kernel()
def choose(a: Spikes, b: Spikes, c: Spikes, table: Spikes, out: Spikes) -> None:
    """Neurons that see three spikes of their own channel, by truth tables (8, words)."""
    for k in range(out.shape[2]):
        truth = _truth(table, k)
        for y in range(out.shape[0]):
            for x in range(out.shape[1]):
                out[y, x, k] = _choose(a[y, x, k], b[y, x, k], c[y, x, k], truth)


@kernel()
def choose_along(spikes: Spikes, step: tuple[int, int], table: Spikes, out: Spikes) -> None:
    """Neurons that see their own channel here and a step (dy, dx) before and after: depthwise."""
    height, width, depth = spikes.shape
    dy, dx = step
    # Three lines with a silent border, so that no pixel has to ask where it lies.
    before = np.zeros(width + 2 * dx, np.uint32)
    here, after = np.zeros_like(before), np.zeros_like(before)
    for k in range(depth):
        truth = _truth(table, k)
        for y in range(height):
            _copy_line(spikes, y - dy, k, before[dx:])
            _copy_line(spikes, y, k, here[dx:])
            _copy_line(spikes, y + dy, k, after[dx:])
            middle, right = here[dx:], after[2 * dx :]
            for x in range(width):
                out[y, x, k] = _choose(before[x], middle[x], right[x], truth)


@kernel(inline="always")
def _copy_line(spikes: Spikes, y: int, k: int, line: Spikes) -> None:
    """Word k of line y to the beginning of `line`; silence outside the image."""
    width = spikes.shape[1]
    if 0 <= y < spikes.shape[0]:
        for x in range(width):
            line[x] = spikes[y, x, k]
    else:
        line[:width] = 0


@kernel()
def pixel_gate(
    spikes: Spikes, channels: int, weight: Potentials, bias: float, gate: Potentials
) -> None:
    """sigmoid(3x3 convolution of the channels' mean and maximum). weight: (2, 3, 3); gate: (H, W).

    The plane of means and that of maxima are zero outside.
    """
    height, width, depth = spikes.shape
    planes = np.zeros((2, height + 2, width + 2), np.float32)
    for y in range(height):
        for x in range(width):
            fired = np.uint32(0)
            for k in range(depth):
                fired += _popcount(spikes[y, x, k])
            planes[0, y + 1, x + 1] = np.float32(fired) / np.float32(channels)
            planes[1, y + 1, x + 1] = fired != 0
    for y in range(height):
        for x in range(width):
            total = np.float32(bias)
            for p in range(2):
                for i in range(3):
                    for j in range(3):
                        total += weight[p, i, j] * planes[p, y + i, x + j]
            gate[y, x] = 1 / (1 + math.exp(-total))


@kernel(inline="always")
def _popcount(word: np.uint32) -> np.uint32:
    word -= (word >> np.uint32(1)) & np.uint32(0x55555555)
    word = (word & np.uint32(0x33333333)) + ((word >> np.uint32(2)) & np.uint32(0x33333333))
    word = (word + (word >> np.uint32(4))) & np.uint32(0x0F0F0F0F)
    total: np.uint32 = ((word * np.uint32(0x01010101)) & np.uint32(0xFFFFFFFF)) >> np.uint32(24)
    return total
