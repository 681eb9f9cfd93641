"""Memory retrieval: of an older frame, remember only the tokens that drew attention.

A frame that is looked at as the newest one is scored, by each layer of the memory attention for
itself; when it is older, only its strongest tokens take part. Frames with a prompt, the newest
frame and the pointers always do. Needs no training. Source: Zhang et al., Efficient-SAM2, ICLR
2026, arXiv 2602.08224; repository jingjing0419/Efficient-SAM2.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from edgeperc.offline.nets.memory import MemoryLayer, RotaryAttention, Rotation
from edgeperc.offline.nets.sam2 import Sam2

THETA = 10000.0


def kept_tokens(keep_share: float, tokens: int) -> int:
    """How many tokens of an older frame are kept: 204 of 4096 for a share of 0.05."""
    return max(1, int(keep_share * tokens + 1e-6))


def strongest(scores: Tensor, count: int) -> Tensor:
    """Mark the `count` tokens of each layer that drew most attention: (layers, g*g) bool."""
    marks = torch.zeros_like(scores, dtype=torch.bool)
    return marks.scatter(1, scores.topk(count, dim=1).indices, True)


class PrunedAttention(nn.Module):
    """Memory attention that is given the kept tokens alone, each layer its own; for export."""

    def __init__(self, net: Sam2, pointers: int) -> None:
        super().__init__()
        self.net, self.pointers = net.memory_attention, pointers
        self.register_buffer("position", 0.1 * cast(Tensor, net.position), persistent=False)
        channels = net.config.width // net.config.memory_heads
        speed = THETA ** -(torch.arange(0, channels, 4)[: channels // 4].float() / channels)
        self.register_buffer("speed", speed, persistent=False)

    def forward(
        self,
        embedding: Tensor,
        memory: Tensor,
        memory_position: Tensor,
        bias: Tensor,
        older: Tensor,
        older_position: Tensor,
        older_places: Tensor,
        older_bias: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """embedding: (1, D, g, g). memory, memory_position: (1, N, 64): whole frames, the newest
        one last, then the pointers; bias: (1, N). older, older_position: (layers, M, 64), the kept
        tokens of older frames; older_places: (layers, M, 2), their column and row; older_bias:
        (layers, M). Returns the conditioned embedding and the newest frame's scores, (layers, g*g).
        """
        turn = self.net.turn
        count = embedding.shape[-2] * embedding.shape[-1]
        x = (embedding + cast(Tensor, self.position)).flatten(2).transpose(1, 2)
        scores = []
        for index, each in enumerate(self.net.layers):
            layer = cast(MemoryLayer, each)
            attn = layer.cross_attn_image
            x = layer.look_at_itself(x, turn)
            kept = older[index : index + 1]
            keys = [
                *self._keys(attn, memory + memory_position, count),
                attn.key(kept + older_position[index : index + 1], self._turn(older_places[index])),
            ]
            values = [attn.value(memory), attn.value(kept)]
            both = torch.cat([bias, older_bias[index : index + 1]], dim=1)
            looked, score = self._attend(
                attn.query(layer.norm2(x), turn),
                torch.cat(keys, 2),
                torch.cat(values, 2),
                both,
                count,
                kept.shape[1],
            )
            scores.append(score)
            x = layer.feed_forward(x + attn.out_proj(looked.transpose(1, 2).flatten(2)))
        x = self.net.norm(x)
        return x.transpose(1, 2).reshape(embedding.shape), torch.cat(scores)

    def _keys(self, attn: RotaryAttention, k: Tensor, count: int) -> list[Tensor]:
        """Keys of whole frames, turned by their places, and of pointers, which have none."""
        frames = attn.key(k[:, : -self.pointers].reshape(-1, count, k.shape[-1]), self.net.turn)
        still = Rotation(k.new_ones(1, 1), k.new_zeros(1, 1))
        pointers = attn.key(k[:, -self.pointers :], still)
        return [frames.transpose(0, 1).flatten(1, 2)[None], pointers]

    def _turn(self, places: Tensor) -> Rotation:
        speed = cast(Tensor, self.speed)
        angle = torch.cat([places[:, :1] * speed, places[:, 1:] * speed], dim=-1)
        angle = torch.stack([angle, angle], dim=-1).flatten(-2)
        return Rotation(angle.cos(), angle.sin())

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, count: int, kept: int
    ) -> tuple[Tensor, Tensor]:
        """The sum (1, heads, g*g, C), and the newest frame's scores (1, g*g).

        The softmax over the newest frame alone is a part of that over everything, by its own sum.
        """
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + bias[:, None, None, :]
        shares = torch.softmax(logits, dim=-1)
        behind = self.pointers + kept
        newest = shares[..., -behind - count : -behind]
        weight = 1 / (newest.sum(-1, keepdim=True) + 1e-30)
        score = (weight.transpose(-2, -1) @ newest).mean((1, 2)) / count
        return shares @ v, score
