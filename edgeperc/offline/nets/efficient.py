"""Window routing: encode with all care only the windows in which something is to be seen.

Between the first windowed block of the trunk's third stage and its last global one, blocks work on
chosen windows alone; tokens of the others go through a small adapter instead. Source: Zhang et al.,
Efficient-SAM2, ICLR 2026, arXiv 2602.08224; repository jingjing0419/Efficient-SAM2. Unlike there,
what lies beyond the picture's edge is zero behind the first norm of every block, as in the whole
encoder: to choose all windows is to run the whole encoder.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeperc.errors import ConfigError
from edgeperc.offline.nets.hiera import Block, WindowAttention, merge, partition
from edgeperc.offline.nets.mask_decoder import DecoderAttention, MaskDecoder
from edgeperc.offline.nets.sam2 import Features, Sam2, Sam2Config

EXCLUDED = -1e4
"""Added to the logits of a key that must not count."""

SALIENT_TOKENS = 7
"""Tokens whose attention tells where the decoder looks: its own six and the first of the prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where windows may be left out. first, stop: blocks[first:stop] work on chosen windows.

    window: their side in tokens. grid: side of the stage in tokens.
    """

    first: int
    stop: int
    window: int
    grid: int

    @property
    def across(self) -> int:
        """Windows in a row, the last one partly beyond the edge if they do not tile the grid."""
        return -(-self.grid // self.window)

    @property
    def windows(self) -> int:
        """Windows of the picture, counted row by row."""
        return self.across**2

    def valid(self) -> Tensor:
        """1 for tokens of the picture, 0 for those beyond its edge: (windows, w, w, 1)."""
        return partition(torch.ones(1, self.grid, self.grid, 1), self.window)


def route_of(config: Sam2Config) -> Route:
    """The route through a network. Raises ConfigError if its third stage has nothing to route."""
    start = sum(config.stages[:2])
    inside = range(start + 1, start + config.stages[2])
    whole = [block for block in inside if block in config.global_blocks]
    route = Route(
        first=start + 1,
        stop=max(whole, default=inside.stop),
        window=config.windows[2],
        grid=config.grid,
    )
    if route.stop <= route.first or route.windows < 2:
        raise ConfigError(
            f"{config.name}: windows cannot be routed: its third stage has no block between "
            "the first and the last that looks at the whole picture, or only one window"
        )
    return route


class Bypass(nn.Module):
    """What a token goes through whose window is left out. Names are those of the published files
    `bypass_bottleneck_{base,large}.pth`: norm, down_project, up_project.
    """

    def __init__(self, width: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.down_project = nn.Linear(width, width // 2)
        self.up_project = nn.Linear(width // 2, width)
        self.dropout = nn.Dropout(dropout)
        nn.init.kaiming_normal_(self.down_project.weight, nonlinearity="relu")
        nn.init.normal_(self.up_project.weight, std=1e-3)
        nn.init.zeros_(self.down_project.bias)
        nn.init.zeros_(self.up_project.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., width). Returns the same shape."""
        hidden = self.dropout(self.down_project(self.norm(x)).relu())
        return x + cast(Tensor, self.up_project(hidden))


def bypass_of(config: Sam2Config) -> Bypass:
    """A new adapter of a network's third stage: 448 channels for B+, 576 for L."""
    return Bypass(4 * config.embed)


class Head(nn.Module):
    """The encoder up to where windows may be left out, and the finer features for the decoder."""

    def __init__(self, net: Sam2) -> None:
        super().__init__()
        route = route_of(net.config)
        self.trunk, self.neck = net.image_encoder.trunk, net.image_encoder.neck
        self.conv_s0, self.conv_s1 = net.sam_mask_decoder.conv_s0, net.sam_mask_decoder.conv_s1
        self.first = route.first

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """picture: (B, 3, S, S). Returns tokens (B, g, g, C), high0 and high1 as in Features."""
        x, beside = self.trunk.embed(picture)
        stages = []
        for index in range(self.first):
            x = self.trunk.block(index, x, beside)
            if index in self.trunk.stage_ends:
                stages.append(x.permute(0, 3, 1, 2))
        fine, middle = stages
        high0 = self.conv_s0(self.neck.convs[3](fine))
        return x, high0, self.conv_s1(self.neck.convs[2](middle))


class Middle(nn.Module):
    """Blocks on some windows of one picture: each window for itself, then all of them together."""

    def __init__(self, net: Sam2) -> None:
        super().__init__()
        route = route_of(net.config)
        self.blocks = net.image_encoder.trunk.blocks[route.first : route.stop]

    def forward(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """tokens: (K, w, w, C) of K windows. valid: (K, w, w, 1), 1 for tokens that are there, 0
        for those beyond the edge; a window of zeros fills K up. Returns the shape of tokens.
        """
        bias = (1 - valid.reshape(1, 1, 1, -1)) * EXCLUDED
        for block in self.blocks:
            tokens = _on_windows(cast(Block, block), tokens, valid, bias)
        return tokens


def _on_windows(block: Block, tokens: Tensor, valid: Tensor, bias: Tensor) -> Tensor:
    """A block on windows; what is beyond the edge is zero as in `partition`, or no key at all."""
    normed = block.norm1(tokens) * valid
    looked = block.attn(normed) if block.window else _together(block.attn, normed, bias)
    return block.feed_forward(tokens + looked)


def _together(attn: WindowAttention, tokens: Tensor, bias: Tensor) -> Tensor:
    """Attention among the tokens of all windows, in which no size depends on how many they are."""
    side, width = int(tokens.shape[1]), int(tokens.shape[-1])
    parts = attn.qkv(tokens).split(width, dim=-1)
    split = (x.reshape(1, -1, attn.heads, width // attn.heads).transpose(1, 2) for x in parts)
    looked = attn.attend(*split, bias=bias).transpose(1, 2).reshape(-1, side, side, width)
    return cast(Tensor, attn.proj(looked))


class Tail(nn.Module):
    """The encoder from the third stage's last global block on; what was left out is bypassed."""

    def __init__(self, net: Sam2, bypass: Bypass) -> None:
        super().__init__()
        self.trunk, self.neck = net.image_encoder.trunk, net.image_encoder.neck
        self.stop, self.bypass = route_of(net.config).stop, bypass

    def forward(self, tokens: Tensor, chosen: Tensor) -> Tensor:
        """tokens: (B, g, g, C). chosen: (B, g, g, 1), 1 where a block of the middle worked, 0 where
        a token is as the head left it. Returns the embedding (B, D, g, g).
        """
        x = chosen * tokens + (1 - chosen) * self.bypass(tokens)
        stages = []
        for index in range(self.stop, len(self.trunk.blocks)):
            x = self.trunk.blocks[index](x)
            if index in self.trunk.stage_ends:
                stages.append(x.permute(0, 3, 1, 2))
        third, fourth = stages
        coarse = F.interpolate(self.neck.convs[0](fourth), scale_factor=2.0, mode="nearest")
        return cast(Tensor, self.neck.convs[1](third)) + coarse


class Routed(nn.Module):
    """An encoder that leaves windows out."""

    def __init__(self, net: Sam2, bypass: Bypass) -> None:
        super().__init__()
        self.route = route_of(net.config)
        self.head, self.middle, self.tail = Head(net), Middle(net), Tail(net, bypass)

    def forward(self, picture: Tensor, windows: Tensor) -> Features:
        """picture: (1, 3, S, S). windows: (K,) int64, the ones to encode, at least one of them."""
        tokens, high0, high1 = self.head(picture)
        return Features(self.from_head(tokens, windows), (high0, high1))

    def from_head(self, tokens: Tensor, windows: Tensor) -> Tensor:
        """The embedding of one picture, from the head's tokens (1, g, g, C)."""
        grid, size = self.route.grid, self.route.window
        valid = self.route.valid().to(tokens)
        cut = partition(tokens, size)
        cut = cut.index_copy(0, windows, self.middle(cut[windows], valid[windows]))
        marks = torch.zeros_like(valid).index_fill(0, windows, 1.0)
        return cast(Tensor, self.tail(merge(cut, grid, grid), merge(marks, grid, grid)))


class Recorder(nn.Module):
    """What stands in a tap and remembers what passed."""

    seen: Tensor

    def forward(self, values: Tensor) -> Tensor:
        """Hand on."""
        self.seen = values
        return values


class SaliencyTaps:
    """Where a decoder looks: attention of its tokens to the picture, in both layers and the last.

    Stays in the decoder's taps until `remove`; the attentions are written out meanwhile.
    """

    def __init__(self, decoder: MaskDecoder) -> None:
        layers = [layer.cross_attn_token_to_image for layer in decoder.transformer.layers]
        layers.append(decoder.transformer.final_attn_token_to_image)
        self._taps = [cast(DecoderAttention, layer).tap_softmax for layer in layers]
        self._recorders = [Recorder() for _ in self._taps]
        for tap, recorder in zip(self._taps, self._recorders, strict=True):
            tap.work = recorder

    def read(self) -> Tensor:
        """Of the last `decode`: (B, g, g), mean over attentions, heads and the first seven tokens;
        sums to 1.
        """
        shares = [each.seen[:, :, :SALIENT_TOKENS].mean((1, 2)) for each in self._recorders]
        mean = torch.stack(shares).mean(0)
        side = math.isqrt(int(mean.shape[-1]))
        return mean.reshape(-1, side, side)

    def remove(self) -> None:
        """Leave the taps as they were."""
        for tap in self._taps:
            tap.work = None
