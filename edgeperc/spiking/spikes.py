"""Arithmetic on spikes: kernels in which a neuron's output is one bit.

Spikes are (H, W, words) uint32: channel c of a pixel is bit c % 32 of word c // 32. Potentials are
(H, W, C) float32, C padded with zeros to a multiple of 16. A neuron fires above zero.

A convolution of spikes needs no multiplication: the weights under each group of 4 or 8 channels are
summed beforehand for every pattern that the group can show, and a pixel adds up the table rows
that its neighbourhood selects. The order of a sum depends on nothing but the layer, so computing
only some of the pixels changes no bit of them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeperc.jit import kernel
from edgeperc.spiking.lanes import (
    LANES,
    add_rows,
    add_scaled_rows,
    fires,
)

Spikes: TypeAlias = NDArray[np.uint32]
Potentials: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.uint8]

WORD = 32
_BYTE_TABLE_LIMIT = 1_300_000
"""Bytes of a table over groups of 8 channels that still fits a 2 MB cache; above it groups of 4."""


class Convolution(NamedTuple):
    """A convolution of spikes as tables; padded by half the kernel, as all of SLTNet's are.

    table: (taps × words × groups << bits, C) float32: a row for each pattern of `bits` channels.
    groups: groups of a word that carry channels, a multiple of 4.
    """

    table: NDArray[np.float32]
    bias: NDArray[np.float32]
    height: int
    width: int
    stride: int
    bits: int
    groups: int


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
    taps, columns = height * width, padded(outputs)
    bits = 8 if inputs % WORD == 0 and taps * inputs * columns * 128 <= _BYTE_TABLE_LIMIT else 4
    groups = WORD // bits if inputs > 16 or bits == 8 else 4
    cells = np.zeros((taps, words(inputs) * groups * bits, columns))
    cells[:, :inputs, :outputs] = weight.transpose(2, 3, 1, 0).reshape(taps, inputs, outputs)
    biases = np.zeros(columns, np.float32)
    biases[:outputs] = 0 if bias is None else bias
    table = (_patterns(bits) @ cells.reshape(-1, bits, columns)).reshape(-1, columns)
    return Convolution(table.astype(np.float32), biases, height, width, stride, bits, groups)


def _patterns(bits: int) -> NDArray[np.float64]:
    """(2 ** bits, bits): the bits of each number, the lowest first."""
    return ((np.arange(1 << bits)[:, None] >> np.arange(bits)) & 1).astype(np.float64)


@kernel()
def convolve(spikes: Spikes, conv: Convolution, out: Potentials) -> None:
    """out: (ceil(H / stride), ceil(W / stride), C or more); the first C channels are written."""
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            _convolve_pixel(spikes, conv, y, x, out[y, x][: conv.bias.size])


@kernel()
def convolve_and_fire(
    spikes: Spikes, conv: Convolution, active: Mask, rows: tuple[int, int], out: Spikes
) -> None:
    """The neurons behind a convolution, where `active`, (h, w), is set in rows [first, last).

    out: (h, w, words); elsewhere it keeps what it held.
    """
    total = np.empty(conv.bias.size, np.float32)
    for y in range(rows[0], rows[1]):
        for x in range(out.shape[1]):
            if active[y, x]:
                _convolve_pixel(spikes, conv, y, x, total)
                _fire_pixel(total, out[y, x])


@kernel(inline="always")
def _convolve_pixel(spikes: Spikes, conv: Convolution, y: int, x: int, total: Potentials) -> None:
    height, width, depth = spikes.shape
    top, left = y * conv.stride - conv.height // 2, x * conv.stride - conv.width // 2
    bits, patterns = np.uint32(conv.bits), np.uint64(1 << conv.bits)
    mask, quad = np.uint32((1 << conv.bits) - 1), np.uint32((1 << (4 * conv.bits)) - 1)
    for c in range(total.size):
        total[c] = conv.bias[c]
    for i in range(max(0, -top), min(conv.height, height - top)):
        for j in range(max(0, -left), min(conv.width, width - left)):
            row = np.uint64((i * conv.width + j) * depth * conv.groups) * patterns
            for k in range(depth):
                word = spikes[np.uint64(top + i), np.uint64(left + j), k]
                if word == 0:
                    row += np.uint64(conv.groups) * patterns
                    continue
                for _ in range(conv.groups >> 2):
                    if word & quad != 0:
                        a = row + np.uint64(word & mask)
                        b = row + patterns + np.uint64((word >> bits) & mask)
                        upper = (word >> bits) >> bits
                        c = row + patterns + patterns + np.uint64(upper & mask)
                        d = row + patterns + patterns + patterns + np.uint64((upper >> bits) & mask)
                        add_rows(total, conv.table, (a, b, c, d))
                    word = (((word >> bits) >> bits) >> bits) >> bits
                    row += patterns << np.uint64(2)


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
def find_occupied(grid: Potentials, occupied: Spikes) -> None:
    """Bit b of occupied (H, W) is set where bin b of the grid (bins, H, W) is not zero."""
    for y in range(grid.shape[1]):
        bits = occupied[y]
        bits[:] = 0
        for b in range(grid.shape[0]):
            values = grid[b, y]
            for x in range(values.size):
                bits[x] |= np.uint32(values[x] != 0) << np.uint32(b)


@kernel()
def spread(active: NDArray[Any], stride: int, out: Mask) -> None:
    """Set out, (h, w), where a 3x3 convolution of this stride sees anything active, (H, W)."""
    height, width = active.shape
    line = np.zeros(width + 2, np.uint8)
    for y in range(out.shape[0]):
        line[:] = 0
        for above in range(max(0, y * stride - 1), min(height, y * stride + 2)):
            seen = active[above]
            for x in range(width):
                line[x + 1] |= seen[x] != 0
        seen_from = out[y]
        if stride == 1:
            for x in range(seen_from.size):
                seen_from[x] = line[x] | line[x + 1] | line[x + 2]
        else:
            for x in range(seen_from.size):
                seen_from[x] = line[x * stride] | line[x * stride + 1] | line[x * stride + 2]


@kernel()
def fire_on_grid(
    grid: Potentials,
    occupied: Spikes,
    weights: tuple[Potentials, Potentials],
    active: Mask,
    rows: tuple[int, int],
    out: Spikes,
) -> None:
    """The neurons behind a 3x3 convolution of a voxel grid, as `convolve_and_fire`.

    grid, occupied: see `find_occupied`. weights: (9 * bins, C) and bias (C,). Empty bins add
    nothing, so they are left out.
    """
    table, bias = weights
    bins, height, width = grid.shape
    total = np.empty(bias.size, np.float32)
    factors = np.empty(9 * bins + 3, np.float32)
    places = np.empty(9 * bins + 3, np.uint64)
    for y in range(rows[0], rows[1]):
        for x in range(width):
            if not active[y, x]:
                continue
            count = 0
            for i in range(max(0, 1 - y), min(3, height + 1 - y)):
                for j in range(max(0, 1 - x), min(3, width + 1 - x)):
                    bits = occupied[y + i - 1, x + j - 1]
                    if bits == 0:
                        continue
                    for b in range(bins):
                        factors[count] = grid[b, y + i - 1, x + j - 1]
                        places[count] = (i * 3 + j) * bins + b
                        count += np.int64((bits >> np.uint32(b)) & np.uint32(1))
            factors[count : count + 3] = 0
            places[count : count + 3] = 0
            for c in range(total.size):
                total[c] = bias[c]
            for n in range(0, count, 4):
                add_scaled_rows(
                    total,
                    table,
                    (places[n], places[n + 1], places[n + 2], places[n + 3]),
                    (factors[n], factors[n + 1], factors[n + 2], factors[n + 3]),
                )
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
def _choose(a: np.uint32, b: np.uint32, c: np.uint32, truth: Spikes, k: int) -> np.uint32:
    """For each bit the entry of its truth table, (8, words): bit a is worth 1, b 2 and c 4."""
    low: np.uint32 = (truth[0, k] & ~a | truth[1, k] & a) & ~b | (
        truth[2, k] & ~a | truth[3, k] & a
    ) & b
    high: np.uint32 = (truth[4, k] & ~a | truth[5, k] & a) & ~b | (
        truth[6, k] & ~a | truth[7, k] & a
    ) & b
    chosen: np.uint32 = low & ~c | high & c
    return chosen


@kernel()
def choose(a: Spikes, b: Spikes, c: Spikes, truth: Spikes, out: Spikes) -> None:
    """Neurons that see three spikes of their own channel, by truth tables; see `_choose`."""
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            for k in range(out.shape[2]):
                out[y, x, k] = _choose(a[y, x, k], b[y, x, k], c[y, x, k], truth, k)


@kernel()
def choose_along(spikes: Spikes, step: tuple[int, int], truth: Spikes, out: Spikes) -> None:
    """Neurons that see their own channel here and a step (dy, dx) before and after: depthwise."""
    height, width, depth = spikes.shape
    dy, dx = step
    for y in range(height):
        for x in range(width):
            has_before = y >= dy and x >= dx
            has_after = y + dy < height and x + dx < width
            for k in range(depth):
                before = spikes[y - dy, x - dx, k] if has_before else np.uint32(0)
                after = spikes[y + dy, x + dx, k] if has_after else np.uint32(0)
                out[y, x, k] = _choose(before, spikes[y, x, k], after, truth, k)


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
