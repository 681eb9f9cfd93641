"""Grids for each channel of what a norm hands on, and the one grid that all can be moved to.

    grids = channel_grids(rows, bits=4)
    common = common_grid(grids, bits=4)

Source: Li et al. 2023 (RepQ-ViT, arXiv 2212.08254), section 3.2; repository zkkli/RepQ-ViT. Ours:
limits narrower than its three quantiles, which few bits ask for; channels of one value, which fit
exactly; `scales_alone`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

PERCENTILES = (0.999, 0.9999, 0.99999)
PARTS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
"""Of the widest range, tried beside the quantiles."""

ONE_VALUE = 1e-6
"""A channel whose range is this share of its largest value has one value."""

Middle: TypeAlias = Literal["mean", "median"]


class Grid(NamedTuple):
    """Scales and integer zero points, float64: (C,) each for channels, () for all together.

    Codes are 0 to 2^bits - 1. A channel of nothing but 0 has the scale 0. A zero point lies beyond
    the codes where all values of a channel lie to one side of 0.
    """

    scale: Tensor
    zero: Tensor


def channel_grids(rows: Tensor, bits: int) -> Grid:
    """The grid of each channel, between the limits with the least squared error.

    rows: (N, C) values as the norm hands them on.
    """
    rows, steps = rows.double(), 2**bits - 1
    tried = []
    for low, high in _limits(rows):
        largest = torch.maximum(high.abs(), low.abs())
        one_value = high - low <= ONE_VALUE * largest
        # That one value is a step away from 0, up or down.
        scale = torch.where(one_value, largest, (high - low) / steps)
        zero = torch.where(one_value, (low < 0).double(), torch.round(-low / _not_0(scale)))
        tried.append(Grid(scale, zero))
    return _least_error(rows, tried, steps)


def scales_alone(rows: Tensor, bits: int, importance: Tensor) -> Grid:
    """As `channel_grids`, but the zero point of all channels is one and the same.

    importance: (C,) what a squared error in the channel costs, the squares of the weights that read
    it. The zero point is the one with the least sum of squared scales, weighted by it.
    """
    rows, steps = rows.double(), 2**bits - 1
    limits = [(low.clamp(max=0), high.clamp(min=0)) for low, high in _limits(rows, around_0=True)]
    zeros = torch.arange(steps + 1, dtype=torch.float64)
    weights = importance.double().clamp(min=1e-30)[:, None]
    cost = (_covering(*limits[0], zeros, steps).square() * weights).sum(0)
    zero = zeros[cost.argmin()]
    tried = [
        Grid(_covering(low, high, zero[None], steps)[:, 0], zero.expand(rows.shape[1]))
        for low, high in limits
    ]
    return _least_error(rows, tried, steps)


def common_grid(grids: Grid, bits: int, middle: Middle = "mean") -> Grid:
    """What all channels are moved to: mean or median of those that are not all 0.

    Which of them changes only how large the weights become. The zero point is rounded: only then is
    the common grid the channels' own (in the published code it is not).
    """
    there = grids.scale > 0
    if not bool(there.any()):
        return Grid(grids.scale.new_ones(()), grids.zero.new_zeros(()))
    of = torch.median if middle == "median" else torch.mean
    # A float32, as networks and quantizers compute with.
    scale = of(grids.scale[there]).float().double()
    return Grid(scale, of(grids.zero[there]).round().clamp(0, 2**bits - 1))


def on_grid(rows: Tensor, grid: Grid, bits: int) -> Tensor:
    """Values (N, C), each channel rounded to its grid."""
    codes = torch.round(rows / _not_0(grid.scale)) + grid.zero
    return (codes.clamp(0, 2**bits - 1) - grid.zero) * grid.scale


def _limits(rows: Tensor, *, around_0: bool = False) -> list[tuple[Tensor, Tensor]]:
    """Lower and upper limits (C,) to try, the widest first; the narrower ones around its middle."""
    ordered, last = rows.sort(0).values, len(rows) - 1
    found = [round(share * last) for share in reversed(PERCENTILES)]
    limits = [(ordered[last - index], ordered[index]) for index in found]
    low, high = limits[0]
    middle = torch.zeros_like(low) if around_0 else (low + high) / 2
    return limits + [(torch.lerp(middle, low, p), torch.lerp(middle, high, p)) for p in PARTS]


def _covering(low: Tensor, high: Tensor, zeros: Tensor, steps: int) -> Tensor:
    """Least scales with which each zero point reaches both limits, (C, zeros); 0 for none."""
    up, down = high[:, None] / (steps - zeros), -low[:, None] / zeros
    return torch.maximum(up.nan_to_num(0.0, posinf=math.inf), down.nan_to_num(0.0, posinf=math.inf))


def _least_error(rows: Tensor, tried: Sequence[Grid], steps: int) -> Grid:
    """Of several grids the best for each channel; of equals, the first."""
    bits = steps.bit_length()
    errors = torch.stack([(on_grid(rows, grid, bits) - rows).square().mean(0) for grid in tried])
    best = errors.argmin(0)[None]
    scales, zeros = (torch.stack(parts) for parts in zip(*tried, strict=True))
    return Grid(scales.gather(0, best)[0], zeros.gather(0, best)[0])


def _not_0(scale: Tensor) -> Tensor:
    return torch.where(scale > 0, scale, torch.ones_like(scale))
