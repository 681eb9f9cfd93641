"""How much the patches of a picture differ for a network: entropy of their likeness.

    with PatchTaps(net.image_encoder, picture_px=256) as taps:
        net.encode(pictures)
    diversity = taps.entropy(len(pictures), generator)             # (B,)

In a photograph some patches are alike and others are not, so the likeness of pairs is spread
widely; in noise all pairs are about equally alike. The likeness is the cosine between what two
patches get out of an attention. Source: Li et al. 2022 (PSAQ-ViT, arXiv 2203.02250), equations 4
to 7; repository zkkli/PSAQ-ViT (Apache-2.0). Ours: the pairs of a patch with itself are left out,
the range is each picture's own, and of many patches some are drawn.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeperc.errors import ModelError
from edgeperc.offline.nets.taps import Attention

BANDWIDTH, POINTS, FLOOR = 0.01, 10, 1e-4
"""Of the density: deviation of the kernel, where it is evaluated, what is added to it."""

PATCHES = 128
"""Drawn where an attention has more of them: 8128 pairs of a picture, whatever its size."""

STRIDES = (4, 8, 16, 32)
"""Pixels between the patches of the networks here."""


def patch_entropy(patches: Tensor, *, bandwidth: float = BANDWIDTH, points: int = POINTS) -> Tensor:
    """Differential entropy of the cosine between two patches, (B,).

    patches: (B, N, C), N at least 2. Gaussian density of the N(N-1)/2 cosines at `points` places
    from the smallest to the largest, integrated by trapezoids. Differentiable in the patches.
    """
    count = patches.shape[1]
    unit = F.normalize(patches, dim=-1)
    one, other = torch.triu_indices(count, count, 1)
    likeness = (unit @ unit.transpose(1, 2))[:, one, other]
    with torch.no_grad():
        low, high = likeness.min(1, keepdim=True).values, likeness.max(1, keepdim=True).values
        places = low + (high - low) * torch.linspace(0, 1, points)
    away = (likeness[:, None] - places[..., None]) / bandwidth
    kernel = torch.exp(-0.5 * away.square()).mean(-1)
    density = kernel / (bandwidth * math.sqrt(2 * math.pi)) + FLOOR
    return -torch.trapezoid(density * density.log(), places, dim=1)


def patches_of(out: Tensor, pictures: int, picture_px: int) -> Tensor:
    """What an attention gave each patch of whole pictures, (B, N, C), mean over the heads.

    out: (rows, heads, n, C) of `tap_out`, the rows being windows of `pictures` pictures in the
    order of `partition`, or the pictures themselves; what lies in windows beyond the edge is left
    out. Raises ModelError if the rows are no square of windows.
    """
    mean = out.mean(1)
    rows, tokens, channels = mean.shape
    across, window = math.isqrt(rows // pictures), math.isqrt(tokens)
    if rows != pictures * across**2 or tokens != window**2:
        raise ModelError(
            f"{rows} windows of {tokens} tokens are no square part of {pictures} pictures",
            hint="the patch entropy is of encoders with square windows",
        )
    padded = across * window
    whole = mean.reshape(pictures, across, across, window, window, channels).transpose(2, 3)
    whole = whole.reshape(pictures, padded, padded, channels)
    side = max((picture_px // s for s in STRIDES if picture_px // s <= padded), default=padded)
    return whole[:, :side, :side].flatten(1, 2)


class PatchTaps:
    """Remembers what every attention of a picture encoder gave out; a context.

    The taps' own work is put back at the end. Raises ModelError for an encoder without attentions.
    """

    def __init__(self, encoder: nn.Module, *, picture_px: int) -> None:
        self._taps = [m.tap_out for m in encoder.modules() if isinstance(m, Attention)]
        if not self._taps:
            raise ModelError(
                "this network has no attention in its picture encoder, so no patch entropy",
                hint='calibrate with source "real" or "noise"',
            )
        self._picture_px = picture_px
        self._before: list[nn.Module | None] = []
        self._recorders = [_Recorder() for _ in self._taps]

    def __enter__(self) -> PatchTaps:
        self._before = [tap.work for tap in self._taps]
        for tap, recorder in zip(self._taps, self._recorders, strict=True):
            tap.work = recorder
        return self

    def __exit__(self, *_: Any) -> None:
        for tap, work in zip(self._taps, self._before, strict=True):
            tap.work = work

    def entropy(
        self, pictures: int, generator: torch.Generator, *, patches: int = PATCHES
    ) -> Tensor:
        """Of the last `pictures` that were encoded: mean over the attentions, (B,).

        patches: how many of them count in each attention, drawn anew for each.
        """
        total = torch.zeros(pictures)
        for recorder in self._recorders:
            seen = patches_of(recorder.seen, pictures, self._picture_px)
            drawn = torch.randperm(seen.shape[1], generator=generator)[:patches]
            total = total + patch_entropy(seen[:, drawn].float())
        return total / len(self._recorders)


class _Recorder(nn.Module):
    """What stands in a tap and remembers what passed."""

    seen: Tensor

    def forward(self, values: Tensor) -> Tensor:
        """Hand on."""
        self.seen = values
        return values
