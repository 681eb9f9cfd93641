"""Multiply-adds of what networks are made of, by hand: each is a test of the counting.

A multiply-add is two operations. Biases are in neither figure, as is the custom.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

EXPONENTIAL = 8
"""Operations that an exponential, or another function computed by a polynomial, is counted as; a
convention, for no data sheet says."""
SOFTMAX = EXPONENTIAL + 4
"""A softmax's operations an element: maximum, difference, exponential, sum, quotient."""


@dataclass(frozen=True, slots=True)
class ScanWork:
    """What a selective scan does; `elements` in and out of memory, its state is not among them."""

    macs: int
    other: int
    read: int
    written: int


def convolution(output: Sequence[int], weight: Sequence[int]) -> int:
    """Multiply-adds of a convolution.

    output: (N, O, ...) lengths of what comes out, in which stride, padding and dilation are.
    weight: (O, C / groups, kernel...), in which groups are. Padding counts as if it were there.
    """
    return math.prod(output) * math.prod(weight[1:])


def transposed_convolution(given: Sequence[int], weight: Sequence[int]) -> int:
    """Multiply-adds of a transposed one: each number of `given` (N, C, ...) goes to all taps.

    weight: (C, O / groups, kernel...). What padding cuts off is computed all the same.
    """
    return math.prod(given) * math.prod(weight[1:])


def product(a: Sequence[int], output: Sequence[int]) -> int:
    """Multiply-adds of a matrix product, batched or not. a: (..., M, K). output: (..., M, N)."""
    return math.prod(output) * a[-1]


def attention(*, heads: int, queries: int, keys: int, head_dim: int) -> tuple[int, int]:
    """Of Q Kᵀ and of its softmax times V: multiply-adds, and other operations (the softmax).

    The projections are linear layers and count there.
    """
    return 2 * heads * queries * keys * head_dim, SOFTMAX * heads * queries * keys


def selective_scan(
    *, length: int, channels: int, states: int, batch: int = 1, groups: int = 1
) -> ScanWork:
    """A selective scan, S6 of Mamba (Gu and Dao 2023, arXiv 2312.00752, algorithm 2), in one pass.

    At each of `length` steps and for each of `channels`: delta u; for each of `states` exp(delta A)
    and (delta u) B, one multiply-add for the state and one for C h; and one for the skip D u.
    groups: how many sets of B and C there are for the channels (directions of a 2-D scan).
    """
    steps = batch * length * channels
    return ScanWork(
        macs=steps * (2 * states + 1),
        other=steps * (1 + states * (2 + EXPONENTIAL)),
        read=2 * steps + 2 * batch * length * groups * states + channels * (states + 1),
        written=steps,
    )


def accumulates(macs: int, spike_rate: float) -> int:
    """Additions that an event-driven engine does for a layer whose inputs are spikes.

    spike_rate: share of ones among the inputs. Each brings as many additions as it has weights; the
    rest none, and no multiplication is left. Inputs at a border have fewer taps: not looked at.
    """
    return round(macs * spike_rate)
