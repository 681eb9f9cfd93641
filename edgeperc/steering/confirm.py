"""Pairs of what both cameras saw at the same moment: what a calibration is refined by."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from edgeperc.calibration.refine import Refiner
from edgeperc.packet import Gaze
from edgeperc.result import Detections

SAME_NS = 25_000_000
"""Looks and wide pictures farther apart in time show a moving thing in two places."""
KEPT_NS = 500_000_000
EDGE_PX = 3.0
FINDS = 8
"""At most so many things of a look are remembered."""
NEAR_PX = 56.0
"""Search-camera pixels within which a box of the wide picture is that of a look's find."""


class Confirmations:
    """Remembers the finds of late until a wide picture of the same moment has been answered for."""

    def __init__(self, refiner: Refiner, *, px_per_rad: float) -> None:
        self.refiner = refiner
        self._px_per_rad = px_per_rad
        self._finds: deque[tuple[int, Gaze, tuple[float, float]]] = deque()

    def found(self, result: Detections, boxes: NDArray[np.float32]) -> None:
        """A look found boxes, (N, 4) px. One that the picture's edge cuts has another middle."""
        assert result.gaze
        size_px = np.array(result.picture_px)
        now_ns = result.stamp.end_ns
        whole = (boxes[:, :2] > EDGE_PX).all(axis=1) & (boxes[:, 2:] < size_px - EDGE_PX).all(
            axis=1
        )
        middles_px = ((boxes[whole, :2] + boxes[whole, 2:]) / 2)[:FINDS]
        for x, y in (middles_px - size_px / 2).tolist():
            self._finds.append((now_ns, result.gaze, (x, y)))
        while self._finds and self._finds[0][0] < now_ns - KEPT_NS:
            self._finds.popleft()

    def hinted(self, result: Detections, middles_px: NDArray[np.float64]) -> None:
        """A wide picture has boxes with these middles, (N, 2) px: refine by those found in a look.

        A find with two boxes near it tells nothing, nor does one of another moment.
        """
        if not len(middles_px):
            return
        gazes = self.refiner.gaze(middles_px)
        for at_ns, gaze, offset_px in self._finds:
            if abs(at_ns - result.stamp.end_ns) > SAME_NS:
                continue
            aside = np.array([offset_px[0], -offset_px[1]]) / self._px_per_rad
            apart = gazes - (gaze.pan_rad, gaze.tilt_rad) - aside
            near = np.flatnonzero(np.hypot(*apart.T) * self._px_per_rad <= NEAR_PX)
            if len(near) == 1:
                x, y = middles_px[near[0]].tolist()
                self.refiner.observe((x, y), gaze, offset_px)
