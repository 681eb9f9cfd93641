"""Named points in a network where an observer or a quantizer may stand; attention that has them.

A tap has no parameters and hands its input on, so a checkpoint loads as if it were not there. Its
dotted name in the network is the site's name: `image_encoder.blocks.3.attn.tap_softmax`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Tap(nn.Module):
    """Hands its input on; `work`, where set, may look at it or replace it."""

    def __init__(self) -> None:
        super().__init__()
        self.work: nn.Module | None = None

    def forward(self, values: Tensor) -> Tensor:
        """Values of any shape and type."""
        return values if self.work is None else self.work(values)


class Attention(nn.Module):
    """Softmax attention, written out wherever a tap is in use, else fused.

    The taps see q and k (B, heads, N, channels) as the product takes them, the scaled logits, their
    softmax, v, and the sum. Both ways agree up to rounding.
    """

    NAMES = ("tap_q", "tap_k", "tap_logits", "tap_softmax", "tap_v", "tap_out")

    def __init__(self, *, written_out: bool = False) -> None:
        super().__init__()
        self.tap_q, self.tap_k, self.tap_logits = Tap(), Tap(), Tap()
        self.tap_softmax, self.tap_v, self.tap_out = Tap(), Tap(), Tap()
        self.written_out = written_out

    @property
    def tapped(self) -> bool:
        """Whether the intermediate values are wanted."""
        return self.written_out or any(getattr(self, name).work for name in self.NAMES)

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """q: (B, heads, N, C); k, v: (B, heads, M, C). bias: added to the scaled logits, as
        (B or 1, heads or 1, N or 1, M). Returns (B, heads, N, C).
        """
        scale = q.shape[-1] ** -0.5 if scale is None else scale
        if not self.tapped:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
        logits = (self.tap_q(q) * scale) @ self.tap_k(k).transpose(-2, -1)
        if bias is not None:
            logits = logits + bias
        shares = self.tap_softmax(torch.softmax(self.tap_logits(logits), dim=-1))
        out: Tensor = self.tap_out(shares @ self.tap_v(v))
        return out


@contextmanager
def written_out(attentions: Iterable[Attention]) -> Iterator[None]:
    """These attentions as separate products and softmax for a while, whether tapped or not."""
    before = [(attention, attention.written_out) for attention in attentions]
    for attention, _ in before:
        attention.written_out = True
    try:
        yield
    finally:
        for attention, value in before:
            attention.written_out = value


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, N, heads * C) to (B, heads, N, C). An exported graph's B may vary; N too for one head."""
    if heads == 1:
        return x.unsqueeze(1)
    count, width = int(x.shape[1]), int(x.shape[2])
    return x.reshape(-1, count, heads, width // heads).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """(B, heads, N, C) to (B, N, heads * C); the reverse of `split_heads`."""
    heads, count, channels = (int(size) for size in x.shape[1:])
    if heads == 1:
        return x.squeeze(1)
    return x.transpose(1, 2).reshape(-1, count, heads * channels)
