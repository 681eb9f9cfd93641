"""Statistics of values that come piece by piece and are too many to keep.

    spread = Spread(); spread.add(values); spread.low, spread.high
    some = Some(1 << 16, pieces=32, seed=0)      # values to search limits with
    inner = InnerProducts(channels)              # X'X of a layer's inputs

Each is what numpy would say of the whole array; only `Some` keeps fewer than all, and the least and
the largest of them always.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Spread:
    """Least and largest value, of all or of each channel along `axis`."""

    def __init__(self, axis: int | None = None) -> None:
        self.axis = axis
        self.low: Tensor | None = None
        self.high: Tensor | None = None

    def add(self, values: Tensor) -> None:
        """One piece, of any shape."""
        rows = _rows(values, self.axis)
        low, high = rows.amin(1), rows.amax(1)
        if self.low is None or self.high is None:
            self.low, self.high = low, high
        else:
            self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)


class Some:
    """At most `count` of all values: the same share of each piece, drawn at random.

    pieces: how many will come; more pieces than announced thin out what is there. With an axis,
    count is of each channel and all channels keep the same places.
    """

    def __init__(self, count: int, *, pieces: int, seed: int = 0, axis: int | None = None) -> None:
        self.count, self.axis = count, axis
        self._share = max(1, count // max(1, pieces))
        self._generator = torch.Generator().manual_seed(seed)
        self._spread = Spread(axis)
        self._kept: list[Tensor] = []

    def add(self, values: Tensor) -> None:
        """One piece, of any shape."""
        self._spread.add(values)
        rows = _rows(values.detach(), self.axis)
        self._kept.append(self._drawn(rows, self._share))
        if sum(piece.shape[1] for piece in self._kept) > self.count:
            self._kept = [self._drawn(torch.cat(self._kept, 1), self.count)]

    def values(self) -> Tensor:
        """(n,) of all, or (channels, n); the least and the largest among them. Empty for none."""
        low, high = self._spread.low, self._spread.high
        if low is None or high is None:
            return torch.zeros(0) if self.axis is None else torch.zeros(0, 0)
        rows = torch.cat([*self._kept, low[:, None], high[:, None]], 1)
        return rows[0] if self.axis is None else rows

    def _drawn(self, rows: Tensor, count: int) -> Tensor:
        if rows.shape[1] <= count:
            return rows.clone()
        index = torch.randint(rows.shape[1], (count,), generator=self._generator)
        return rows[:, index]


class InnerProducts:
    """X'X of inputs (..., channels) and their number, in double precision."""

    def __init__(self, channels: int) -> None:
        self.total = torch.zeros(channels, channels, dtype=torch.float64)
        self.rows = 0

    def add(self, values: Tensor) -> None:
        """One piece, (..., channels)."""
        x = values.detach().reshape(-1, self.total.shape[0]).double()
        self.total += x.T @ x
        self.rows += len(x)

    def mean(self) -> Tensor:
        """X'X over the number of rows, (channels, channels) float64."""
        return self.total / max(self.rows, 1)


class Percentiles:
    """Percentiles to within a 2**-16 part of the range, from counts; exact at both ends.

    low, high: the range that all values lie in, as `Spread` found it in an earlier round.
    """

    BINS = 1 << 16

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = float(low), float(high)
        self.counts = torch.zeros(self.BINS, dtype=torch.int64)

    def add(self, values: Tensor) -> None:
        """One piece, of any shape; what is beyond the range counts at its end."""
        flat = values.detach().flatten().double()
        width = (self.high - self.low) or 1.0
        index = ((flat - self.low) / width * self.BINS).long().clamp(0, self.BINS - 1)
        self.counts += torch.bincount(index, minlength=self.BINS)

    def at(self, shares: Sequence[float]) -> list[float]:
        """The values below which these shares of all lie."""
        running = self.counts.cumsum(0)
        total = int(running[-1])
        found = []
        for share in shares:
            wanted = share * (total - 1) + 1
            index = int(torch.searchsorted(running.double(), torch.tensor(wanted).double()))
            if share in (0.0, 1.0) or total == 0:
                found.append(self.high if share == 1.0 else self.low)
            else:
                middle = (min(index, self.BINS - 1) + 0.5) / self.BINS
                found.append(self.low + middle * (self.high - self.low))
        return found


def _rows(values: Tensor, axis: int | None) -> Tensor:
    """(channels, values of each), one row without an axis."""
    if axis is None:
        return values.reshape(1, -1)
    return values.movedim(axis, 0).flatten(1)
