"""A logarithmic grid as fine as what is done with it asks for: adaptive granularity (AGQ).

    quantizer = AdaptiveLog(4)
    quantizer.fit(shares, v)

A share of attention matters by what it takes of the values; so scale and fineness are those with
the least error of the product of both. Source: Lv et al. 2024 (PTQ4SAM, arXiv 2405.03144), section
3.4. There, each picture chooses its scale and their mean is taken; here one scale is searched for
all pictures at once, and the last code is zero's (see `log_sqrt2`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgeperc.offline.compress.quantizers.log_sqrt2 import Log, refuse_no_shares

FINENESS = (1, 2, 4)
"""Codes for each halving that are tried."""

POWER = 2.4
"""Of the error that is summed."""

SCALES = 24
"""How many are tried, even in their logarithm."""

MOST = 2**19
"""Shares that are looked at; of more, every n-th query's."""


class AdaptiveLog(Log):
    """A grid of 1, 2 or 4 codes for each halving."""

    def __init__(self, bits: int) -> None:
        super().__init__(bits, per_octave=FINENESS[0])

    def fit(self, values: Tensor, v: Tensor | None = None) -> None:
        """Choose scale and fineness. values: (B, heads, N, M) shares, of any shape without v; v:
        (B, heads, M, C), what is shared out. Raises ModelError as `Log.fit` does.
        """
        refuse_no_shares(values)  # all of them: below only some are looked at
        self.fit_all([(fewer_queries(values.detach(), v), v)])

    def fit_all(self, pairs: Sequence[tuple[Tensor, Tensor | None]]) -> None:
        """As `fit`, to several pictures' shares and values at once."""
        for shares, _ in pairs:
            refuse_no_shares(shares)
        most = max(float(shares.max()) for shares, _ in pairs)
        self.scale.fill_(most or 1.0)
        best, chosen = torch.inf, (FINENESS[0], self.scale.clone())
        for fineness in FINENESS if most else ():
            self.per_octave.fill_(fineness)
            for scale in _scales(most).to(self.scale.dtype):
                error = sum(self._error(shares, v, scale) for shares, v in pairs)
                if error < best:
                    best, chosen = error, (fineness, scale)
        self.per_octave.fill_(chosen[0])
        self.scale.copy_(chosen[1])

    def _error(self, shares: Tensor, v: Tensor | None, scale: Tensor) -> float:
        """Of what the shares take from v, on the grid of a scale."""
        away = self.on(shares, scale) - shares
        return float((away if v is None else away @ v).abs().pow(POWER).sum())


def fewer_queries(shares: Tensor, v: Tensor | None, most: int = MOST) -> Tensor:
    """Shares of at most about `most` values: every n-th query where there is v, else value."""
    if v is None:
        shares = shares.reshape(-1, 1)
    every = -(-shares.numel() // most)
    return shares[..., ::every, :]


def _scales(most: float) -> Tensor:
    """Down from the largest share to a hundredth of it, or to 0.1, which is less for few."""
    least = min(0.1, 0.01 * most)
    return torch.logspace(0, 1, SCALES, base=least / most) * most
