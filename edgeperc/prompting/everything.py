"""Masks of everything in a picture: a grid of clicks, and what of the answers is worth keeping.

Source: Kirillov et al. 2023, section 5 and appendix B; without their crops and small-hole filling.
Stability and overlap are judged on the decoder's own small masks, so that only what is kept is
enlarged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeperc import masks
from edgeperc.masks import Rle
from edgeperc.prompting.choose import stability
from edgeperc.prompting.seam import F32, Decoded

EVERY = 64
"""After so many clicks, answers that say the same are merged, so that few are held at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Which answers are kept. score: predicted IoU at least. stability: at least, between logits
    of +delta and -delta. overlap: of two whose boxes overlap more, by IoU, the better one stays.
    area_px: fewer pixels of the picture are nothing.
    """

    score: float = 0.8
    stability: float = 0.92
    delta: float = 1.0
    overlap: float = 0.7
    area_px: int = 100


USUAL = Rules()


@dataclass(frozen=True, slots=True, kw_only=True)
class Everything:
    """What is in a picture, best first. boxes: (N, 4) float32 xyxy px. scores: (N,) float32
    predicted IoU. stability: (N,) float32.
    """

    masks: tuple[Rle, ...]
    boxes: F32
    scores: F32
    stability: F32


@dataclass(slots=True)
class _Kept:
    logits: F32
    box: F32
    score: float
    stability: float


def everything(
    ask: Callable[[F32], Decoded],
    to_picture: Callable[[F32], NDArray[np.bool_]],
    picture_px: tuple[int, int],
    *,
    points_per_side: int,
    rules: Rules,
    on_progress: Callable[[int, int], None] | None = None,
) -> Everything:
    """ask: of a point (1, 2) in px of the picture. to_picture: logits (4g, 4g) to (H, W) bool."""
    clicks = grid(points_per_side, picture_px)
    kept: list[_Kept] = []
    for done, click in enumerate(clicks, start=1):
        kept += _worth(ask(click[None]), rules)
        if done % EVERY == 0 or done == len(clicks):
            kept = _distinct(kept, rules.overlap)
        if on_progress:
            on_progress(done, len(clicks))
    found = [(each, masks.encode(to_picture(each.logits))) for each in kept]
    found = [(each, rle) for each, rle in found if masks.area(rle) >= max(rules.area_px, 1)]
    return Everything(
        masks=tuple(rle for _, rle in found),
        boxes=np.array([masks.box(rle) for _, rle in found], np.float32).reshape(-1, 4),
        scores=np.array([each.score for each, _ in found], np.float32),
        stability=np.array([each.stability for each, _ in found], np.float32),
    )


def grid(points_per_side: int, picture_px: tuple[int, int]) -> F32:
    """Centres of points_per_side² cells of the picture, (N, 2) x, y in px, row by row."""
    middle = (np.arange(points_per_side) + 0.5) / points_per_side
    x, y = np.meshgrid(middle * picture_px[0], middle * picture_px[1])
    return np.stack((x.ravel(), y.ravel()), axis=1).astype(np.float32)


def _worth(decoded: Decoded, rules: Rules) -> list[_Kept]:
    """Of the three masks of a click, those that are sure and stable."""
    found = []
    for index in (1, 2, 3):
        score = float(decoded.ious[index])
        if score < rules.score:
            continue
        logits = decoded.masks[index]
        steady = stability(logits, rules.delta)
        box = _box(logits > 0)
        if steady >= rules.stability and box is not None:
            found.append(_Kept(logits.copy(), box, score, steady))
    return found


def _box(mask: NDArray[np.bool_]) -> F32 | None:
    """Around the mask, (4,) xyxy in its own px; None if it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def _distinct(kept: list[_Kept], overlap: float) -> list[_Kept]:
    """Of those whose boxes overlap, the one with the best score; best first."""
    distinct: list[_Kept] = []
    for each in sorted(kept, key=lambda each: -each.score):
        boxes = np.array([other.box for other in distinct], np.float32).reshape(-1, 4)
        if not (_overlaps(each.box, boxes) > overlap).any():
            distinct.append(each)
    return distinct


def _overlaps(box: F32, others: F32) -> F32:
    """IoU of a box (4,) with others (N, 4), (N,)."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = (high - low).clip(0).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1)
    overlaps: F32 = shared / (areas + (box[2:] - box[:2]).prod() - shared)
    return overlaps
