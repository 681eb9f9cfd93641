"""Two modalities that look at each other: the fusion of MambaSeg, once per stage.

    frame, events = fusion(frame, events)                    # (B, H, W, C) each

Gu et al., "MambaSeg" (arXiv 2512.24243), call it DDIM, of two halves: CTIM scans the channels, CSIM
the plane. "Temporal" there means the order of the channels; no time axis is involved.

In the published CTIM an element of the scan is a channel of H * W numbers, and so are its weights:
a checkpoint fits one size of picture. Ours looks at a grid of cells, to which each channel is
averaged, and brings the answer back to the plane; what the plane itself says still comes through
the 1 x 1 beside it. `cells` None and a grid, or the published way with a number of cells.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from edgeperc.offline.nets.ss2d import SS2D, ChannelScan, depthwise

GRID = 8
"""Cells along a side of what the channel scan sees, where it is not tied to a size."""


class Fusion(nn.Module):
    """DDIM: each modality plus what both halves make of it and of the other one."""

    def __init__(self, width: int, *, states: int, ratio: float, cells: int | None) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.channels = ChannelHalf(width, states=states, ratio=ratio, cells=cells)
        self.plane = PlaneHalf(width, states=states, ratio=ratio)
        self.join = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(2))

    def forward(self, frame: Tensor, events: Tensor) -> tuple[Tensor, Tensor]:
        """frame, events: (B, H, W, width)."""
        seen = self.norms[0](frame), self.norms[1](events)
        halves = zip(self.join, self.channels(*seen), self.plane(*seen), strict=True)
        added = [join(torch.cat([c, p], dim=-1)) for join, c, p in halves]
        return frame + added[0], events + added[1]


class ChannelHalf(nn.Module):
    """CTIM: odd channels change places, each modality gates the other, channels are scanned."""

    own: Tensor

    def __init__(self, width: int, *, states: int, ratio: float, cells: int | None) -> None:
        super().__init__()
        few = max(width // 4, 1)
        self.squeeze = nn.Sequential(
            nn.Linear(width, few, bias=False),
            nn.ReLU(),
            nn.Linear(few, width, bias=False),
            nn.Sigmoid(),
        )
        own = (torch.arange(width) % 2 == 0).float()
        self.register_buffer("own", own, persistent=False)
        self.gridded = cells is None
        self.scans = nn.ModuleList(
            ChannelScan(width, cells or GRID**2, states=states, ratio=ratio) for _ in range(2)
        )
        self.beside = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.gates = nn.ModuleList(ChannelGate(width) for _ in range(2))

    def forward(self, frame: Tensor, events: Tensor) -> list[Tensor]:
        """frame, events: (B, H, W, width), normalised. Returns both, alike."""
        own = self.own
        frame, events = frame * own + events * (1 - own), events * own + frame * (1 - own)
        by_frame, by_events = (self.squeeze(x.mean((1, 2), keepdim=True)) for x in (frame, events))
        gated = frame * by_events, events * by_frame
        out = []
        for x, scan, beside, gate in zip(gated, self.scans, self.beside, self.gates, strict=True):
            y = beside(x) + (on_grid(x, scan) if self.gridded else scan(x))
            out.append(y * gate(y))
        return out


class PlaneHalf(nn.Module):
    """CSIM: maps of mean and maximum gate the other modality, the plane is scanned."""

    def __init__(self, width: int, *, states: int, ratio: float) -> None:
        super().__init__()
        self.maps = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2), nn.Sigmoid())
        self.scans = nn.ModuleList(
            SS2D(width, states=states, ratio=ratio, conv_bias=True) for _ in range(2)
        )
        self.beside = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.gates = nn.ModuleList(PixelGate() for _ in range(2))

    def forward(self, frame: Tensor, events: Tensor) -> list[Tensor]:
        """frame, events: (B, H, W, width), normalised. Returns both, alike."""
        gates = self.maps(torch.cat([_mean_and_most(frame), _mean_and_most(events)], dim=-1))
        gated = frame * gates[..., 1:], events * gates[..., :1]
        out = []
        for x, scan, beside, gate in zip(gated, self.scans, self.beside, self.gates, strict=True):
            y = beside(x) + scan(x)
            out.append(y * gate(y))
        return out


class ChannelGate(nn.Module):
    """A factor for each channel, from its mean and its maximum: (B, 1, 1, C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        few = max(width // 16, 1)
        self.squeeze = nn.Sequential(
            nn.Linear(width, few, bias=False), nn.ReLU(), nn.Linear(few, width, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, H, W, C)."""
        mean, most = x.mean((1, 2), keepdim=True), x.amax((1, 2), keepdim=True)
        return torch.sigmoid(self.squeeze(mean) + self.squeeze(most))


class PixelGate(nn.Module):
    """A factor for each pixel, from the mean and the maximum around it: (B, H, W, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, H, W, C)."""
        return torch.sigmoid(depthwise(self.conv, _mean_and_most(x)))


def on_grid(x: Tensor, scan: nn.Module) -> Tensor:
    """Average (B, H, W, C) to GRID x GRID cells, scan, and resize the answer back."""
    height, width = (int(n) for n in x.shape[1:3])
    rows, columns = averages(height).to(x), averages(width).to(x)
    cells = rows @ (columns @ x).permute(0, 3, 1, 2)  # (B, C, GRID, GRID): H and W by products
    return enlarge(scan(cells.permute(0, 2, 3, 1)), height, width)


def enlarge(x: Tensor, height: int, width: int) -> Tensor:
    """(B, h, w, C) to another size, bilinear, corners not aligned: two products, no permuting."""
    batch, rows, columns, channels = (int(n) for n in x.shape)
    tall = between(rows, height).to(x) @ x.reshape(batch, rows, columns * channels)
    return between(columns, width).to(x) @ tall.reshape(batch, height, columns, channels)


def between(size: int, target: int) -> Tensor:
    """(target, size) float32: the weights of a bilinear resizing of one axis."""
    place = (np.arange(target) + 0.5) * size / target - 0.5
    place = place.clip(0, size - 1)
    lower = np.minimum(place.astype(np.int64), max(size - 2, 0))
    table = np.zeros((target, size), np.float32)
    table[np.arange(target), lower] = 1 - (place - lower)
    table[np.arange(target), np.minimum(lower + 1, size - 1)] += place - lower
    return torch.from_numpy(table)


def averages(size: int) -> Tensor:
    """(GRID, size) float32: what adaptive average pooling of `size` pixels to GRID cells does."""
    table = np.zeros((GRID, size), np.float32)
    for cell in range(GRID):
        first, last = cell * size // GRID, -((cell + 1) * size // -GRID)
        table[cell, first:last] = 1 / (last - first)
    return torch.from_numpy(table)


def _mean_and_most(x: Tensor) -> Tensor:
    return torch.cat([x.mean(-1, keepdim=True), x.amax(-1, keepdim=True)], dim=-1)
