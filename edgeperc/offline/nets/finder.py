"""Two small networks for grey pictures: Finder gives boxes with variances, Regions a label map.

Both stand on the same trunk of plain convolutions, which a CPU runs fast, and take any size that is
a multiple of 32. Ours; the head after FCOS (arXiv 1904.01355), the variance of each edge after
KL-Loss (arXiv 1809.08545), the way down and up again after FPN (arXiv 1612.03144).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDE_PX = 8
LOG_VARIANCES = (-7.0, 7.0)
"""Least and largest logarithm of an edge's variance, in strides²."""


class Finder(nn.Module):
    """Boxes at stride 8.

    Returns (N, classes + 8, h / 8, w / 8): class logits; distances from the cell's centre to the
    left, upper, right and lower edge in strides; the logarithms of their variances in strides².
    """

    def __init__(self, classes: int, channels: tuple[int, ...] = (16, 24, 32, 48, 64)) -> None:
        super().__init__()
        width = channels[2]
        self.trunk = Trunk(channels)
        self.class_tower = _conv(width, width)
        self.edge_tower = _conv(width, width)
        self.classifier = nn.Conv2d(width, classes, 1)
        self.edges = nn.Conv2d(width, 8, 1)
        # Nearly every cell is background: start there (focal loss, arXiv 1708.02002).
        nn.init.constant_(self.classifier.get_parameter("bias"), -math.log(99.0))

    def forward(self, picture: Tensor) -> Tensor:
        """picture: (N, 1, h, w) float32, 0..1."""
        seen = self.trunk(picture)
        edges = self.edges(self.edge_tower(seen))
        # Distances have any sign: beside a thing smaller than a cell, the centre is outside it.
        reach, log_variance = edges[:, :4], edges[:, 4:].clamp(*LOG_VARIANCES)
        return torch.cat([self.classifier(self.class_tower(seen)), reach, log_variance], dim=1)


class Regions(nn.Module):
    """Class logits at stride 4: (N, classes, h / 4, w / 4)."""

    def __init__(self, classes: int, channels: tuple[int, ...] = (12, 16, 24, 32, 40)) -> None:
        super().__init__()
        self.trunk = Trunk(channels)
        self.fine = nn.Conv2d(channels[1], channels[2], 1)
        self.tower = _conv(channels[2], channels[2])
        self.classifier = nn.Conv2d(channels[2], classes, 1)

    def forward(self, picture: Tensor) -> Tensor:
        """picture: (N, 1, h, w) float32, 0..1."""
        quarter = self.trunk.start(picture)
        seen = self.fine(quarter) + _twice(self.trunk.rest(quarter))
        logits: Tensor = self.classifier(self.tower(F.relu(seen)))
        return logits


class Trunk(nn.Module):
    """Down to stride 32 and up again to stride 8, (N, channels[2], h / 8, w / 8).

    channels: at strides 2, 4, 8, 16 and 32.
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        c2, c4, c8, c16, c32 = channels
        self.start = nn.Sequential(_conv(1, c2, stride=2), _conv(c2, c4, stride=2))
        self.down8 = nn.Sequential(_conv(c4, c8, stride=2), _Residual(c8))
        self.down16 = nn.Sequential(_conv(c8, c16, stride=2), _Residual(c16))
        self.down32 = nn.Sequential(_conv(c16, c32, stride=2), _Residual(c32))
        self.across8 = nn.Conv2d(c8, c8, 1)
        self.across16 = nn.Conv2d(c16, c8, 1)
        self.across32 = nn.Conv2d(c32, c8, 1)
        self.smooth = _conv(c8, c8)

    def forward(self, picture: Tensor) -> Tensor:
        """picture: (N, 1, h, w)."""
        return self.rest(self.start(picture))

    def rest(self, quarter: Tensor) -> Tensor:
        """From stride 4 on."""
        eighth = self.down8(quarter)
        sixteenth = self.down16(eighth)
        seen = self.across16(sixteenth) + _twice(self.across32(self.down32(sixteenth)))
        seen = self.across8(eighth) + _twice(seen)
        smooth: Tensor = self.smooth(F.relu(seen))
        return smooth


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, seen: Tensor) -> Tensor:
        return F.relu(seen + self.norm(self.second(self.first(seen))))


def _conv(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _twice(seen: Tensor) -> Tensor:
    return F.interpolate(seen, scale_factor=2.0, mode="nearest")
