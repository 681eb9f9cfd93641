"""Arithmetic on potentials: the few kernels of a spiking network that multiply.

Potentials are (H, W, C) float32, C padded with zeros to a multiple of 16.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeperc.jit import kernel
from edgeperc.spiking.lanes import LANES, add_product, fires_between
from edgeperc.spiking.spikes import Potentials, Spikes


@kernel()
def add_enhanced(
    spikes: Spikes,
    channel_gate: Potentials,
    pixel_gate: Potentials,
    weight: Potentials,
    out: Potentials,
) -> None:
    """Make out += x + (x * (channel gate + pixel gate)) @ weight, x the spikes as numbers.

    channel_gate: (C,); pixel_gate: (H, W); weight: (C, outputs).
    """
    gated = np.empty(channel_gate.size, np.float32)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            fired = np.uint32(0)
            for c in range(gated.size):
                bit = (spikes[y, x, c >> 5] >> np.uint32(c & 31)) & np.uint32(1)
                fired |= bit
                gated[c] = np.float32(bit) * (channel_gate[c] + pixel_gate[y, x])
                out[y, x, c] += np.float32(bit)
            if fired:
                add_product(out[y, x], gated, weight, np.uint64(0))


@kernel()
def convolve_up(
    potentials: Potentials,
    weights: tuple[Potentials, Potentials],
    rows: tuple[int, int],
    out: Potentials,
) -> None:
    """Transposed 3x3 convolution of stride 2, padding 1, output padding 1: twice the size.

    weights: (9 * C, outputs), tap by tap, and bias (outputs,). out: (2 H, 2 W, outputs), of which
    rows [first, last) are written.
    """
    table, bias = weights
    height, width, inputs = potentials.shape
    for y in range(rows[0], rows[1]):
        for x in range(out.shape[1]):
            total = out[y, x]
            for c in range(total.size):
                total[c] = bias[c]
            # An even place sees one input through the middle tap, an odd one its two neighbours.
            for i in range(1 - y % 2, 3, 2):
                for j in range(1 - x % 2, 3, 2):
                    above, left = (y + 1 - i) >> 1, (x + 1 - j) >> 1
                    if above >= height or left >= width:
                        continue
                    row = np.uint64((i * 3 + j) * inputs)
                    add_product(total, potentials[above, left], table, row)


@kernel()
def attend(
    potentials: Potentials,
    weights: tuple[Potentials, Potentials],
    head: tuple[Potentials, Potentials],
    rows: tuple[int, int],
) -> None:
    """Make each pixel's potentials u `scale * u * sigmoid(u @ weight + bias) + shift`, in place.

    weights: (C, C) and (C,); head: scale (C,) and shift (C,). Rows [first, last) only.
    """
    weight, bias = weights
    scale, shift = head
    channels = bias.size
    line = np.empty((potentials.shape[1], channels), np.float32)
    for y in range(rows[0], rows[1]):
        for x in range(potentials.shape[1]):
            total = line[x]
            for c in range(channels):
                total[c] = bias[c]
            add_product(total, potentials[y, x], weight, np.uint64(0))
        _sigmoid(line.reshape(-1))
        for x in range(potentials.shape[1]):
            for c in range(channels):
                gated = potentials[y, x, c] * line[x, c]
                potentials[y, x, c] = scale[c] * gated + shift[c]


@kernel(fastmath={"contract"})
def _sigmoid(values: Potentials) -> None:
    """In place, to two units in the last place or so; no call, so that LLVM vectorises it."""
    log2_e = np.float32(1.442695)
    ln_2_high, ln_2_low = np.float32(0.693359375), np.float32(-2.1219444e-4)  # high: few bits
    for i in range(values.size):
        x = min(max(-values[i], np.float32(-87.0)), np.float32(87.0))
        n = np.floor(x * log2_e + np.float32(0.5))
        r = (x - n * ln_2_high) - n * ln_2_low
        power = np.float32(1 / 5040)
        for factor in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0):
            power = power * r + np.float32(factor)
        two_to_n = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
        values[i] = np.float32(1) / (np.float32(1) + power * two_to_n)


class Axis(NamedTuple):
    """Bilinear taps along one axis, align_corners=False: lower and upper index, upper's share."""

    lower: NDArray[np.uint32]
    upper: NDArray[np.uint32]
    share: NDArray[np.float32]


@lru_cache
def axis(size: int, wanted: int) -> Axis:
    """Taps that resize `size` pixels to `wanted`, as torch and onnxruntime place them."""
    places = (np.arange(wanted, dtype=np.float32) + np.float32(0.5)) * np.float32(size / wanted)
    places = np.maximum(places - np.float32(0.5), np.float32(0))
    lower = places.astype(np.uint32)
    upper = np.minimum(lower + np.uint32(1), np.uint32(size - 1))
    return Axis(lower, upper, (places - lower).astype(np.float32))


@kernel()
def resize(potentials: Potentials, rows: Axis, columns: Axis, out: Potentials) -> None:
    """Bilinear. out: (rows, columns, C)."""
    line = np.empty(potentials.shape[1:], np.float32)
    for y in range(out.shape[0]):
        _blend_rows(potentials, rows, y, line)
        for x in range(out.shape[1]):
            left, right = line[columns.lower[x]], line[columns.upper[x]]
            for c in range(left.size):
                out[y, x, c] = left[c] + columns.share[x] * (right[c] - left[c])


@kernel()
def classify(
    potentials: Potentials,
    taps: tuple[Axis, Axis],
    label_of: NDArray[np.uint8],
    rows: tuple[int, int],
    labels: NDArray[np.uint8],
) -> None:
    """Resize, fire, and look the label of the 16 spikes up.

    label_of: (65536,). labels: (H, W), of which rows [first, last) are written.
    """
    columns = taps[1]
    line = np.empty(potentials.shape[1:], np.float32)
    for y in range(rows[0], rows[1]):
        _blend_rows(potentials, taps[0], y, line)
        flat = line.reshape(-1)
        for x in range(labels.shape[1]):
            left, right = columns.lower[x] * np.uint64(LANES), columns.upper[x] * np.uint64(LANES)
            labels[y, x] = label_of[fires_between(flat, left, right, columns.share[x])]


@kernel(inline="always")
def _blend_rows(potentials: Potentials, rows: Axis, y: int, line: Potentials) -> None:
    upper, lower = potentials[rows.lower[y]].reshape(-1), potentials[rows.upper[y]].reshape(-1)
    flat = line.reshape(-1)
    share = rows.share[y]
    for i in range(flat.size):
        flat[i] = upper[i] + share * (lower[i] - upper[i])
