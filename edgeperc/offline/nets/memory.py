"""SAM 2's memory: how a mask on a frame is kept, and how a later frame looks at what was kept.

Names of parameters are those of Meta's files. Sources: Ravi et al. 2024 (SAM 2), section 4 and
appendix D; Su et al. 2021 (rotary position); repository facebookresearch/sam2.
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from edgeperc.offline.nets.prompt_encoder import LayerNorm2d
from edgeperc.offline.nets.taps import Attention, join_heads, split_heads

MASK_SCALE, MASK_SHIFT = 20.0, -10.0
"""A mask's probability, spread over the range of logits before it is kept."""


def sine_position(width: int, side: int) -> Tensor:
    """A fixed code of row and column, (width, side, side). Source: Carion et al. 2020 (DETR)."""
    half = width // 2
    step = 10000.0 ** (2 * torch.div(torch.arange(half), 2, rounding_mode="floor") / half)
    place = torch.arange(1, side + 1) / (side + 1e-6) * 2 * math.pi
    phase = place[:, None] / step
    line = torch.stack([phase[:, 0::2].sin(), phase[:, 1::2].cos()], dim=-1).flatten(1)
    rows = line[:, None].expand(side, side, half)
    columns = line[None].expand(side, side, half)
    return torch.cat([rows, columns], dim=-1).permute(2, 0, 1).contiguous()


def sine_offset(offset: Tensor, width: int) -> Tensor:
    """A fixed code of a number, (N,) to (N, width): sines, then cosines."""
    half = width // 2
    index = torch.arange(half, device=offset.device)
    step = 10000.0 ** (2 * torch.div(index, 2, rounding_mode="floor") / half)
    phase = offset[:, None] / step
    return torch.cat([phase.sin(), phase.cos()], dim=-1)


class Rotation(NamedTuple):
    """Cosine and sine of each token's angles, both (N, C), each pair of channels alike."""

    cos: Tensor
    sin: Tensor

    def rotate(self, x: Tensor) -> Tensor:
        """x: (B, heads, N, C). Turns each pair of channels by its angle."""
        even, odd = x.reshape(*x.shape[:-1], x.shape[-1] // 2, 2).unbind(-1)
        return x * self.cos + torch.stack([-odd, even], dim=-1).reshape(x.shape) * self.sin


def rotation(channels: int, side: int, theta: float = 10000.0) -> Rotation:
    """Angles of a side x side grid, row by row: half of the channels turn with x, half with y."""
    speed = theta ** -(torch.arange(0, channels, 4)[: channels // 4].float() / channels)
    index = torch.arange(side * side)
    x, y = (index % side).float(), torch.div(index, side, rounding_mode="floor").float()
    angle = torch.cat([x[:, None] * speed, y[:, None] * speed], dim=-1)
    angle = angle.repeat_interleave(2, dim=-1)
    return Rotation(angle.cos(), angle.sin())


class RotaryAttention(Attention):
    """Attention whose queries and keys are turned by where they are."""

    def __init__(self, width: int, key_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(key_width, width)
        self.v_proj, self.out_proj = nn.Linear(key_width, width), nn.Linear(width, width)

    def query(self, q: Tensor, turn: Rotation) -> Tensor:
        """q: (B, N, width). Returns (B, heads, N, C), turned."""
        return turn.rotate(split_heads(self.q_proj(q), self.heads))

    def key(self, k: Tensor, turn: Rotation) -> Tensor:
        """k: (B, M, key_width). Returns (B, heads, M, C), turned."""
        return turn.rotate(split_heads(self.k_proj(k), self.heads))

    def value(self, v: Tensor) -> Tensor:
        """v: (B, M, key_width). Returns (B, heads, M, C)."""
        return split_heads(self.v_proj(v), self.heads)

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        turn: Rotation,
        key_turn: Rotation,
        bias: Tensor | None = None,
    ) -> Tensor:
        """q: (B, N, width); k, v: (B, M, key_width); bias: (B, 1, 1, M). Returns (B, N, width)."""
        out = self.attend(self.query(q, turn), self.key(k, key_turn), self.value(v), bias=bias)
        return cast(Tensor, self.out_proj(join_heads(out)))


class MemoryLayer(nn.Module):
    """The frame looks at itself, then at the memory, then a feed-forward layer."""

    def __init__(
        self, width: int, memory_width: int, heads: int, feed_forward: int, dropout: float
    ) -> None:
        super().__init__()
        self.self_attn = RotaryAttention(width, width, heads)
        self.cross_attn_image = RotaryAttention(width, memory_width, heads)
        self.linear1 = nn.Linear(width, feed_forward)
        self.linear2 = nn.Linear(feed_forward, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        memory_position: Tensor,
        turn: Rotation,
        key_turn: Rotation,
        bias: Tensor | None = None,
    ) -> Tensor:
        """x: (B, g*g, width); memory, memory_position: (B, M, memory_width); bias: (B, 1, 1, M)."""
        x = self.look_at_itself(x, turn)
        looked = self.cross_attn_image(
            self.norm2(x), memory + memory_position, memory, turn, key_turn, bias
        )
        return self.feed_forward(x + self.dropout(looked))

    def look_at_itself(self, x: Tensor, turn: Rotation) -> Tensor:
        """The first third of the layer."""
        normed = self.norm1(x)
        return x + cast(Tensor, self.dropout(self.self_attn(normed, normed, normed, turn, turn)))

    def feed_forward(self, x: Tensor) -> Tensor:
        """The last third of the layer."""
        hidden = self.dropout(self.linear1(self.norm3(x)).relu())
        return x + cast(Tensor, self.dropout(self.linear2(hidden)))


class MemoryAttention(nn.Module):
    """Layers in which a frame looks at the memory. `turn` is the grid's Rotation."""

    def __init__(
        self,
        *,
        width: int,
        memory_width: int,
        side: int,
        layers: int,
        heads: int,
        feed_forward: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [MemoryLayer(width, memory_width, heads, feed_forward, dropout) for _ in range(layers)]
        )
        self.norm = nn.LayerNorm(width)
        cos, sin = rotation(width // heads, side)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    @property
    def turn(self) -> Rotation:
        """How the frame's own tokens are turned, (g*g, C)."""
        return Rotation(cast(Tensor, self.cos), cast(Tensor, self.sin))

    def key_turn(self, frames: int, pointers: int) -> Rotation:
        """How the memory's tokens are turned: the frames' like the grid, the pointers' not."""
        cos, sin = self.turn
        rest = cos.new_ones(pointers, cos.shape[1])
        return Rotation(
            torch.cat([cos.repeat(frames, 1), rest]), torch.cat([sin.repeat(frames, 1), 0 * rest])
        )

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        memory_position: Tensor,
        pointers: int,
        bias: Tensor | None = None,
    ) -> Tensor:
        """x: (B, g*g, width) with its position; memory, memory_position: (B, M, memory_width), the
        frames' tokens, then `pointers` of them that have no place; bias: (B, M), added to the
        logits. Returns (B, g*g, width).
        """
        frames = (memory.shape[1] - pointers) // x.shape[1]
        turn, key_turn = self.turn, self.key_turn(frames, pointers)
        wide = None if bias is None else bias[:, None, None, :]
        for layer in self.layers:
            x = layer(x, memory, memory_position, turn, key_turn, wide)
        return cast(Tensor, self.norm(x))


class MaskDownsampler(nn.Module):
    """A mask at the picture's size to the grid: four convolutions of stride 2, one of 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential()
        for level in range(4):
            inside, outside = 4**level, 4 ** (level + 1)
            self.encoder.append(nn.Conv2d(inside, outside, 3, stride=2, padding=1))
            self.encoder.append(LayerNorm2d(outside))
            self.encoder.append(nn.GELU())
        self.encoder.append(nn.Conv2d(256, width, 1))

    def forward(self, mask: Tensor) -> Tensor:
        """(B, 1, S, S) to (B, width, S/16, S/16)."""
        return cast(Tensor, self.encoder(mask))


class FuserBlock(nn.Module):
    """A ConvNeXt block. Source: Liu et al. 2022."""

    def __init__(self, width: int, layer_scale: float) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = LayerNorm2d(width)
        self.pwconv1, self.pwconv2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.act = nn.GELU()
        self.gamma = nn.Parameter(layer_scale * torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, width, g, g). Returns the same shape."""
        mixed: Tensor = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)
        mixed = self.gamma * self.pwconv2(self.act(self.pwconv1(mixed)))
        return x + mixed.permute(0, 3, 1, 2)


class Fuser(nn.Module):
    """Blocks one after the other."""

    def __init__(self, width: int, layers: int, layer_scale: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList([FuserBlock(width, layer_scale) for _ in range(layers)])

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, width, g, g). Returns the same shape."""
        for layer in self.layers:
            x = layer(x)
        return x


class MemoryEncoder(nn.Module):
    """A frame's features and a mask on it, as a small map to remember."""

    def __init__(self, *, width: int, memory_width: int, layers: int, layer_scale: float) -> None:
        super().__init__()
        self.mask_downsampler = MaskDownsampler(width)
        self.pix_feat_proj = nn.Conv2d(width, width, 1)
        self.fuser = Fuser(width, layers, layer_scale)
        self.out_proj = nn.Conv2d(width, memory_width, 1)

    def forward(self, embedding: Tensor, mask: Tensor) -> Tensor:
        """embedding: (B, width, g, g); mask: (B, 1, S, S), scaled. Returns
        (B, memory_width, g, g).
        """
        fused = self.fuser(self.pix_feat_proj(embedding) + self.mask_downsampler(mask))
        return cast(Tensor, self.out_proj(fused))
