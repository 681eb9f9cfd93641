"""Windows of a picture's grid: cutting, and which ones are worth a look.

What the decoder said of the frame before decides: windows that a mask touches, and, where the
decoder is not sure or sees no mask, those that its attention is on. Source: Zhang et al.,
Efficient-SAM2, ICLR 2026, section 3.2; repository jingjing0419/Efficient-SAM2.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeperc.prompting.seam import F32, Decoded

THETA = 0.7
"""Share of the attention that the chosen windows are to hold."""

SURE_LOGIT = 5.0
"""Below, an object may be elsewhere than its mask says."""

_KERNEL = np.ones((5, 5), np.uint8)


def partition(x: F32, window: int) -> F32:
    """Cut (g, g, C) into (windows, w, w, C), row by row; zeros beyond the edge."""
    grid, channels = len(x), x.shape[-1]
    across = -(-grid // window)
    rest = across * window - grid
    if rest:
        x = np.pad(x, ((0, rest), (0, rest), (0, 0)))
    cut = x.reshape(across, window, across, window, channels).swapaxes(1, 2)
    return np.ascontiguousarray(cut).reshape(-1, window, window, channels)


def merge(cut: F32, grid: int) -> F32:
    """Undo `partition`: (g, g, C)."""
    window, channels = cut.shape[1], cut.shape[-1]
    across = -(-grid // window)
    x = cut.reshape(across, across, window, window, channels).swapaxes(1, 2)
    whole = x.reshape(across * window, across * window, channels)
    return np.ascontiguousarray(whole[:grid, :grid])


def choose(last: Sequence[Decoded], grid: int, window: int) -> NDArray[np.bool_]:
    """Which windows of the next frame to look at: (windows,) bool, none if nothing is known.

    last: what the decoder said of each object on this frame.
    """
    chosen = np.zeros((-(-grid // window)) ** 2, np.bool_)
    for decoded in last:
        chosen |= touched(decoded.masks[1:].max(axis=0), window)
    if chosen.any() and all(decoded.object_logit >= SURE_LOGIT for decoded in last):
        return chosen
    for decoded in last:
        if decoded.saliency is not None:
            chosen |= salient(decoded.saliency, window)
    return chosen


def touched(logits: F32, window: int) -> NDArray[np.bool_]:
    """Windows that a mask (4g, 4g) reaches when it is grown by two pixels: (windows,) bool."""
    grown: F32 = np.asarray(cv2.dilate((logits > 0).astype(np.float32), _KERNEL), np.float32)
    return np.asarray(partition(grown[..., None], 4 * window).any(axis=(1, 2, 3)))


def salient(saliency: F32, window: int, theta: float = THETA) -> NDArray[np.bool_]:
    """The fewest windows that hold `theta` of the attention (g, g): (windows,) bool."""
    shares = partition(saliency[..., None], window).sum(axis=(1, 2, 3), dtype=np.float64)
    order = np.argsort(-shares, kind="stable")
    held = np.cumsum(shares[order])
    count = int(np.searchsorted(held, theta * held[-1])) + 1
    chosen = np.zeros(len(shares), np.bool_)
    chosen[order[:count]] = True
    return chosen
