"""Learned rounding: each weight goes down or up to its grid, whichever serves the output better.

How far up, h in 0 to 1, is learned; a cost that grows steeper drives every h to one end, and in the
end all are rounded for good:

    learned = AdaRound(grid, weight)
    ... loss + share * rounding_cost(learned.up(), steepness(step, steps)) ...
    rounded = learned.settled()

Source: Nagel et al. 2020 (AdaRound, arXiv 2004.10568), equations 21 to 24. Published code for
prompt-driven networks dropped the cost, or rounded only the first layer of a block; here `settled`
leaves nothing that is not an integer, and `decided` tells how much was left to it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeperc.offline.compress.quantizers.base import Export, Quantizer
from edgeperc.offline.compress.quantizers.uniform import Uniform

GAMMA, ZETA = -0.1, 1.1
"""The sigmoid is stretched over these, so that h reaches 0 and 1 at a finite v."""

STEEP, GENTLE, WARM_UP = 20.0, 2.0, 0.2
"""The cost's exponent falls from the first to the second; no cost in the first fifth."""

NEAR = 0.01
"""An h this close to 0 or 1 is decided."""


class Rounded(Quantizer):
    """A weight's own integers on a uniform grid; answers with them, whatever it is given."""

    codes: Tensor

    def __init__(self, grid: Uniform, codes: Tensor) -> None:
        super().__init__(grid.bits)
        self.grid = grid
        self.register_buffer("codes", codes.to(torch.int16))

    @property
    def export(self) -> Export:  # type: ignore[override]
        """What runs with these codes."""
        return self.grid.export

    def fit(self, values: Tensor) -> None:
        """Nothing: the grid was fitted before."""

    def quantize(self, x: Tensor) -> Tensor:
        """The integers, in the type of x."""
        return self.codes.to(x.dtype)

    def dequantize(self, codes: Tensor) -> Tensor:
        """As the grid does."""
        return self.grid.dequantize(codes)

    def off_grid(self, values: Tensor) -> float:
        """As the grid says."""
        return self.grid.off_grid(values)

    def onnx(self, x: Tensor) -> Tensor:
        """The rounded weight through the grid, which leaves it as it is."""
        return self.grid.onnx(self.dequantize(self.quantize(x)))


class AdaRound(Quantizer):
    """The rounding of one weight while it is learned, on the uniform grid that was fitted to it."""

    hard = False
    below: Tensor

    def __init__(self, grid: Uniform, weight: Tensor) -> None:
        super().__init__(grid.bits)
        self.grid, self.enabled = grid, grid.enabled
        scale, zero = grid._along(weight)
        scaled = weight.detach() / scale
        self.register_buffer("below", scaled.floor() + zero, persistent=False)
        away = (scaled - scaled.floor()).clamp(NEAR, 1 - NEAR)
        self.v = nn.Parameter(torch.logit((away - GAMMA) / (ZETA - GAMMA)))

    def up(self) -> Tensor:
        """h, of the weight's shape: 0 rounds down, 1 rounds up."""
        return (torch.sigmoid(self.v) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)

    def decided(self) -> float:
        """Share of h at an end, before `settled` rounds the others."""
        h = self.up().detach()
        return float(((h < NEAR) | (h > 1 - NEAR)).float().mean())

    @torch.no_grad()
    def settled(self) -> Rounded:
        """Rounded for good."""
        codes = (self.below + (self.up() >= 0.5)).clamp(*self.grid.codes)
        rounded = Rounded(self.grid, codes.round())
        rounded.enabled = self.enabled
        return rounded

    def fit(self, values: Tensor) -> None:
        """Nothing: the grid was fitted before."""

    def quantize(self, x: Tensor) -> Tensor:
        """Codes of the weight and what lies between them."""
        return (self.below + self.up()).clamp(*self.grid.codes)

    def dequantize(self, codes: Tensor) -> Tensor:
        """As the grid does."""
        return self.grid.dequantize(codes)

    def forward(self, x: Tensor) -> Tensor:
        """The weight as it is rounded by now; x where it is off."""
        return self.dequantize(self.quantize(x)) if self.enabled else x


def steepness(step: int, steps: int) -> float | None:
    """The exponent of the cost at a step of `steps`; None while there is no cost yet."""
    start = WARM_UP * steps
    if step < start:
        return None
    return STEEP + (GENTLE - STEEP) * (step - start) / max(1.0, steps - start)


def rounding_cost(h: Tensor, exponent: float) -> Tensor:
    """1 where h is undecided, 0 where it is 0 or 1; summed over all weights, a scalar."""
    return (1 - (2 * h - 1).abs() ** exponent).sum()
