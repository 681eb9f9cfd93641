"""Masks for prompts: the two-way transformer and the mask decoders of SAM and SAM 2.

Tokens (those the network answers with, then the prompts) and the picture look at each other twice;
then each mask token becomes a small filter that is laid over the enlarged picture. Names of
parameters are those of Meta's files. Sources: Kirillov et al. 2023 (SAM), appendix A; Ravi et al.
2024 (SAM 2), appendix D; repositories facebookresearch/segment-anything and sam2.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from edgeperc.offline.nets.prompt_encoder import LayerNorm2d
from edgeperc.offline.nets.taps import Attention, join_heads, split_heads

MASKS = 4
"""One mask for a prompt that leaves no doubt, three for one that does."""


class Mlp(nn.Module):
    """Linear layers with an activation between them."""

    def __init__(
        self,
        widths: tuple[int, ...],
        activation: type[nn.Module] = nn.ReLU,
        *,
        sigmoid: bool = False,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(*pair) for pair in pairwise(widths)])
        self.act = activation()
        self.sigmoid = sigmoid

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., widths[0]). Returns (..., widths[-1])."""
        *first, last = self.layers
        for layer in first:
            x = self.act(layer(x))
        x = last(x)
        return x.sigmoid() if self.sigmoid else x


class TwoLinears(nn.Module):
    """SAM's feed-forward layer, which differs from SAM 2's by its names."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.lin1, self.lin2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., width). Returns the same shape."""
        out: Tensor = self.lin2(self.lin1(x).relu())
        return out


class DecoderAttention(Attention):
    """Attention between tokens and picture; `inner` channels may be fewer than `width`."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = nn.Linear(width, inner), nn.Linear(width, inner)
        self.v_proj, self.out_proj = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        """q: (B, N, width); k, v: (B, M, width); bias: (B, 1, 1, M). Returns (B, N, width)."""
        parts = (self.q_proj(q), self.k_proj(k), self.v_proj(v))
        heads = (split_heads(part, self.heads) for part in parts)
        return cast(Tensor, self.out_proj(join_heads(self.attend(*heads, bias=bias))))


class TwoWayBlock(nn.Module):
    """Tokens among themselves, tokens to picture, feed-forward, picture to tokens."""

    def __init__(
        self, width: int, heads: int, feed_forward: int, *, first: bool, version: Literal[1, 2]
    ) -> None:
        super().__init__()
        self.first = first
        self.self_attn = DecoderAttention(width, heads, width)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn_token_to_image = DecoderAttention(width, heads, width // 2)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = (
            TwoLinears(width, feed_forward) if version == 1 else Mlp((width, feed_forward, width))
        )
        self.norm3 = nn.LayerNorm(width)
        self.norm4 = nn.LayerNorm(width)
        self.cross_attn_image_to_token = DecoderAttention(width, heads, width // 2)

    def forward(
        self,
        tokens: Tensor,
        picture: Tensor,
        token_places: Tensor,
        picture_places: Tensor,
        bias: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """tokens: (B, T, width); picture: (B, g*g, width); the places are added to queries and
        keys. bias: (B, 1, 1, T), on tokens as keys. Returns tokens and picture.
        """
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens, bias)
        else:
            placed = tokens + token_places
            tokens = tokens + self.self_attn(placed, placed, tokens, bias)
        tokens = self.norm1(tokens)
        looked = self.cross_attn_token_to_image(
            tokens + token_places, picture + picture_places, picture
        )
        tokens = self.norm2(tokens + looked)
        tokens = self.norm3(tokens + self.mlp(tokens))
        told = self.cross_attn_image_to_token(
            picture + picture_places, tokens + token_places, tokens, bias
        )
        return tokens, self.norm4(picture + told)


class TwoWayTransformer(nn.Module):
    """Blocks of two-way attention, and a last look of the tokens at the picture."""

    def __init__(
        self, width: int, heads: int, feed_forward: int, version: Literal[1, 2], depth: int = 2
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                TwoWayBlock(width, heads, feed_forward, first=index == 0, version=version)
                for index in range(depth)
            ]
        )
        self.final_attn_token_to_image = DecoderAttention(width, heads, width // 2)
        self.norm_final_attn = nn.LayerNorm(width)

    def forward(
        self, picture: Tensor, picture_places: Tensor, prompts: Tensor, bias: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """picture: (B, g*g, width); picture_places: (1, g*g, width); prompts: (B, T, width); bias:
        (B, 1, 1, T) or None. Returns tokens (B, T, width) and picture (B, g*g, width).
        """
        tokens = prompts
        for layer in self.layers:
            tokens, picture = layer(tokens, picture, prompts, picture_places, bias)
        looked = self.final_attn_token_to_image(tokens + prompts, picture + picture_places, picture)
        return self.norm_final_attn(tokens + looked), picture


class Masks(NamedTuple):
    """What the decoder answers. masks: (B, 4, 4g, 4g) logits; ious: (B, 4) predicted; tokens:
    (B, 4, width) of the masks; object_logits: (B, 1), None for SAM.
    """

    masks: Tensor
    ious: Tensor
    tokens: Tensor
    object_logits: Tensor | None


class MaskDecoder(nn.Module):
    """The decoder of SAM (version 1) or of SAM 2 and 2.1 (version 2).

    SAM 2's has a token that tells whether the object is there, takes finer features in as it
    enlarges the picture, and predicts an IoU between 0 and 1. refine: two convolutions over the
    enlarged picture, which Meta's do not have.
    """

    def __init__(
        self,
        *,
        width: int,
        heads: int = 8,
        feed_forward: int = 2048,
        iou_hidden: int = 256,
        version: Literal[1, 2],
        refine: bool = False,
    ) -> None:
        super().__init__()
        self.version = version
        if refine:
            self.refine = nn.Sequential(
                nn.Conv2d(width // 8, width // 4, 3, padding=1),
                nn.GELU(),
                nn.Conv2d(width // 4, width // 8, 3, padding=1),
            )
        self.transformer = TwoWayTransformer(width, heads, feed_forward, version)
        self.iou_token = nn.Embedding(1, width)
        self.mask_tokens = nn.Embedding(MASKS, width)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(width, width // 4, 2, stride=2),
            LayerNorm2d(width // 4),
            nn.GELU(),
            nn.ConvTranspose2d(width // 4, width // 8, 2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            [Mlp((width, width, width, width // 8)) for _ in range(MASKS)]
        )
        self.iou_prediction_head = Mlp((width, iou_hidden, iou_hidden, MASKS), sigmoid=version == 2)
        if version == 2:
            self.obj_score_token = nn.Embedding(1, width)
            self.conv_s0 = nn.Conv2d(width, width // 8, 1)
            self.conv_s1 = nn.Conv2d(width, width // 4, 1)
            self.pred_obj_score_head = Mlp((width, width, width, 1))

    def forward(
        self,
        embedding: Tensor,
        places: Tensor,
        prompts: Tensor,
        prompt_bias: Tensor,
        high: tuple[Tensor, Tensor] | None = None,
    ) -> Masks:
        """embedding: (B, width, g, g) with the dense prompt added; places: (1, width, g, g);
        prompts: (B, P, width); prompt_bias: (B, P), added to the logits of the prompts as keys;
        high: (B, width/8, 4g, 4g) and (B, width/4, 2g, 2g), for version 2.
        """
        own = self._own_tokens()
        batch, count = int(prompts.shape[0]), own.shape[0]
        tokens = torch.cat([own[None].expand(batch, -1, -1), prompts], dim=1)
        bias = torch.cat([prompt_bias.new_zeros(batch, count), prompt_bias], dim=1)
        tokens, seen = self.transformer(
            embedding.flatten(2).transpose(1, 2),
            places.flatten(2).transpose(1, 2),
            tokens,
            bias[:, None, None, :],
        )
        tokens = tokens[:, :count]
        mask_tokens = tokens[:, -MASKS:]
        large = self._enlarge(_as_picture(seen), high)
        if hasattr(self, "refine"):
            large = large + self.refine(large)
        return Masks(
            self._masks(mask_tokens, large),
            self.iou_prediction_head(tokens[:, -MASKS - 1]),
            mask_tokens,
            self.pred_obj_score_head(tokens[:, 0]) if self.version == 2 else None,
        )

    def _own_tokens(self) -> Tensor:
        tokens = [self.iou_token.weight, self.mask_tokens.weight]
        if self.version == 2:
            tokens.insert(0, self.obj_score_token.weight)
        return torch.cat(tokens)

    def _enlarge(self, picture: Tensor, high: tuple[Tensor, Tensor] | None) -> Tensor:
        """(B, width, g, g) to (B, width/8, 4g, 4g)."""
        first, norm, act, second, last = self.output_upscaling
        if high is None:
            out: Tensor = self.output_upscaling(picture)
        else:
            out = last(second(act(norm(first(picture) + high[1]))) + high[0])
        return out

    def _masks(self, tokens: Tensor, large: Tensor) -> Tensor:
        heads = self.output_hypernetworks_mlps
        filters = torch.stack([head(tokens[:, index]) for index, head in enumerate(heads)], dim=1)
        side = int(large.shape[-1])
        return (filters @ large.flatten(2)).reshape(-1, MASKS, side, side)


def _as_picture(tokens: Tensor) -> Tensor:
    """(B, g*g, width) to (B, width, g, g)."""
    places, width = int(tokens.shape[1]), int(tokens.shape[2])
    side = math.isqrt(places)
    return tokens.transpose(1, 2).reshape(-1, width, side, side)
