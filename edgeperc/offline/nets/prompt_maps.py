"""Prompts drawn into the picture: where they are, and what looks like what they point at.

Meta's networks learn from millions of masks what a token far from the picture means. A small
network that sees a few hundred pictures is told: each place gets its closeness to the clicks, its
position in the box, and how similar it is to the features under the prompt and around it (masked
average pooling, Zhang et al. 2020, SG-One).
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FAR_PX = 1e4
"""Farther than any click can be: its closeness is 0."""

KEYS = 16
"""Channels in which places are compared."""

CELL_PX = 4.0


class Drawn(NamedTuple):
    """maps: (B, 8, h, h), what `PromptMaps` learns from. on, off: (B, 1, h, h), weights of the
    places that surely belong to the object, and of those that surely or probably do not.
    """

    maps: Tensor
    on: Tensor
    off: Tensor


class PromptMaps(nn.Module):
    """What prompts add to a picture's features at strides 4, 8 and 16."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = (width // 8, width // 4, width)
        self.keys = nn.ModuleList(nn.Conv2d(inside, KEYS, 1) for inside in widths)
        self.alike = nn.ModuleList(nn.Conv2d(2, inside, 1) for inside in widths)
        self.fine = nn.Conv2d(8, widths[0], 3, padding=1)
        self.middle = nn.Conv2d(widths[0], widths[1], 2, stride=2)
        self.coarse = nn.Conv2d(widths[1], widths[2], 2, stride=2)

    def forward(
        self, embedding: Tensor, high: tuple[Tensor, Tensor], points: Tensor, labels: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """embedding, high: as of `Features`, points, labels: as of `PromptEncoder.tokens`. Returns
        embedding and high with the prompts in them.
        """
        drawn = draw(points, labels, int(high[0].shape[-1]))
        fine = F.gelu(self.fine(drawn.maps) + self._alike(0, high[0], drawn))
        middle = F.gelu(self.middle(fine) + self._alike(1, high[1], drawn))
        coarse = self.coarse(middle) + self._alike(2, embedding, drawn)
        return embedding + coarse, (high[0] + fine, high[1] + middle)

    def _alike(self, level: int, features: Tensor, drawn: Drawn) -> Tensor:
        keys = F.normalize(self.keys[level](features), dim=1)
        step = int(drawn.on.shape[-1]) // int(keys.shape[-1])
        maps = [
            (keys * _mean(keys, F.avg_pool2d(weights, step) if step > 1 else weights)).sum(1)
            for weights in (drawn.on.to(keys.dtype), drawn.off.to(keys.dtype))
        ]
        return cast(Tensor, self.alike[level](torch.stack(maps, dim=1)))


def draw(points: Tensor, labels: Tensor, side: int) -> Drawn:
    """Prompts on a grid of side x side cells of CELL_PX each.

    Maps: closeness to the nearest click on the object and off it, near and far; in the box or not,
    how deep, and the place across and along it. All are 0 where nothing of the kind is given.
    """
    middle = (torch.arange(side, dtype=points.dtype) + 0.5) * CELL_PX - 0.5
    x, y = middle[None, None, :], middle[None, :, None]
    dx, dy = points[..., 0, None, None] - x, points[..., 1, None, None] - y
    away = dx * dx + dy * dy
    maps = []
    for label in (1, 0):
        other = (labels != label).to(points.dtype)[..., None, None]
        nearest = (away + FAR_PX**2 * other).amin(1)
        maps += [torch.exp(-nearest / (2 * 8.0**2)), torch.exp(-nearest.sqrt() / 40.0)]
    first, last = (
        ((labels == label).to(points.dtype)[..., None] * points).sum(1)[:, :, None, None]
        for label in (2, 3)
    )
    boxed = (labels == 3).to(points.dtype).amax(1)[:, None, None]
    centre, half = (first + last) / 2, ((last - first) / 2).clamp(min=1.0)
    across = (x - centre[:, 0]) / half[:, 0] + 0 * y
    along = (y - centre[:, 1]) / half[:, 1] + 0 * x
    out = torch.maximum(across.abs(), along.abs())
    deep_px = torch.minimum(half[:, 0] * (1 - across.abs()), half[:, 1] * (1 - along.abs()))
    inside = torch.sigmoid(deep_px)
    others = (inside, (deep_px / 32).clamp(-1, 1), across.clamp(-2, 2), along.clamp(-2, 2))
    maps += [boxed * each for each in others]
    core = (1 - out).clamp(min=0)
    ring = (out < 1.5).to(points.dtype) * (1 - inside)
    on = maps[0] + boxed * core
    off = 10 * maps[2] + boxed * ring + (1 - boxed) * (0.01 * (1 - maps[1]))
    return Drawn(torch.stack(maps, dim=1), on[:, None], off[:, None])


def _mean(keys: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of (B, C, h, h) over places, (B, C, 1, 1), of length 1; 0 without weights."""
    total = (keys * weights).sum((2, 3), keepdim=True)
    return total / (total.square().sum(1, keepdim=True) + 1e-12).sqrt()
