"""Hiera, the hierarchical picture encoder of SAM 2, and its pyramid neck.

Four stages of attention blocks; each stage halves the picture and doubles the channels by pooling
the queries of its first block. Most blocks look inside windows, a few of the third stage at the
whole picture. Names of parameters are those of Meta's files. Sources: Ryali et al. 2023 (Hiera),
Bolya et al. 2023 (window embedding), Ravi et al. 2024 (SAM 2), appendix D; repository
facebookresearch/sam2.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeperc.offline.nets.mask_decoder import Mlp
from edgeperc.offline.nets.prompt_encoder import LayerNorm2d
from edgeperc.offline.nets.pyramid import WIDTHS, Pyramid
from edgeperc.offline.nets.taps import Attention, join_heads, split_heads

EPS = 1e-6


def partition(x: Tensor, window: int) -> Tensor:
    """Cut (B, H, W, C) into (B * windows, window, window, C), row by row; zeros beyond the edge."""
    # Plain integers: an export that traces sizes would round the division the other way.
    height, width, channels = (int(length) for length in x.shape[1:])
    down, across = -(-height // window), -(-width // window)
    if (down * window, across * window) != (height, width):
        x = F.pad(x, (0, 0, 0, across * window - width, 0, down * window - height))
    x = x.reshape(-1, down, window, across, window, channels)
    return x.transpose(2, 3).reshape(-1, window, window, channels)


def merge(windows: Tensor, height: int, width: int) -> Tensor:
    """Undo `partition` for a picture of height x width: (B, H, W, C)."""
    window, channels, height, width = (int(n) for n in (*windows.shape[2:], height, width))
    down, across = -(-height // window), -(-width // window)
    x = windows.reshape(-1, down, across, window, window, channels).transpose(2, 3)
    x = x.reshape(-1, down * window, across * window, channels)
    if (down * window, across * window) == (height, width):
        return x
    return x[:, :height, :width]


def pool(x: Tensor) -> Tensor:
    """The largest of each 2 x 2: (B, H, W, C) to (B, H/2, W/2, C)."""
    return F.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


class WindowAttention(Attention):
    """Self-attention in one window, or in the whole picture; `pooled` halves the queries."""

    def __init__(self, inside: int, outside: int, heads: int, *, pooled: bool) -> None:
        super().__init__()
        self.heads = heads
        self.pooled = pooled
        self.qkv = nn.Linear(inside, 3 * outside)
        self.proj = nn.Linear(outside, outside)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x: (B, H, W, inside). bias: added to the logits, (B or 1, 1, 1, H*W). Returns
        (B, H, W, outside), or half of H and W where pooled.
        """
        # Plain integers and split, not chunk: an export has them as constants.
        width = self.proj.in_features
        q, k, v = self.qkv(x).split(width, dim=-1)
        if self.pooled:
            q = pool(q)
        height, across = int(q.shape[1]), int(q.shape[2])
        k, v = (part.reshape(-1, int(x.shape[1]) * int(x.shape[2]), width) for part in (k, v))
        heads = (
            split_heads(part, self.heads) for part in (q.reshape(-1, height * across, width), k, v)
        )
        out = join_heads(self.attend(*heads, bias=bias))
        return cast(Tensor, self.proj(out.reshape(-1, height, across, width)))


class Block(nn.Module):
    """Attention, then a feed-forward layer. window: side in tokens, 0 for the whole picture."""

    def __init__(self, inside: int, outside: int, heads: int, *, window: int, pooled: bool) -> None:
        super().__init__()
        self.window = window
        self.pooled = pooled
        self.norm1 = nn.LayerNorm(inside, eps=EPS)
        self.attn = WindowAttention(inside, outside, heads, pooled=pooled)
        self.norm2 = nn.LayerNorm(outside, eps=EPS)
        self.mlp = Mlp((outside, 4 * outside, outside), nn.GELU)
        if inside != outside:
            self.proj = nn.Linear(inside, outside)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, H, W, inside). Returns (B, H, W, outside), halved where pooled."""
        normed = self.norm1(x)
        shortcut = self.shortcut(x, normed)
        if self.window:
            looked = self.attn(partition(normed, self.window))
            looked = merge(looked, shortcut.shape[1], shortcut.shape[2])
        else:
            looked = self.attn(normed)
        return self.feed_forward(shortcut + looked)

    def shortcut(self, x: Tensor, normed: Tensor) -> Tensor:
        """What attention is added to: x itself, or norm1's output in the new shape."""
        if x.shape[-1] != self.norm2.weight.shape[0]:
            normed = self.proj(normed)
            return pool(normed) if self.pooled else normed
        return pool(x) if self.pooled else x

    def feed_forward(self, x: Tensor) -> Tensor:
        """The second half of the block, on (..., outside)."""
        return x + cast(Tensor, self.mlp(self.norm2(x)))


class PatchEmbedding(nn.Module):
    """Meta's: one convolution, 7 x 7 of stride 4."""

    def __init__(self, embed: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed, 7, stride=4, padding=3)

    def forward(self, picture: Tensor) -> Tensor:
        """(B, 3, S, S) to (B, S/4, S/4, embed)."""
        return cast(Tensor, self.proj(picture)).permute(0, 2, 3, 1)


class Stem(nn.Module):
    """Two 3 x 3 convolutions of stride 2: a quarter of the picture's side, like Meta's patches."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inside, outside in zip((3, *widths[:-1]), widths, strict=True):
            layers += [nn.Conv2d(inside, outside, 3, stride=2, padding=1), LayerNorm2d(outside)]
            layers += [nn.GELU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, picture: Tensor) -> Tensor:
        """(B, 3, S, S) to (B, S/4, S/4, widths[-1])."""
        return cast(Tensor, self.layers(picture)).permute(0, 2, 3, 1)


class Hiera(nn.Module):
    """The trunk: patches with their place, then the blocks of all stages in one list.

    `stage_ends` are the last blocks of the stages. pyramid: convolutions beside it, whose maps are
    added to what the first three stages work on.
    """

    def __init__(
        self,
        *,
        picture_px: int,
        embed: int,
        heads: int,
        stages: tuple[int, ...],
        global_blocks: tuple[int, ...],
        windows: tuple[int, ...],
        background_px: tuple[int, int],
        q_pool_stages: int = 3,
        stem: tuple[int, ...] = (),
        pyramid: bool = False,
    ) -> None:
        super().__init__()
        self.side = picture_px // 4
        self.patch_embed = Stem(stem) if stem else PatchEmbedding(embed)
        self.pos_embed = nn.Parameter(torch.zeros(1, embed, *background_px))
        self.pos_embed_window = nn.Parameter(torch.zeros(1, embed, windows[0], windows[0]))
        self.widths = tuple(embed * 2**stage for stage in range(len(stages)))
        self.stage_ends = tuple(sum(stages[: stage + 1]) - 1 for stage in range(len(stages)))
        self.blocks = nn.ModuleList()
        for stage, depth in enumerate(stages):
            for index in range(depth):
                before = max(stage - 1, 0) if index == 0 else stage
                whole = len(self.blocks) in global_blocks
                self.blocks.append(
                    Block(
                        self.widths[before],
                        self.widths[stage],
                        heads * 2**stage,
                        window=0 if whole else windows[before],
                        pooled=index == 0 and 0 < stage <= q_pool_stages,
                    )
                )
        self.joined_after = tuple(end + 1 for end in self.stage_ends[:2])
        self.folded: Tensor | None = None
        self.apply(_small_weights)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.pos_embed_window, std=0.02)
        if pyramid:
            self.pyramid = Pyramid()
            into = (*self.widths[:3], self.widths[2])
            self.joins = nn.ModuleList(
                nn.Conv2d(*pair, 1) for pair in zip(WIDTHS, into, strict=True)
            )

    def position(self) -> Tensor:
        """Where each patch is, (1, S/4, S/4, embed): a stretched background and tiled windows."""
        if self.folded is not None:
            return self.folded
        side = self.side
        background = F.interpolate(self.pos_embed, size=(side, side), mode="bicubic")
        tiles = side // self.pos_embed_window.shape[-1]
        position = background + self.pos_embed_window.tile((1, 1, tiles, tiles))
        return position.permute(0, 2, 3, 1)

    def fold_position(self) -> None:
        """Keep the position as a constant, for an export; training goes on without."""
        self.folded = self.position().detach().contiguous()

    def embed(self, picture: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What the blocks take. picture: (B, 3, S, S). Returns tokens (B, S/4, S/4, embed) and what
        `block` is to be given beside them: maps of the pyramid, none without one.
        """
        x = cast(Tensor, self.patch_embed(picture)) + self.position()
        if not hasattr(self, "pyramid"):
            return x, []
        maps = [join(m) for join, m in zip(self.joins, self.pyramid(picture), strict=True)]
        coarse = F.interpolate(maps[3], scale_factor=2.0, mode="nearest")
        fine, *others = (m.permute(0, 2, 3, 1) for m in (*maps[:2], maps[2] + coarse))
        return x + fine, others

    def block(self, index: int, x: Tensor, beside: list[Tensor]) -> Tensor:
        """One block, and the map of the pyramid that comes in behind it. x: (B, H, W, C)."""
        x = self.blocks[index](x)
        if beside and index in self.joined_after:
            x = x + beside[self.joined_after.index(index)]
        return x

    def forward(self, picture: Tensor) -> list[Tensor]:
        """picture: (B, 3, S, S). Returns each stage's features, (B, C, H, W), the finest first."""
        x, beside = self.embed(picture)
        out = []
        for index in range(len(self.blocks)):
            x = self.block(index, x, beside)
            if index in self.stage_ends:
                out.append(x.permute(0, 3, 1, 2))
        return out


class Neck(nn.Module):
    """Every stage to one width; the third stage takes the fourth in."""

    def __init__(self, widths: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        for inside in reversed(widths):
            self.convs.append(nn.Sequential())
            cast(nn.Sequential, self.convs[-1]).add_module("conv", nn.Conv2d(inside, width, 1))

    def forward(self, stages: list[Tensor]) -> list[Tensor]:
        """stages: four of (B, C, H, W), the finest first. Returns three of (B, width, H, W)."""
        coarse, *finer = (
            conv(stage) for conv, stage in zip(self.convs, reversed(stages), strict=True)
        )
        finer[0] = finer[0] + F.interpolate(coarse, scale_factor=2.0, mode="nearest")
        return finer[::-1]


class ImageEncoder(nn.Module):
    """Trunk and neck."""

    def __init__(self, trunk: Hiera, width: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.neck = Neck(trunk.widths, width)

    def forward(self, picture: Tensor) -> list[Tensor]:
        """picture: (B, 3, S, S). Returns (B, width, ., .) at S/4, S/8 and S/16."""
        return cast(list[Tensor], self.neck(self.trunk(picture)))


def _small_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
