"""From the decoder's logits to masks in the picture's pixels, and to the network's own and back."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeperc.prompting.seam import F32

ON, OFF = 10.0, -10.0
"""Logits of the pixels of a mask that comes with a prompt. Source: facebookresearch/sam2."""

_STRIDE_PX = 4


def to_picture(
    logits: F32, width_px: int, height_px: int, zoom: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Where the logit is above 0, as (H, W) bool of the picture. logits: (n, n), 4 network px each.

    zoom: network px in a px of the picture, along x and y. Bilinear between the centres.
    """
    side_px = len(logits) * _STRIDE_PX
    inner_px = np.rint(zoom * (width_px, height_px)).astype(int)  # of the picture in the network's
    if (inner_px < side_px).any():
        logits = enlarge(logits, side_px)[: inner_px[1], : inner_px[0]]
    enlarged: Any = cv2.resize(logits, (width_px, height_px))
    mask: NDArray[np.bool_] = enlarged > 0
    return mask


def enlarge(logits: F32, side_px: int) -> F32:
    """Logits (n, n) as (side_px, side_px), bilinear between the centres."""
    enlarged: Any = cv2.resize(logits, (side_px, side_px))
    return np.asarray(enlarged, np.float32)


def to_network(mask: NDArray[np.bool_], side_px: int, zoom: NDArray[np.float64]) -> F32:
    """A mask (H, W) of the picture as shares 0..1 of the network's pixels (side_px, side_px).

    Shrinking averages, as antialiasing does, so that a thin mask stays.
    """
    height_px, width_px = mask.shape
    inner_px = np.rint(zoom * (width_px, height_px)).astype(int)
    shares = np.zeros((side_px, side_px), np.float32)
    shares[: inner_px[1], : inner_px[0]] = _resized(mask.astype(np.float32), inner_px)
    return shares


def to_logits(shares: F32, side: int) -> F32:
    """Shares (S, S) as logits OFF..ON of a mask of the decoder's (side, side)."""
    logits: F32 = _resized(shares, np.array([side, side])) * (ON - OFF) + OFF
    return logits


def _resized(values: F32, size_px: NDArray[Any]) -> F32:
    shrinks = size_px[0] < values.shape[1] or size_px[1] < values.shape[0]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized: Any = cv2.resize(values, (int(size_px[0]), int(size_px[1])), interpolation=how)
    return np.asarray(resized, np.float32)
