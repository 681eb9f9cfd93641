"""What a user points at, as tokens and as a picture: the prompt encoder of SAM and SAM 2.

Names of parameters are those of Meta's files. Sources: Kirillov et al. 2023 (SAM), section 3 and
appendix A; repository facebookresearch/segment-anything.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeperc.offline.nets.prompt_maps import PromptMaps

PADDING = -1.0
"""Label of the point that says "no more prompts", which Meta's networks learned with."""

ABSENT = -2.0
"""Label of a place for a point that is not used: no token attends to it."""

OUT_OF_SIGHT = -1e4
"""Added to a logit, it makes the softmax exactly 0, in half precision too."""


class LayerNorm2d(nn.Module):
    """Normalise over the channels of (B, C, H, W), each pixel by itself."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W). Returns the same shape."""
        last = F.layer_norm(
            x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps
        )
        return last.permute(0, 3, 1, 2)


class PositionEncoding(nn.Module):
    """Places in the unit square as random Fourier features.

    The matrix is drawn once and is part of the weights. Source: Tancik et al. 2020.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, width // 2))

    def forward(self, places: Tensor) -> Tensor:
        """places: (..., 2), x and y in 0 to 1. Returns (..., width)."""
        matrix = cast(Tensor, self.positional_encoding_gaussian_matrix)
        phase = 2 * math.pi * ((2 * places - 1) @ matrix)
        return torch.cat([phase.sin(), phase.cos()], dim=-1)

    def grid(self, side: int) -> Tensor:
        """The middles of side x side cells, as (1, width, side, side)."""
        matrix = cast(Tensor, self.positional_encoding_gaussian_matrix)
        middle = (torch.arange(side, device=matrix.device, dtype=matrix.dtype) + 0.5) / side
        y, x = torch.meshgrid(middle, middle, indexing="ij")
        encoded: Tensor = self(torch.stack([x, y], dim=-1))
        return encoded.permute(2, 0, 1)[None]


class PromptEncoder(nn.Module):
    """Points and box corners as tokens, a mask as a picture of features."""

    def __init__(
        self, *, width: int, picture_px: int, mask_channels: int = 16, maps: bool = False
    ) -> None:
        super().__init__()
        self.picture_px = picture_px
        if maps:
            self.maps = PromptMaps(width)
        self.pe_layer = PositionEncoding(width)
        self.point_embeddings = nn.ModuleList([nn.Embedding(1, width) for _ in range(4)])
        self.not_a_point_embed = nn.Embedding(1, width)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_channels // 4, 2, stride=2),
            LayerNorm2d(mask_channels // 4),
            nn.GELU(),
            nn.Conv2d(mask_channels // 4, mask_channels, 2, stride=2),
            LayerNorm2d(mask_channels),
            nn.GELU(),
            nn.Conv2d(mask_channels, width, 1),
        )
        self.no_mask_embed = nn.Embedding(1, width)

    def tokens(self, points: Tensor, labels: Tensor) -> Tensor:
        """points: (B, P, 2) pixels of the network's picture. labels: (B, P), 1 foreground, 0
        background, 2 and 3 a box's upper left and lower right corner, PADDING or ABSENT. Returns
        (B, P, width).
        """
        where: Tensor = self.pe_layer((points + 0.5) / self.picture_px)
        tokens = where * (labels >= 0).unsqueeze(-1).to(where.dtype)
        kinds = [(PADDING, self.not_a_point_embed), *enumerate(self.point_embeddings)]
        for label, embedding in kinds:
            chosen = (labels == label).unsqueeze(-1).to(where.dtype)
            tokens = tokens + chosen * cast(nn.Embedding, embedding).weight
        return tokens

    def dense(self, mask: Tensor | None, has_mask: Tensor | None = None) -> Tensor:
        """mask: (B, 1, 4g, 4g) logits, or None. has_mask: (B,) 1 where the mask counts, all if
        None. Returns (B or 1, width, g, g), or (1, width, 1, 1) without a mask.
        """
        none = self.no_mask_embed.weight.reshape(1, -1, 1, 1)
        if mask is None:
            return none
        seen: Tensor = self.mask_downscaling(mask)
        if has_mask is None:
            return seen
        there = has_mask.reshape(-1, 1, 1, 1).to(seen.dtype)
        return there * seen + (1 - there) * none


def absent_bias(labels: Tensor, dtype: torch.dtype) -> Tensor:
    """What takes ABSENT points out of every attention: (B, P) of 0 or OUT_OF_SIGHT."""
    return (labels == ABSENT).to(dtype) * OUT_OF_SIGHT
