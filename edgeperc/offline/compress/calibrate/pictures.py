"""Pictures in the making: how they begin, from where they are seen, how they end.

They are tensors (3, S, S) as networks take them: less the mean, divided by the deviation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeperc.offline.compress.adapters.prompts import MEAN, STD

SLOPE = 1.0
"""The noise that pictures begin as has amplitudes that fall with frequency, as photographs' do."""


class View(NamedTuple):
    """A picture rolled by so many rows and columns, then perhaps mirrored."""

    rows: int
    columns: int
    mirrored: bool

    def of(self, values: Tensor) -> Tensor:
        """values: (..., H, W)."""
        rolled = values.roll((self.rows, self.columns), (-2, -1))
        return rolled.flip(-1) if self.mirrored else rolled

    def undone(self, values: Tensor) -> Tensor:
        """values: (..., H, W), as `of` gave them."""
        straight = values.flip(-1) if self.mirrored else values
        return straight.roll((-self.rows, -self.columns), (-2, -1))


def step_rms(pictures: Tensor) -> Tensor:
    """Root mean square of the steps between neighbours, mean over four directions, (B,)."""
    down, across = pictures[..., 1:, :], pictures[..., :, 1:]
    steps = (
        down - pictures[..., :-1, :],
        across - pictures[..., :, :-1],
        down[..., 1:] - pictures[..., :-1, :-1],
        down[..., :-1] - pictures[..., :-1, 1:],
    )
    return torch.stack([step.square().mean((1, 2, 3)).sqrt() for step in steps]).mean(0)


def coloured(noise: Tensor) -> Tensor:
    """White noise (..., S, S), each frequency's amplitude divided by frequency ** SLOPE; of mean 0
    and deviation 1 in each plane.
    """
    side = noise.shape[-1]
    down, across = torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)
    frequency = (down.square() + across.square()).sqrt()
    frequency[0, 0] = torch.inf
    shaped: Tensor = torch.fft.irfft2(torch.fft.rfft2(noise) * frequency**-SLOPE, s=(side, side))
    return shaped / shaped.std((-2, -1), keepdim=True)


def pixels_of(picture: Tensor) -> NDArray[np.uint8]:
    """(3, S, S) as networks take it, to (S, S, 3) uint8 RGB."""
    levels = picture * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    return levels.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def normalised(level: float) -> Tensor:
    """A grey level in each channel, (3, 1, 1), as networks take it."""
    return ((level - torch.tensor(MEAN)) / torch.tensor(STD))[:, None, None]
