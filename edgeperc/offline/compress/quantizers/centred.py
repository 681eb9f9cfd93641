"""Equal steps with zero in the middle of the codes: for both sides of attention's products.

q = Centred(8)

As good as symmetric codes with a sign for runtimes that multiply such (OpenVINO, TensorRT), and
codes without a sign for onnxruntime, which is fast with those alone. A range that lies on one side
of zero loses half of the codes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgeperc.offline.compress.quantizers.uniform import LEAST_SCALE, Search, Uniform


class Centred(Uniform):
    """One grid for a tensor, codes 0 to 2**bits - 1, zero point 2**(bits - 1)."""

    def __init__(self, bits: int, *, search: Search = "mse") -> None:
        super().__init__(bits, symmetric=False, search=search)

    def _grid(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        half = 2 ** (self.bits - 1)
        scale = torch.maximum(-low / half, high / (half - 1)).clamp(min=LEAST_SCALE)
        return scale, torch.full_like(scale, half)
