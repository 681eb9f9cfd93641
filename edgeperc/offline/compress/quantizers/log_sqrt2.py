"""Logarithmic grids for shares of attention, which lie in 0 to 1 and are mostly small.

    quantizer = LogSqrt2(4)
    quantizer.fit(shares)

The codes 0, 1, 2, ... stand for s, s·2^(-1/n), s·2^(-2/n), ...: n = 1 is log2, n = 2 log-sqrt2.
Source: Li et al. 2023 (RepQ-ViT, arXiv 2212.08254), section 3.3; repository zkkli/RepQ-ViT. There,
2^b powers and a zero beside them share b bits; here the last code is zero's, so that every value
fits into its bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgeperc.errors import ModelError
from edgeperc.offline.compress.quantizers.base import Quantizer, refuse_not_finite

PERCENTILES = (0.999, 0.9999, 0.99999)
MOST = 2**20
"""Values that a scale is chosen by; of more, every n-th."""


class Log(Quantizer):
    """One logarithmic grid for values of 0 and above. No runtime computes with its codes.

    per_octave: codes for each halving. Zero has the last code, and so has what is nearer to the
    power that would stand there: it comes back as 0. Buffers: scale, the largest value, NaN until
    it is fitted; per_octave. Both () float32.
    """

    scale: Tensor
    per_octave: Tensor

    def __init__(self, bits: int, *, per_octave: int) -> None:
        super().__init__(bits)
        self.register_buffer("scale", torch.tensor(torch.nan))
        self.register_buffer("per_octave", torch.tensor(float(per_octave)))

    @property
    def nothing(self) -> int:
        """The code of zero."""
        return int(2**self.bits - 1)

    def fit(self, values: Tensor) -> None:
        """Take the scale of least squared error among three high quantiles of `values`.

        Raises ModelError if a value is negative, infinite or not a number.
        """
        refuse_no_shares(values)
        flat = values.detach().flatten()
        flat = flat[:: -(-flat.numel() // MOST)]
        scales = _high_quantiles(flat)
        errors = torch.stack([(self.on(flat, scale) - flat).square().mean() for scale in scales])
        self.scale.copy_(scales[int(errors.argmin())])

    def quantize(self, x: Tensor) -> Tensor:
        """x: any shape. Returns whole numbers 0 to 2^bits - 1 in x's type."""
        return self._codes(x, self.scale)

    def dequantize(self, codes: Tensor) -> Tensor:
        """Values of codes."""
        return self._values(codes, self.scale)

    def on(self, x: Tensor, scale: Tensor) -> Tensor:
        """As `forward` on the grid that another scale makes."""
        return self._values(self._codes(x, scale), scale)

    def inside(self, x: Tensor) -> Tensor:
        """Which values are not clipped to the largest one; those that become 0 are not."""
        return x <= self.scale

    def probe(self) -> Tensor:
        """From 0 to beyond the scale."""
        return torch.linspace(0, 1.5, 257) * self.scale

    def extra_repr(self) -> str:
        """For people."""
        return f"{self.bits} bits, {float(self.per_octave):g} for each halving"

    def _codes(self, x: Tensor, scale: Tensor) -> Tensor:
        # The logarithm of 0 is minus infinity: its code is clamped to the last one, too.
        code = torch.round(-self.per_octave * torch.log2(x.clamp(min=0) / scale))
        return code.clamp(0, self.nothing)

    def _values(self, codes: Tensor, scale: Tensor) -> Tensor:
        # Not exp2, which an exported graph does not have.
        power = torch.pow(2.0, -codes / self.per_octave)
        return (codes < self.nothing).to(codes.dtype) * power * scale


class LogSqrt2(Log):
    """Two codes for each halving."""

    def __init__(self, bits: int) -> None:
        super().__init__(bits, per_octave=2)


class Log2(Log):
    """One code for each halving."""

    def __init__(self, bits: int) -> None:
        super().__init__(bits, per_octave=1)


def refuse_no_shares(values: Tensor) -> None:
    """Raises ModelError unless all values are numbers of 0 and above."""
    refuse_not_finite(values)
    if bool((values < 0).any()):
        raise ModelError(
            "a logarithmic grid cannot be fitted to values below 0",
            hint="log2, log_sqrt2 and agq are for what a softmax hands on",
        )


def _high_quantiles(flat: Tensor) -> Tensor:
    """(3,), above 0."""
    ordered = flat.sort().values
    found = ordered[[round(share * (len(ordered) - 1)) for share in PERCENTILES]]
    # Where all is 0, any scale gives 0.
    return torch.where(found > 0, found, torch.ones_like(found))
