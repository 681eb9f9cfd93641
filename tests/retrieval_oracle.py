"""Memory retrieval written plainly, to compare with what is exported."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from edgeperc.offline.nets.memory import MemoryAttention, MemoryLayer


def masked_attention(
    net: MemoryAttention,
    x: Tensor,
    memory: Tensor,
    memory_position: Tensor,
    pointers: int,
    *,
    keep: Tensor,
    newest: slice,
) -> tuple[Tensor, Tensor]:
    """Memory retrieval, written plainly: all tokens are there, the dropped ones have no weight.

    x, memory, memory_position, pointers: as for MemoryAttention, B = 1. keep: (layers, M) bool.
    newest: tokens of the newest frame. Returns (1, g*g, width) and its scores (layers, g*g): how
    much attention each token draws from the frame's own, of all that the newest frame draws.
    """
    turn = net.turn
    key_turn = net.key_turn((memory.shape[1] - pointers) // x.shape[1], pointers)
    scores = []
    for index, each in enumerate(net.layers):
        layer = cast(MemoryLayer, each)
        attn = layer.cross_attn_image
        x = layer.look_at_itself(x, turn)
        q = attn.query(layer.norm2(x), turn)
        k = attn.key(memory + memory_position, key_turn)
        logits = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        scores.append(logits[..., newest].softmax(-1).mean((0, 1, 2)))
        shares = logits.masked_fill(~keep[index], -torch.inf).softmax(-1)
        looked = (shares @ attn.value(memory)).transpose(1, 2).flatten(2)
        x = layer.feed_forward(x + layer.dropout(attn.out_proj(looked)))
    return cast(Tensor, net.norm(x)), torch.stack(scores)
