"""A weight that moves from code to code while a whole network learns.

Each weight lies somewhere in the cell of its code, at first where it lay before it was rounded, or
at the cell's rim if it was rounded the other way; it crosses to the next code when learning moves
it over the rim. The scale of each channel is learned, too. Sources: Bengio et al. 2013 for the
gradient, which passes the rounding as if it were not there; Esser et al. 2020 (LSQ) for the scale.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeperc.offline.compress.quantizers.base import Quantizer
from edgeperc.offline.compress.quantizers.uniform import Uniform
from edgeperc.offline.compress.solve.adaround import Rounded
from edgeperc.offline.compress.solve.step_size import SMALLEST, slowed

RIM = 0.45
"""Of a step; no weight starts farther from its code."""


class LearnedCodes(Quantizer):
    """Stands in for a weight's quantizer while it learns; `settled` gives the codes for good.

    place: the weight in steps, of its shape. ratio: of the learned scale to the fitted one.
    """

    hard = False

    def __init__(self, q: Uniform | Rounded, weight: Tensor) -> None:
        super().__init__(q.bits)
        self.grid = q.grid if isinstance(q, Rounded) else q
        self.enabled = q.enabled
        scale, zero = self.grid._along(weight)
        codes = q.quantize(weight.detach())
        place = weight.detach() / scale + zero
        self.place = nn.Parameter(place.clamp(codes - RIM, codes + RIM))
        self.ratio = nn.Parameter(torch.ones_like(self.grid.scale))

    def forward(self, x: Tensor) -> Tensor:
        """The weight of the codes as they are by now; x where it is off."""
        if not self.enabled:
            return x
        scale, zero = self.grid._along(x)
        codes = self.place + (self.place.round() - self.place).detach()
        slow = (x.numel() * self.grid.codes[1]) ** -0.5
        ratio = slowed(self.ratio.clamp(min=SMALLEST), slow)
        return (codes.clamp(*self.grid.codes) - zero) * scale * ratio.reshape(scale.shape)

    @torch.no_grad()
    def settled(self) -> Rounded:
        """Rounded for good, on the grid with the learned scale."""
        self.grid.scale = self.grid.scale * self.ratio.clamp(min=SMALLEST)
        rounded = Rounded(self.grid, self.place.round().clamp(*self.grid.codes))
        rounded.enabled = self.enabled
        return rounded

    def fit(self, values: Tensor) -> None:
        """Nothing: the grid was fitted before."""

    def quantize(self, x: Tensor) -> Tensor:
        """The codes as they are by now."""
        return self.place.round().clamp(*self.grid.codes)

    def dequantize(self, codes: Tensor) -> Tensor:
        """As the fitted grid does."""
        return self.grid.dequantize(codes)
