"""Where things that the cameras of a rig see lie on the search's grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeperc.calibration.file import Calibration
from edgeperc.calibration.refine import Refiner
from edgeperc.result import UNKNOWN, Detections, LabelMap
from edgeperc.search.grid import Grid
from edgeperc.search.intake import MOST, Cells
from edgeperc.steering.confirm import Confirmations

Lookup: TypeAlias = tuple[NDArray[np.bool_], NDArray[np.intp], NDArray[np.intp]]

REFINE_GAIN = 0.005
"""Share of a confirmed hint's error by which the calibration moves: a wide pixel is six search
pixels, so that single hints say little."""
ONE_CLASS = 0.98
"""A label map with a larger share of one class comes from a camera gone blind."""


@dataclass(kw_only=True)
class Panorama:
    """Turns results of the wide and of the search camera into cells.

    calibration: for a wide picture of some width and height; raises ConfigError if there is none
    for that size. search_rad: angle that the width of the search picture spans. targets: classes of
    boxes that count, all if it is empty. prior: class of a label map -> how probable a target there
    is. confirmed: refines the calibration, if there is one, by what both cameras see.
    dropped: boxes that were no numbers or too many.
    """

    grid: Grid
    calibration: Callable[[tuple[int, int]], Calibration]
    search_rad: float
    targets: frozenset[str]
    prior: Mapping[str, float]
    confirmed: Confirmations | None = field(default=None, init=False)
    dropped: int = field(default=0, init=False)
    _search_px: int = field(default=0, init=False)
    _lookups: dict[tuple[int, int], Lookup] = field(default_factory=dict, init=False)

    def found(self, result: Detections) -> Cells:
        """Boxes of a search picture, whose gaze is known."""
        assert result.gaze
        width_px, height_px = result.picture_px
        boxes, scores = self._targets(result)
        middles_px = _middles(boxes)
        self._search_px = width_px
        if self.confirmed:
            self.confirmed.found(result, boxes)
        aside = (middles_px - (width_px / 2, height_px / 2)) * (self.search_rad / width_px)
        pan_rad = result.gaze.pan_rad + aside[:, 0]
        tilt_rad = result.gaze.tilt_rad - aside[:, 1]
        return self._cells(np.stack([pan_rad, tilt_rad], axis=1), scores)

    def hinted(self, result: Detections) -> Cells:
        """Boxes of the wide picture."""
        boxes, scores = self._targets(result)
        middles_px = _middles(boxes)
        calibration = self._current(result.picture_px)
        if self.confirmed:
            self.confirmed.hinted(result, middles_px)
        return self._cells(calibration.gaze(middles_px), scores)

    def regions(self, result: LabelMap) -> NDArray[np.uint8] | None:
        """Class of each cell, (H, W) uint8, 255 = unknown; None if the picture shows nothing."""
        height_px, width_px = result.labels.shape
        if np.bincount(result.labels.ravel()).max(initial=0) > ONE_CLASS * result.labels.size:
            return None
        inside, columns, rows = self.prepare((width_px, height_px))
        regions = np.full(self.grid.shape, UNKNOWN, np.uint8)
        regions[inside] = result.labels[rows, columns]
        return regions

    def weights(self, result: LabelMap) -> dict[int, float]:
        """Prior of each class of a label map."""
        return {k: self.prior.get(name, 0.0) for k, name in enumerate(result.classes)}

    def tracks(self, tracks: NDArray[np.float64]) -> NDArray[np.float32]:
        """Tracks (N, 4) with x and y in cells as those with pan and tilt in rad."""
        turned = np.array(tracks, np.float64).reshape(-1, 4)
        turned[:, 0] = (turned[:, 0] - self.grid.width / 2) * self.grid.cell_rad
        turned[:, 1] = (self.grid.height / 2 - turned[:, 1]) * self.grid.cell_rad
        return turned.astype(np.float32)

    def prepare(self, picture_px: tuple[int, int]) -> Lookup:
        """Which cells (H, W) lie in the wide picture, and at which columns and rows.

        Takes up to half a second, once for each size of picture: better before the first slot.
        """
        if picture_px not in self._lookups:
            at = np.floor(self.calibration(picture_px).wide_px(self.grid.gazes()))
            inside = (at >= 0).all(axis=1) & (at < picture_px).all(axis=1)
            columns, rows = at[inside].astype(np.intp).T
            self._lookups[picture_px] = inside.reshape(self.grid.shape), columns, rows
        return self._lookups[picture_px]

    def _current(self, picture_px: tuple[int, int]) -> Calibration | Refiner:
        """The calibration for a size of wide picture, as it was refined since; a guess is not."""
        calibration = self.calibration(picture_px)
        if calibration.errors is None or not self._search_px:
            return calibration
        if self.confirmed is None:
            px_per_rad = self._search_px / self.search_rad
            refiner = Refiner(calibration, px_per_rad=px_per_rad, gain=REFINE_GAIN)
            self.confirmed = Confirmations(refiner, px_per_rad=px_per_rad)
        return self.confirmed.refiner

    def _targets(self, result: Detections) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Boxes and scores of what is searched for; the best of a flood, and no NaN."""
        wanted = [k for k, name in enumerate(result.classes) if name in self.targets]
        named = np.isin(result.class_ids, wanted) | (not self.targets)
        sound = np.isfinite(result.boxes).all(axis=1) & np.isfinite(result.scores)
        best = np.flatnonzero(named & sound)
        if len(best) > MOST:
            best = best[np.argsort(-result.scores[best], kind="stable")[:MOST]]
        self.dropped += int(named.sum()) - len(best)
        return result.boxes[best], result.scores[best]

    def _cells(self, gazes: NDArray[np.float64], scores: NDArray[np.float32]) -> Cells:
        x, y = self.grid.cells(gazes).T
        return np.stack([x, y, scores.astype(np.float64)], axis=1)


def _middles(boxes: NDArray[np.float32]) -> NDArray[np.float64]:
    """Middles of boxes, (N, 2) px."""
    middles: NDArray[np.float64] = boxes.astype(np.float64).reshape(-1, 2, 2).mean(axis=1)
    return middles
