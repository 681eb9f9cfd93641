"""The picture encoder of SAM: a vision transformer with attention in windows, and a few global.

    encoder = ImageEncoderViT(VitConfig(embed=768, depth=12, heads=12, global_blocks=(2, 5, 8, 11)))
    embedding = encoder(picture)                             # (B, 256, 64, 64)

Names of parameters are those of Meta's files. Sources: Li et al. 2022 (ViTDet, arXiv 2203.16527)
for windows and neck; Li et al. 2022 (MViTv2, arXiv 2112.01526, equation 4) for relative positions;
Kirillov et al. 2023 (SAM), appendix A; repository facebookresearch/segment-anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeperc.offline.nets.hiera import merge, partition
from edgeperc.offline.nets.prompt_encoder import LayerNorm2d
from edgeperc.offline.nets.taps import Attention


@dataclass(frozen=True, kw_only=True)
class VitConfig:
    """Sizes of the encoder. global_blocks: those that attend to the whole picture, not to windows.

    window: side of the others' windows in patches. width: channels of the embedding.
    """

    embed: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]
    picture_px: int = 1024
    patch_px: int = 16
    window: int = 14
    width: int = 256

    @property
    def grid(self) -> int:
        """Patches along a side of the picture."""
        return self.picture_px // self.patch_px


class ImageEncoderViT(nn.Module):
    """Picture (B, 3, S, S) -> embedding (B, width, g, g), g = S / patch_px."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(config.embed, config.patch_px)
        self.pos_embed = nn.Parameter(torch.zeros(1, config.grid, config.grid, config.embed))
        self.blocks = nn.ModuleList(Block(config, index) for index in range(config.depth))
        self.neck = neck(config.embed, config.width)

    def forward(self, picture: Tensor) -> Tensor:
        """picture: float32, normalised."""
        seen = self.patch_embed(picture) + self.pos_embed
        for block in self.blocks:
            seen = block(seen)
        embedding: Tensor = self.neck(seen.permute(0, 3, 1, 2))
        return embedding


class PatchEmbed(nn.Module):
    """Each patch to a vector: (B, 3, S, S) -> (B, g, g, embed)."""

    def __init__(self, embed: int, patch_px: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed, patch_px, stride=patch_px)

    def forward(self, picture: Tensor) -> Tensor:
        """picture: float32."""
        patches: Tensor = self.proj(picture)
        return patches.permute(0, 2, 3, 1)


class Block(nn.Module):
    """Attention within windows or everywhere, then an MLP; (B, g, g, embed) stays so."""

    def __init__(self, config: VitConfig, index: int) -> None:
        super().__init__()
        self.grid = config.grid
        self.window = 0 if index in config.global_blocks else config.window
        self.norm1 = nn.LayerNorm(config.embed, eps=1e-6)
        self.attn = VitAttention(config.embed, config.heads, self.window or config.grid)
        self.norm2 = nn.LayerNorm(config.embed, eps=1e-6)
        self.mlp = Mlp(config.embed, 4 * config.embed)

    def forward(self, seen: Tensor) -> Tensor:
        """seen: (B, g, g, embed)."""
        normed = self.norm1(seen)
        if self.window:
            # Padded after the norm: what is beyond the edge is a key of zero plus bias.
            windows = self.attn(partition(normed, self.window))
            attended = merge(windows, self.grid, self.grid)
        else:
            attended = self.attn(normed)
        seen = seen + attended
        after: Tensor = seen + self.mlp(self.norm2(seen))
        return after


class VitAttention(Attention):
    """Attention among the patches of a square, with a bias from where query and key lie.

    The bias is q · (r_h[y_q - y_k] + r_w[x_q - x_k]), of the query as it is before its tap.
    """

    distance: Tensor

    def __init__(self, embed: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads, self.side = heads, side
        self.qkv = nn.Linear(embed, 3 * embed)
        self.proj = nn.Linear(embed, embed)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, embed // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, embed // heads))
        at = torch.arange(side)
        self.register_buffer("distance", at[:, None] - at + side - 1, persistent=False)

    def forward(self, seen: Tensor) -> Tensor:
        """seen: (B, side, side, embed)."""
        tokens, embed = self.side**2, self.proj.in_features
        qkv = self.qkv(seen).reshape(-1, tokens, 3, self.heads, embed // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        out = self.attend(q, k, v, bias=self.bias(q))
        mixed: Tensor = self.proj(out.transpose(1, 2).reshape(-1, self.side, self.side, embed))
        return mixed

    def bias(self, q: Tensor) -> Tensor:
        """q: (B, heads, side², C). Returns (B, heads, side², side²)."""
        side = self.side
        square = q.reshape(-1, self.heads, side, side, self.rel_pos_h.shape[1])
        rows = square @ self.rel_pos_h[self.distance].transpose(1, 2)
        columns = square.transpose(2, 3) @ self.rel_pos_w[self.distance].transpose(1, 2)
        both = rows.unsqueeze(-1) + columns.transpose(2, 3).unsqueeze(-2)
        return both.reshape(-1, self.heads, side**2, side**2)


class Mlp(nn.Module):
    """Two layers with a GELU between them."""

    def __init__(self, embed: int, hidden: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(embed, hidden)
        self.lin2 = nn.Linear(hidden, embed)

    def forward(self, seen: Tensor) -> Tensor:
        """seen: (..., embed)."""
        out: Tensor = self.lin2(F.gelu(self.lin1(seen)))
        return out


def neck(embed: int, width: int) -> nn.Sequential:
    """Features of a sixteenth of the picture's side to the channels of an embedding."""
    return nn.Sequential(
        nn.Conv2d(embed, width, 1, bias=False),
        LayerNorm2d(width),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        LayerNorm2d(width),
    )
