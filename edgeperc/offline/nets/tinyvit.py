"""TinyViT, the small encoder of MobileSAM: convolutions first, then attention within windows.

    encoder = TinyViT(TinyVitConfig())
    embedding = encoder(picture)                             # (B, 256, 64, 64)

Names of parameters are those of `mobile_sam.pt`. After Wu et al., "TinyViT" (arXiv 2207.10666) and
ChaoningZhang/MobileSAM (arXiv 2306.14289), where the last stage keeps the resolution, so that the
embedding has a sixteenth of the picture's side. The published code has the embedding's size
written in; here it follows from picture_px.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeperc.offline.nets.hiera import merge, partition
from edgeperc.offline.nets.taps import Attention
from edgeperc.offline.nets.vit import neck


@dataclass(frozen=True, kw_only=True)
class TinyVitConfig:
    """Sizes of the encoder, each of four stages; those of TinyViT-5M unless said otherwise.

    heads, windows: of the stages with attention, which are all but the first. labels: of the
    classifier that the encoder was trained with; it is in the file, and not used.
    """

    embeds: tuple[int, int, int, int] = (64, 128, 160, 320)
    depths: tuple[int, int, int, int] = (2, 2, 6, 2)
    heads: tuple[int, int, int] = (4, 5, 10)
    windows: tuple[int, int, int] = (7, 14, 7)
    picture_px: int = 1024
    width: int = 256
    labels: int = 1000

    @property
    def grid(self) -> int:
        """Cells along a side of the embedding."""
        return self.picture_px // 16


class TinyViT(nn.Module):
    """Picture (B, 3, S, S) -> embedding (B, width, g, g), g = S / 16."""

    def __init__(self, config: TinyVitConfig) -> None:
        super().__init__()
        self.grid = config.grid
        sides = (4 * config.grid, 2 * config.grid, config.grid, config.grid)
        self.patch_embed = PatchEmbed(config.embeds[0])
        self.layers = nn.ModuleList([ConvStage(config)])
        for stage in (1, 2, 3):
            self.layers.append(AttentionStage(config, stage, sides[stage]))
        self.norm_head = nn.LayerNorm(config.embeds[-1])
        self.head = nn.Linear(config.embeds[-1], config.labels)
        self.neck = neck(config.embeds[-1], config.width)

    def forward(self, picture: Tensor) -> Tensor:
        """picture: float32, normalised."""
        seen = self.patch_embed(picture)
        for layer in self.layers:
            seen = layer(seen)
        embedding: Tensor = self.neck(to_planes(seen, self.grid))
        return embedding


class ConvNorm(nn.Sequential):
    """A convolution without bias, then a batch norm; an export folds it into the convolution."""

    def __init__(
        self, inside: int, outside: int, kernel: int = 1, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        pad = kernel // 2
        self.c = nn.Conv2d(inside, outside, kernel, stride, pad, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outside)


class PatchEmbed(nn.Module):
    """Down to a quarter of the side in two steps: (B, 3, S, S) -> (B, embed, S / 4, S / 4)."""

    def __init__(self, embed: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(
            ConvNorm(3, embed // 2, 3, stride=2),
            nn.GELU(),
            ConvNorm(embed // 2, embed, 3, stride=2),
        )

    def forward(self, picture: Tensor) -> Tensor:
        """picture: float32."""
        seen: Tensor = self.seq(picture)
        return seen


class ConvStage(nn.Module):
    """The first stage: (B, C, h, w) -> (B, h / 2 * w / 2, C')."""

    def __init__(self, config: TinyVitConfig) -> None:
        super().__init__()
        inside, outside = config.embeds[:2]
        self.blocks = nn.ModuleList(WideConv(inside) for _ in range(config.depths[0]))
        self.downsample = Merge(inside, outside, stride=2)

    def forward(self, seen: Tensor) -> Tensor:
        """seen: (B, C, h, w)."""
        for block in self.blocks:
            seen = block(seen)
        tokens: Tensor = self.downsample(seen)
        return tokens


class WideConv(nn.Module):
    """Four times as wide, a depthwise convolution there, and back; added to what came in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 4 * channels
        self.conv1 = ConvNorm(channels, wide)
        self.conv2 = ConvNorm(wide, wide, 3, groups=wide)
        self.conv3 = ConvNorm(wide, channels)

    def forward(self, seen: Tensor) -> Tensor:
        """seen: (B, C, h, w)."""
        wide = F.gelu(self.conv2(F.gelu(self.conv1(seen))))
        return F.gelu(self.conv3(wide) + seen)


class Merge(nn.Module):
    """To the next stage's channels and, at stride 2, half the side: (B, C, h, w) -> (B, N, C')."""

    def __init__(self, inside: int, outside: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inside, outside)
        self.conv2 = ConvNorm(outside, outside, 3, stride=stride, groups=outside)
        self.conv3 = ConvNorm(outside, outside)

    def forward(self, seen: Tensor) -> Tensor:
        """seen: (B, C, h, w)."""
        merged = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(seen)))))
        return to_tokens(merged)


class AttentionStage(nn.Module):
    """One of the other stages, tokens to tokens."""

    def __init__(self, config: TinyVitConfig, stage: int, side: int) -> None:
        super().__init__()
        self.side = side
        embed, heads, window = (
            config.embeds[stage],
            config.heads[stage - 1],
            config.windows[stage - 1],
        )
        self.blocks = nn.ModuleList(
            TinyVitBlock(embed, heads, window, side) for _ in range(config.depths[stage])
        )
        if stage < 3:
            self.downsample = Merge(embed, config.embeds[stage + 1], stride=2 if stage == 1 else 1)
        self.last = stage == 3

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (B, side², C)."""
        for block in self.blocks:
            tokens = block(tokens)
        if not self.last:
            tokens = self.downsample(to_planes(tokens, self.side))
        return tokens


class TinyVitBlock(nn.Module):
    """Attention within windows, a depthwise convolution, an MLP; (B, side², C) stays so."""

    def __init__(self, embed: int, heads: int, window: int, side: int) -> None:
        super().__init__()
        self.side, self.window = side, window
        self.attn = WindowAttention(embed, heads, window)
        self.local_conv = ConvNorm(embed, embed, 3, groups=embed)
        self.mlp = Mlp(embed, 4 * embed)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (B, side², C)."""
        square = tokens.reshape(-1, self.side, self.side, self.attn.proj.in_features)
        # Padded before the norm, which is the attention's own: beyond the edge are its biases.
        windows = self.attn(partition(square, self.window))
        square = square + merge(windows, self.side, self.side)
        tokens = to_tokens(self.local_conv(square.permute(0, 3, 1, 2)))
        after: Tensor = tokens + self.mlp(tokens)
        return after


class WindowAttention(Attention):
    """Attention in windows with a bias for each head and each distance |dy|, |dx|."""

    distance: Tensor

    def __init__(self, embed: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.norm = nn.LayerNorm(embed)
        self.qkv = nn.Linear(embed, 3 * embed)
        self.proj = nn.Linear(embed, embed)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window**2))
        self.register_buffer("distance", distances(window), persistent=False)

    def forward(self, windows: Tensor) -> Tensor:
        """windows: (B, window, window, C)."""
        embed = self.proj.in_features
        qkv = self.qkv(self.norm(windows))
        qkv = qkv.reshape(-1, self.window**2, self.heads, 3, embed // self.heads)
        q, k, v = qkv.permute(3, 0, 2, 1, 4).unbind(0)
        out = self.attend(q, k, v, bias=self.attention_biases[:, self.distance].unsqueeze(0))
        mixed: Tensor = self.proj(out.transpose(1, 2).reshape(-1, self.window, self.window, embed))
        return mixed


class Mlp(nn.Module):
    """A norm, then two layers with a GELU between them."""

    def __init__(self, embed: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(embed)
        self.fc1 = nn.Linear(embed, hidden)
        self.fc2 = nn.Linear(hidden, embed)

    def forward(self, seen: Tensor) -> Tensor:
        """seen: (..., embed)."""
        out: Tensor = self.fc2(F.gelu(self.fc1(self.norm(seen))))
        return out


def distances(window: int) -> Tensor:
    """Index |dy| * window + |dx| of each pair of cells of a window, (window², window²) int64."""
    cell = torch.arange(window**2)
    y, x = cell // window, cell % window
    return (y[:, None] - y).abs() * window + (x[:, None] - x).abs()


def to_tokens(planes: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h * w, C)."""
    channels, height, width = (int(length) for length in planes.shape[1:])
    return planes.reshape(-1, channels, height * width).transpose(1, 2)


def to_planes(tokens: Tensor, side: int) -> Tensor:
    """(B, side², C) -> (B, C, side, side)."""
    return tokens.transpose(1, 2).reshape(-1, int(tokens.shape[-1]), side, side)
