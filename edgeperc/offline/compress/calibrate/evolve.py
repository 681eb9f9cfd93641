"""Pseudo-positive labels: from random ellipses to what a network itself takes for objects.

    labels = ellipses(3, side_px, rng)                       # (3, S, S)
    labels = evolve(labels, *worth(logits, ious, side_px, least), rng)

A picture that is synthesised has no truth, so the network's own answers become the labels: those it
is sure of replace what was there before, until picture and labels agree. Source of the idea: Li et
al. 2024 (DFQ-SAM, arXiv 2410.01813), whose labels are the classes of a medical segmenter; ours have
no classes, and come from the promptable network itself.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgeperc.offline.drawn_prompts import ABSENT, FOREGROUND, HALF_PX, PADDING

Masks = NDArray[np.bool_]

DELTA = 1.0
"""An answer is stable as far as what it is with logits above DELTA and above -DELTA is the same."""

NEARLY = 0.8
"""An answer counts with this share of the best predicted IoU, and of the best stability. No fixed
ones, since small networks never claim as much as SAM."""

OVERLAP = 0.5
"""Of two regions with a higher IoU the better one counts."""

LEAST_SHARE, MOST_SHARE = 0.006, 0.5
"""Smaller or larger parts of the picture are no objects."""


def ellipses(count: int, side_px: int, rng: np.random.Generator) -> Masks:
    """Random ellipses, (count, S, S): tilted by up to 25 degrees, up to 2.5 times as long as wide.

    The half axis across is 6 to 12 % of the side, the centre at least a fifth from each edge.
    """
    drawn = np.zeros((count, side_px, side_px), np.uint8)
    for each in drawn:
        middle = rng.uniform(0.2, 0.8, 2) * side_px
        half = rng.uniform(0.06, 0.12) * side_px
        axes = (half * rng.uniform(1, 2.5), half)
        tilt = rng.uniform(-25, 25)
        cv2.ellipse(each, _whole(middle), _whole(axes), tilt, 0, 360, 1, cv2.FILLED)
    return drawn > 0


def grid_clicks(count: int, side_px: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """One click in each of count x count cells, at the same random place of each.

    Returns points (count², 3, 2) px and labels (count², 3).
    """
    at = (np.arange(count)[:, None] + rng.random(2)) * side_px / count - HALF_PX
    x, y = np.meshgrid(at[:, 0], at[:, 1])
    points = torch.zeros(count**2, 3, 2)
    points[:, 0] = torch.from_numpy(np.stack([x.ravel(), y.ravel()], 1)).float()
    return points, torch.tensor([FOREGROUND, PADDING, ABSENT]).repeat(count**2, 1)


@torch.no_grad()
def stability(logits: Tensor, delta: float = DELTA) -> Tensor:
    """IoU of what lies above delta and above -delta, (...,) of logits (..., h, h); 0 of nothing."""
    inner = (logits > delta).sum((-2, -1))
    outer = (logits > -delta).sum((-2, -1))
    return inner / outer.clamp(min=1)


def sureness(ious: Tensor, steady: Tensor) -> tuple[float, float]:
    """Predicted IoU and stability that answers need to count; of all answers (N,) there are."""
    return NEARLY * float(ious.max()), NEARLY * float(steady.max())


@torch.no_grad()
def worth(
    logits: Tensor, ious: Tensor, side_px: int, least: tuple[float, float]
) -> tuple[Masks, NDArray[np.float32]]:
    """The answers that a network is sure of, as masks (N, S, S), and their scores (N,).

    logits: (B, h, h); ious: (B,) predicted. least: of predicted IoU and stability. The score is
    the product of both.
    """
    steady = stability(logits)
    sure = (ious >= least[0]) & (steady >= least[1])
    if not bool(sure.any()):
        return np.zeros((0, side_px, side_px), np.bool_), np.zeros(0, np.float32)
    large = F.interpolate(logits[sure][:, None].float(), (side_px, side_px), mode="bilinear")
    return (large[:, 0] > 0).numpy(), (ious * steady)[sure].float().numpy()


def largest_region(mask: Masks) -> Masks:
    """The largest connected part of a mask (H, W), corners connect; nothing of nothing."""
    counted: Any = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    count, numbers, stats = counted[:3]
    if count < 2:
        return np.zeros_like(mask)
    return np.asarray(numbers == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()))


def evolve(
    current: Masks, found: Masks, scores: NDArray[np.float32], rng: np.random.Generator
) -> Masks:
    """The next labels of one picture, as many as now: (K, S, S).

    found: (N, S, S) masks, scores: (N,). Their largest regions become labels, the best first,
    unless too small, too large or too like a better one. If there are too few, current labels that
    are unlike them stay, and new ellipses fill up.
    """
    best = [largest_region(found[index]) for index in np.argsort(-scores, kind="stable")]
    kept: list[Masks] = []
    for region in [*best, *current]:
        if len(kept) < len(current) and _is_object(region) and not _like_any(region, kept):
            kept.append(region)
    missing = len(current) - len(kept)
    return np.stack([*kept, *ellipses(missing, current.shape[-1], rng)])


def _is_object(region: Masks) -> bool:
    return bool(LEAST_SHARE <= region.mean() <= MOST_SHARE)


def _like_any(region: Masks, others: list[Masks]) -> bool:
    return any((region & o).sum() > OVERLAP * (region | o).sum() for o in others)


def _whole(values: Any) -> tuple[int, int]:
    return round(float(values[0])), round(float(values[1]))
