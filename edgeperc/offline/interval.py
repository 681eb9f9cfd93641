"""Interval arithmetic over channels: what a layer can put out, whatever goes in.

Bounds are float64 and widened by the rounding that float32 arithmetic may add, so that they hold
for the network as it runs, not only on paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

UNBOUNDED = 1e30
"""Stands for infinity, with room to multiply and add."""

_EPS = 2.0**-23


@dataclass(frozen=True)
class Interval:
    """Per-channel bounds, float64 (C,) each: low <= value <= high at every pixel."""

    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, low: float, high: float, channels: int) -> Interval:
        """The same bounds for every channel."""
        ones = torch.ones(channels, dtype=torch.float64)
        return cls(low * ones, high * ones)

    @property
    def size(self) -> Tensor:
        """The largest magnitude, (C,)."""
        return torch.maximum(self.low.abs(), self.high.abs())

    @property
    def silent(self) -> Tensor:
        """Channels that are always exactly zero, (C,) bool."""
        return (self.low == 0) & (self.high == 0)

    def __add__(self, other: Interval) -> Interval:
        margin = 2 * _EPS * (self.size + other.size)
        return Interval(self.low + other.low - margin, self.high + other.high + margin)

    def __getitem__(self, channels: Tensor | slice) -> Interval:
        return Interval(self.low[channels], self.high[channels])

    def widened(self, relative: float) -> Interval:
        """Room for the rounding of a mean or an interpolation."""
        return Interval(self.low - relative * self.size, self.high + relative * self.size)

    def with_zero(self) -> Interval:
        """Also allow zero, which is what padding adds."""
        return Interval(self.low.clamp(max=0), self.high.clamp(min=0))

    def scaled(self, scale: Tensor, shift: Tensor) -> Interval:
        """Bounds of scale * x + shift per channel; a scale may be negative."""
        a, b = scale.double().flatten(), shift.double().flatten()
        margin = 4 * _EPS * (a.abs() * self.size + b.abs())
        ends = torch.stack([a * self.low, a * self.high])
        return Interval(ends.amin(0) + b - margin, ends.amax(0) + b + margin)

    def fired(self) -> Interval:
        """Bounds of the spikes of these potentials: 1 where above zero."""
        return Interval((self.low > 0).double(), (self.high > 0).double())


def cat(parts: list[Interval]) -> Interval:
    """Channels side by side."""
    return Interval(torch.cat([p.low for p in parts]), torch.cat([p.high for p in parts]))


def through(layer: nn.Conv2d | nn.ConvTranspose2d, x: Interval) -> Interval:
    """Bounds after a convolution: each tap takes the end that pushes furthest.

    At a border, and between the inputs of a strided transposed convolution, some taps see nothing:
    with zero among the inputs' values the sums below cover those too.
    """
    weight = layer.weight.detach().double()
    groups = layer.groups
    if isinstance(layer, nn.ConvTranspose2d):
        weight = weight.transpose(0, 1)
        groups = 1
    if isinstance(layer, nn.ConvTranspose2d) or tuple(layer.kernel_size) != (1, 1):
        x = x.with_zero()
    up = weight.clamp(min=0).sum((2, 3), keepdim=True)
    down = weight.clamp(max=0).sum((2, 3), keepdim=True)
    low, high = x.low[None, :, None, None], x.high[None, :, None, None]

    def mix(taps: Tensor, values: Tensor) -> Tensor:
        return conv2d(values, taps, groups=groups).flatten()

    bias = torch.zeros(1) if layer.bias is None else layer.bias.detach().double()
    terms = weight[0].numel()
    size = torch.maximum(low.abs(), high.abs())
    margin = (terms + 4) * _EPS * (mix(up - down, size) + bias.abs())
    return Interval(
        mix(up, low) + mix(down, high) + bias - margin,
        mix(up, high) + mix(down, low) + bias + margin,
    )
