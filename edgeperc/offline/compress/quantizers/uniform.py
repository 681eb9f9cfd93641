"""Equal steps: the grid that integer arithmetic has.

    q = Uniform(8, symmetric=True, axis=0)       # a layer's weight, one scale for each output
    q = Uniform(8, symmetric=False)              # what a layer takes
    q.fit(values); q.enabled = True

x is code (x / scale + zero) rounded, and (code - zero) * scale again. The zero point is an integer,
so that 0 stays 0. Source for the search: Nagel et al., A White Paper on Neural Network
Quantization, 2021, section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from edgeperc.offline.compress.quantizers.base import Export, Quantizer, refuse_not_finite

Search: TypeAlias = Literal["minmax", "percentile", "mse"]
PERCENTILES = (0.999, 0.9999, 0.99999)
SEEN = 1 << 16
"""At most so many values, of all channels together, are searched for clipping limits."""
LEAST_A_CHANNEL = 1024
SHARES = (*np.linspace(1.0, 0.4, 21).tolist(), *np.geomspace(0.38, 0.05, 12).tolist())
"""Parts of the whole range that are tried as clipping limits."""
LEAST_SCALE = 1e-30


class Uniform(Quantizer):
    """Uniform steps, per tensor or per channel along `axis`.

    symmetric: codes -(2**(bits-1) - 1) to 2**(bits-1) - 1 around zero point 0, else 0 to
    2**bits - 1 with the zero point that the range asks for. search: limits from the least and
    largest value, from the percentile or the part of the range with the least squared error.
    Buffers scale and zero: () or (channels,) float32, scale NaN until it is fitted.
    """

    scale: Tensor
    zero: Tensor

    def __init__(
        self,
        bits: int,
        *,
        symmetric: bool,
        axis: int | None = None,
        search: Search = "mse",
        percentile: Sequence[float] = PERCENTILES,
    ) -> None:
        super().__init__(bits)
        if bits < 2:
            raise ValueError(f"bits is {bits}, must be 2 or more")
        self.symmetric, self.axis, self.search = symmetric, axis, search
        self.percentile = tuple(percentile)
        self.register_buffer("scale", torch.tensor(torch.nan))
        self.register_buffer("zero", torch.tensor(0.0))

    @property
    def export(self) -> Export:  # type: ignore[override]
        """What runs with these codes."""
        return "int8" if self.bits == 8 else "int8 storage" if self.bits < 8 else "accuracy only"

    @property
    def codes(self) -> tuple[int, int]:
        """The least and the largest code."""
        if self.symmetric:
            most = 2 ** (self.bits - 1) - 1
            return -most, most
        return 0, 2**self.bits - 1

    def fit(self, values: Tensor) -> None:
        """values: any shape; with an axis, that one's length is the number of channels."""
        refuse_not_finite(values)
        rows = self._rows(values.detach().float())
        low, high = rows.amin(1).clamp(max=0), rows.amax(1).clamp(min=0)
        if self.symmetric:
            high = torch.maximum(-low, high)
            low = -high
        if self.search == "mse":
            low, high = self._least_error(_thinned(rows), low, high)
        elif self.search == "percentile":
            low, high = self._by_percentile(rows, low, high)
        self.set_range(low, high)

    def set_range(self, low: Tensor, high: Tensor) -> None:
        """Take limits as they are: (channels,) with an axis, else () or (1,); 0 lies between."""
        scale, zero = self._grid(low, high)
        shape = () if self.axis is None else (-1,)
        self.scale, self.zero = scale.reshape(shape).clone(), zero.reshape(shape).clone()

    def quantize(self, x: Tensor) -> Tensor:
        """Codes as whole numbers in x's type."""
        scale, zero = self._along(x)
        return torch.clamp(torch.round(x / scale) + zero, *self.codes)

    def dequantize(self, codes: Tensor) -> Tensor:
        """Values of codes."""
        scale, zero = self._along(codes)
        return (codes - zero) * scale

    def inside(self, x: Tensor) -> Tensor:
        """Which values are not clipped."""
        scale, zero = self._along(x)
        code = torch.round(x / scale) + zero
        return (code >= self.codes[0]) & (code <= self.codes[1])

    def off_grid(self, values: Tensor) -> float:
        """The largest distance from a code that exists, in steps; NaN where it is not fitted."""
        scale, zero = self._along(values)
        code = values / scale + zero
        nearest = torch.clamp(torch.round(code), *self.codes)
        return float((code - nearest).abs().max())

    def probe(self) -> Tensor:
        """Half as many values again as there are codes, for each channel."""
        low, high = self.codes
        line = torch.linspace(low - 3.3, high + 3.3, 101)
        if self.axis is None:
            return (line - self.zero) * self.scale
        values = (line[None] - self.zero[:, None]) * self.scale[:, None]
        if self.axis < 0:
            return values.T.reshape(-1, *values.shape[:1], *[1] * (-self.axis - 1))
        return values.T.reshape(-1, *[1] * (self.axis - 1), len(values)) if self.axis else values

    def extra_repr(self) -> str:
        """For people."""
        channels = "" if self.axis is None else f" along {self.axis}"
        return f"{self.bits} bits{', symmetric' if self.symmetric else ''}{channels}"

    def _along(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point in a shape that goes with x."""
        if self.axis is None:
            return self.scale, self.zero
        shape = [1] * x.ndim
        shape[self.axis] = -1
        return self.scale.view(shape), self.zero.view(shape)

    def _rows(self, values: Tensor) -> Tensor:
        """(channels, values of each)."""
        if self.axis is None:
            return values.reshape(1, -1)
        return values.movedim(self.axis, 0).flatten(1) if values.ndim > 1 else values[:, None]

    def _grid(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point of limits, each of any shape."""
        least, most = self.codes
        steps = most - least
        # Apart, since the difference of two large numbers may be infinite.
        scale = (high / steps - low / steps).clamp(min=LEAST_SCALE)
        if self.symmetric:
            return scale, torch.zeros_like(scale)
        return scale, torch.clamp(torch.round(-low / scale), least, most)

    def _error(self, rows: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Mean squared error of each row on the grid of its limits."""
        scale, zero = (each[:, None] for each in self._grid(low, high))
        codes = torch.clamp(torch.round(rows / scale) + zero, *self.codes)
        return (((codes - zero) * scale - rows) ** 2).mean(1)

    def _least_error(self, rows: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The part of each row's range that costs least: of both ends, then of one at a time."""
        moves = [(1, 1)] if self.symmetric else [(1, 1), (0, 1), (1, 0)]
        for down, up in moves:
            best, start = self._error(rows, low, high), (low, high)
            for share in SHARES[1:]:
                tried = (
                    start[0] * (share if down else 1),
                    start[1] * (share if up else 1),
                )
                error = self._error(rows, *tried)
                better = error < best
                best = torch.where(better, error, best)
                low, high = (
                    torch.where(better, new, old)
                    for new, old in zip(tried, (low, high), strict=True)
                )
        return low, high

    def _by_percentile(self, rows: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The percentile whose limits cost least. Source: Li et al., RepQ-ViT, 2023."""
        ordered = rows.sort(dim=1).values
        best = torch.full_like(low, torch.inf)
        for share in self.percentile:
            last = round((rows.shape[1] - 1) * share)
            first = rows.shape[1] - 1 - last
            tried_low, tried_high = ordered[:, first].clamp(max=0), ordered[:, last].clamp(min=0)
            if self.symmetric:
                tried_high = torch.maximum(-tried_low, tried_high)
                tried_low = -tried_high
            error = self._error(rows, tried_low, tried_high)
            better = error < best
            best = torch.where(better, error, best)
            low, high = torch.where(better, tried_low, low), torch.where(better, tried_high, high)
        return low, high


def _thinned(rows: Tensor) -> Tensor:
    """Values spread evenly over each row, few enough to be searched."""
    wanted = max(SEEN // rows.shape[0], LEAST_A_CHANNEL)
    if rows.shape[1] <= wanted:
        return rows
    index = torch.linspace(0, rows.shape[1] - 1, wanted).round().long()
    return rows[:, index]
