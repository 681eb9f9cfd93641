"""Grids that came with the weights: a transform leaves them at layers, for `quantize` to use.

leave(layer, GivenGrid(scale, zero, bits=4))
quantizer = given_or(Uniform(4, symmetric=False), layer)
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from edgeperc.offline.compress.quantizers.base import Quantizer
from edgeperc.offline.compress.quantizers.uniform import Uniform

ATTRIBUTE = "given_grid"


@dataclass(frozen=True, slots=True)
class GivenGrid:
    """What a layer's input is to be rounded to. scale, zero: () float32, zero an integer."""

    scale: Tensor
    zero: Tensor
    bits: int


class Given(Uniform):
    """A grid that is not fitted any more: the weights behind it were made for it."""

    def __init__(self, grid: GivenGrid) -> None:
        super().__init__(grid.bits, symmetric=False)
        self.scale, self.zero = grid.scale.clone(), grid.zero.clone()

    def fit(self, values: Tensor) -> None:
        """Nothing."""


def leave(layer: nn.Module, grid: GivenGrid) -> None:
    """Leave a grid at a layer, in place of any other."""
    setattr(layer, ATTRIBUTE, grid)


def given_or(quantizer: Quantizer, layer: nn.Module) -> Quantizer:
    """The layer's given grid where it is of the kind and bits that are wanted, else `quantizer`."""
    grid: GivenGrid | None = getattr(layer, ATTRIBUTE, None)
    if grid is None or not isinstance(quantizer, Uniform):
        return quantizer
    if quantizer.symmetric or quantizer.bits != grid.bits:
        return quantizer
    return Given(grid)
