"""Learned steps of activation grids, and QDrop: a part of the values goes past the grid.

A step learns through the rounding as if it were not there; its gradient is divided by the root of
values times codes, so that it moves no faster than a weight. Sources: Esser et al. 2020 (LSQ, arXiv
1902.08153), section 2; Wei et al. 2022 (QDrop, arXiv 2203.05740). Ours: what is learned is the
step's ratio to the fitted one, so that one learning rate serves grids of all scales.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeperc.offline.compress.quantizers.base import Quantizer
from edgeperc.offline.compress.quantizers.uniform import Uniform

SMALLEST = 0.05
"""A step shrinks to this share of the fitted one at most."""


class LearnedStep(Quantizer):
    """Stands in for an activation's quantizer while a unit learns; `settled` gives it back.

    The step of a `Uniform` is learned, other grids stay as they are. drop: share of the values that
    pass unquantized, drawn anew each time.
    """

    hard = False

    def __init__(self, grid: Quantizer, *, drop: float, generator: torch.Generator) -> None:
        super().__init__(grid.bits)
        self.grid, self.drop, self.enabled = grid, drop, grid.enabled
        self._generator = generator
        if isinstance(grid, Uniform):
            self.ratio = nn.Parameter(torch.ones_like(grid.scale))

    def forward(self, x: Tensor) -> Tensor:
        """Values of the grid with some of x among them; x where it is off."""
        if not self.enabled:
            return x
        rounded = self._learned(self.grid, x) if isinstance(self.grid, Uniform) else self.grid(x)
        return dropped(rounded, x, self.drop, self._generator)

    @torch.no_grad()
    def settled(self) -> Quantizer:
        """The quantizer itself, its step as learned, without drop."""
        if isinstance(self.grid, Uniform):
            self.grid.scale = self.grid.scale * self.ratio.clamp(min=SMALLEST)
        return self.grid

    def fit(self, values: Tensor) -> None:
        """Nothing: the grid was fitted before."""

    def quantize(self, x: Tensor) -> Tensor:
        """As the fitted grid does."""
        return self.grid.quantize(x)

    def dequantize(self, codes: Tensor) -> Tensor:
        """As the fitted grid does."""
        return self.grid.dequantize(codes)

    def _learned(self, grid: Uniform, x: Tensor) -> Tensor:
        scale, zero = grid._along(x)
        slow = (x.numel() * grid.codes[1]) ** -0.5
        ratio = slowed(self.ratio.clamp(min=SMALLEST), slow)
        step = scale * ratio.reshape(scale.shape)
        scaled = x / step
        codes = (scaled + (scaled.round() - scaled).detach() + zero).clamp(*grid.codes)
        return (codes - zero) * step


def dropped(rounded: Tensor, exact: Tensor, drop: float, generator: torch.Generator) -> Tensor:
    """`rounded` with a share of `drop` of its values replaced by `exact`'s; shapes alike."""
    if drop == 0:
        return rounded
    passes = torch.rand(exact.shape, generator=generator) < drop
    return torch.where(passes, exact, rounded)


def slowed(x: Tensor, factor: float) -> Tensor:
    """The value itself, its gradient times `factor`."""
    return x * factor + (x * (1 - factor)).detach()
