"""VMamba's encoder: planes of four sizes, each mixed by scans in four directions.

    encoder = VMamba(channels=3, widths=(96, 192, 384, 768), depths=(2, 2, 8, 2))
    x = encoder.start(picture)                               # (B, H / 4, W / 4, 96)
    x = encoder.stages[0](x)                                 # the next one: encoder.down[0](x)

After Liu et al., "VMamba" (arXiv 2401.10166), its version without a gate branch, with
convolutional patches. The caller walks the stages, because a fusion stands between them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from edgeperc.offline.nets.ss2d import SS2D, depthwise


class VMamba(nn.Module):
    """start: picture to the first stage. stages, norms: of each size. down: to the next size."""

    def __init__(
        self,
        *,
        channels: int,
        widths: Sequence[int],
        depths: Sequence[int],
        states: int = 1,
        ratio: float = 1.0,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        self.start = Start(channels, widths[0])
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(width, states, ratio, mlp_ratio) for _ in range(depth)))
            for width, depth in zip(widths, depths, strict=True)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.down = nn.ModuleList(Half(a, b) for a, b in itertools.pairwise(widths))


class Block(nn.Module):
    """x + scan(norm(x)), then x + mlp(norm(x)); (B, H, W, width)."""

    def __init__(self, width: int, states: int, ratio: float, mlp_ratio: float) -> None:
        super().__init__()
        self.scan_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.scan = SS2D(width, states=states, ratio=ratio)
        hidden = int(mlp_ratio * width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, H, W, width)."""
        x = x + self.scan(self.scan_norm(x))
        out: Tensor = x + self.mlp(self.mlp_norm(x))
        return out


class Start(nn.Module):
    """A picture (B, C, H, W) to patches (B, H / 4, W / 4, width), by two strided convolutions."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.first, self.second = Half(channels, width // 2), Half(width // 2, width)

    def forward(self, picture: Tensor) -> Tensor:
        """Sides that are no multiples of 4 are rounded up."""
        x: Tensor = self.second(F.gelu(self.first(picture.permute(0, 2, 3, 1))))
        return x


class Half(nn.Module):
    """(B, H, W, a) to half the sides, rounded up: (B, H / 2, W / 2, b)."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(outside)

    def forward(self, x: Tensor) -> Tensor:
        """x: float32."""
        out: Tensor = self.norm(depthwise(self.conv, x))
        return out
