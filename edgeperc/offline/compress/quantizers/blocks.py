"""Weights in blocks: 32 or 128 neighbours of one output share a scale and a zero point.

    q = Blocks(4, block=32)
    q.fit(layer.weight); q.enabled = True

The grid that onnxruntime's MatMulNBits has: 4 bits in a file, floats in arithmetic. Source: the
operator's schema, com.microsoft.MatMulNBits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgeperc.errors import ModelError
from edgeperc.offline.compress.quantizers.base import Export, Quantizer
from edgeperc.offline.compress.quantizers.uniform import Search, Uniform

LEAST = 4096
"""Weights of a layer; of fewer, the file would gain nothing that shows."""
STORED_BITS = 4


class Blocks(Quantizer):
    """Uniform steps for each block along a weight's inputs, codes 0 to 2**bits - 1.

    `takes` says of which weights; `fit` raises ModelError for others. Buffers, of `grid`: scale
    and zero, (outputs * blocks,) float32, block after block of one output after another.
    """

    def __init__(self, bits: int, *, block: int = 32, search: Search = "mse") -> None:
        super().__init__(bits)
        self.block = block
        self.grid = Uniform(bits, symmetric=False, axis=0, search=search)

    @property
    def export(self) -> Export:  # type: ignore[override]
        """What runs with these codes."""
        return "int4 weights" if self.bits == STORED_BITS else "accuracy only"

    def takes(self, weight: Tensor) -> bool:
        """Whether it is a large enough matrix, (outputs, inputs), of whole blocks."""
        return weight.ndim == 2 and not weight.shape[1] % self.block and weight.numel() >= LEAST

    def fit(self, values: Tensor) -> None:
        """values: (outputs, inputs)."""
        if values.shape[-1:].numel() % self.block:
            raise ModelError(f"weights {tuple(values.shape)} are not whole blocks of {self.block}")
        self.grid.fit(self._blocks(values))

    def quantize(self, x: Tensor) -> Tensor:
        """Codes as whole numbers in x's type."""
        return self.grid.quantize(self._blocks(x)).reshape(x.shape)

    def dequantize(self, codes: Tensor) -> Tensor:
        """Values of codes."""
        return self.grid.dequantize(self._blocks(codes)).reshape(codes.shape)

    def inside(self, x: Tensor) -> Tensor:
        """Which values are not clipped."""
        return self.grid.inside(self._blocks(x)).reshape(x.shape)

    def off_grid(self, values: Tensor) -> float:
        """The largest distance from a code that exists, in steps."""
        return self.grid.off_grid(self._blocks(values))

    def probe(self) -> Tensor:
        """A row of all codes, and beyond them, for each block."""
        low, high = self.grid.codes
        line = torch.linspace(low - 3.3, high + 3.3, self.block)
        return (line - self.grid.zero[:, None]) * self.grid.scale[:, None]

    def extra_repr(self) -> str:
        """For people."""
        return f"{self.bits} bits in blocks of {self.block}"

    def _blocks(self, x: Tensor) -> Tensor:
        return x.reshape(-1, self.block)
