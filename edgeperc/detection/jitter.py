"""An estimate of box variance for detectors that state none: look again, a little shifted."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from edgeperc.detection.decode import F32
from edgeperc.errors import ModelError
from edgeperc.packet import Frame
from edgeperc.result import Detections, Model

_SAME_IOU = 0.5


class JitterVariance:
    """Estimates the variance of each box edge by detecting again on shifted cuts of the frame.

    The four cuts leave out `margin_px` on two sides each, so each estimate costs four runs of the
    detector; it is for a tracker that asks now and then, not for every frame. It measures how the
    network's answer depends on where the pixel grid lies, which is a part of its error only. Ours.
    """

    def __init__(self, detector: Model, *, margin_px: int = 3) -> None:
        if margin_px < 1:
            raise ValueError(f"margin_px is {margin_px}, must be 1 or more")
        self._detector = detector
        self._margin_px = margin_px

    def __call__(self, frame: Frame, found: Detections) -> Detections:
        """`found`, this frame's detections, with (N, 4) float32 variances of its boxes in px².

        A box that fewer than two cuts show again gets the square of half its width and height:
        nothing is known about its edges but the box itself. Raises ModelError if the frame is no
        larger than the margins.
        """
        edges = [[box] for box in found.boxes.astype(np.float64)]
        for image, offset in self._cuts(frame.image):
            again = self._detector(replace(frame, image=image))
            if not isinstance(again, Detections):
                raise ModelError("only a detector's variance can be estimated")
            boxes = again.boxes + np.tile(np.array(offset, np.float32), 2)
            for k, match in enumerate(_matches(found, boxes, again.class_ids)):
                if match >= 0:
                    edges[k].append(boxes[match].astype(np.float64))
        variance = np.array([_spread(np.array(seen)) for seen in edges], np.float32).reshape(-1, 4)
        variance.flags.writeable = False
        return replace(found, variance=variance)

    def _cuts(self, image: NDArray[np.uint8]) -> list[tuple[NDArray[np.uint8], tuple[int, int]]]:
        margin_px = 2 * self._margin_px
        height_px, width_px = image.shape[0] - margin_px, image.shape[1] - margin_px
        if min(height_px, width_px) < 1:
            raise ModelError(f"a frame of {image.shape[1]} × {image.shape[0]} px is too small")
        return [
            (image[y : y + height_px, x : x + width_px], (x, y))
            for y, x in product((0, margin_px), repeat=2)
        ]


def _spread(seen: NDArray[np.float64]) -> NDArray[np.float64]:
    """seen: (K, 4), the box and where it was seen again. Returns (4,) px²."""
    if len(seen) < 3:
        return np.tile((seen[0, 2:] - seen[0, :2]) / 2, 2) ** 2
    spread: NDArray[np.float64] = seen.var(axis=0, ddof=1)
    return spread


def _matches(found: Detections, boxes: F32, class_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each box found, the box of its class that overlaps it most, or -1."""
    if len(boxes) == 0:
        return np.full(len(found.boxes), -1)
    overlap = box_iou(found.boxes, boxes)
    overlap[found.class_ids[:, None] != class_ids] = 0
    best = overlap.argmax(axis=1)
    return np.where(overlap.max(axis=1) >= _SAME_IOU, best, -1)


def box_iou(a: F32, b: F32) -> F32:
    """Intersection over union of each box of `a` (N, 4) with each of `b` (M, 4): (N, M) float32."""
    corner = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    common = corner.clip(min=0).prod(axis=-1)
    area_a, area_b = ((box[:, 2:] - box[:, :2]).prod(axis=-1) for box in (a, b))
    union = area_a[:, None] + area_b[None] - common
    iou: F32 = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return iou
