"""How well objects are followed through videos: J, F, their mean, recall and decay, as in DAVIS.

    j, f = j_and_f(truth, answer)                    # (T, H, W) bool each
    tally = VideoTally(); tally.add("dog_1", truth, answer); tally.scores()

J is intersection over union. F is the mean of precision and recall of the boundary, a boundary
pixel being right if one of the other mask is within 0.008 of the picture's diagonal, rounded up.
The protocol is the semi-supervised one of DAVIS 2017: the first frame, which is given, and the
last are not counted, and every object of every sequence weighs the same. Void pixels are left out,
as the published measures do that are given them; the published script makes them background, but
the annotations of this task have none.
Sources: Perazzi et al., CVPR 2016; Pont-Tuset et al., arXiv 1704.00675;
davisvideochallenge/davis2017-evaluation (metrics.py, evaluation.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from edgeperc.errors import DataError

Mask = NDArray[np.bool_]
Masks = NDArray[np.bool_]

TOLERANCE = 0.008
"""Of the diagonal, for boundaries."""
RECALL_ABOVE = 0.5
"""Recall is the share of frames that are better."""


def jaccard(truth: Mask, answer: Mask, void: Mask | None = None) -> float:
    """Intersection over union of (H, W) masks outside of void; 1 if both are empty."""
    if void is not None:
        truth, answer = truth & ~void, answer & ~void
    union = np.count_nonzero(truth | answer)
    return np.count_nonzero(truth & answer) / union if union else 1.0


def boundary_f(
    truth: Mask, answer: Mask, void: Mask | None = None, *, tolerance: float = TOLERANCE
) -> float:
    """F of the boundaries of (H, W) masks; 1 if neither has one, 0 if only one has."""
    if void is not None:
        truth, answer = truth & ~void, answer & ~void
    reach_px = math.ceil(tolerance * math.hypot(*truth.shape))
    window = _window(truth | answer, reach_px)
    ours, theirs = boundary(answer)[window], boundary(truth)[window]
    count_ours, count_theirs = np.count_nonzero(ours), np.count_nonzero(theirs)
    if not count_ours or not count_theirs:
        return 1.0 if count_ours == count_theirs else 0.0
    precision = np.count_nonzero(ours & _near(theirs, reach_px)) / count_ours
    recall = np.count_nonzero(theirs & _near(ours, reach_px)) / count_theirs
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary(mask: Mask) -> Mask:
    """Pixels (H, W) whose right, lower or lower right neighbour differs; the edge is no boundary.

    So lines are one pixel wide and lie half a pixel up and left of the true ones.
    """
    found = np.zeros(mask.shape, np.bool_)
    found[:, :-1] = mask[:, :-1] != mask[:, 1:]
    found[:-1] |= mask[:-1] != mask[1:]
    found[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return found


def by_frame(
    truth: Masks, answer: Masks, void: Masks | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """J and F of each of T frames; masks are (T, H, W). Raises DataError if the shapes differ."""
    if truth.shape != answer.shape:
        raise DataError(f"masks of {answer.shape} for a truth of {truth.shape}")
    unknown = [None] * len(truth) if void is None else list(void)
    triples = list(zip(truth, answer, unknown, strict=True))
    return np.array([jaccard(*t) for t in triples]), np.array([boundary_f(*t) for t in triples])


def j_and_f(truth: Masks, answer: Masks, void: Masks | None = None) -> tuple[float, float]:
    """Mean J and mean F over all frames given; masks are (T, H, W)."""
    j, f = by_frame(truth, answer, void)
    return float(j.mean()), float(f.mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """Of one object: mean over frames, share of them above 0.5, first minus last quarter."""

    mean: float
    recall: float
    decay: float


def course(values: NDArray[np.float64]) -> Course:
    """What becomes of a measure, (T,) with T > 0, along a video.

    Quarters share their end frames, as the published evaluation cuts them.
    """
    cuts = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(int) - 1
    first, last = values[: cuts[1] + 1], values[cuts[3] :]
    return Course(
        mean=float(values.mean()),
        recall=float((values > RECALL_ABOVE).mean()),
        decay=float(first.mean() - last.mean()),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoScores:
    """j_and_f: mean of the means of J and F. j, f: means over objects. objects: each one's own."""

    j_and_f: float
    j: Course
    f: Course
    objects: dict[str, tuple[Course, Course]]
    frames: int

    def table(self) -> Table:
        """One line an object, then the summary, in percent."""
        table = Table(box=None, pad_edge=False)
        table.add_column("object")
        columns = ("J&F", "J", "J recall", "J decay", "F", "F recall", "F decay")
        for column in columns:
            table.add_column(column, justify="right")
        rows = [(name, j, f) for name, (j, f) in self.objects.items()]
        for name, j, f in [*rows, ("[bold]mean[/bold]", self.j, self.f)]:
            values = ((j.mean + f.mean) / 2, j.mean, j.recall, j.decay, f.mean, f.recall, f.decay)
            table.add_row(name, *(f"{100 * value:.2f}" for value in values))
        return table

    def notes(self) -> tuple[str, ...]:
        """What the table does not say."""
        return (f"{self.frames} masks of {len(self.objects)} objects; first and last not counted",)


class VideoTally:
    """Scores of objects, one after the other."""

    def __init__(self) -> None:
        self._objects: dict[str, tuple[Course, Course]] = {}
        self._frames = 0

    def add(self, name: str, truth: Masks, answer: Masks, void: Masks | None = None) -> None:
        """One object's masks (T, H, W) from the first frame to the last, which are not counted.

        Raises DataError if the shapes differ or nothing is left to count.
        """
        if len(truth) < 3:
            raise DataError(f"{name}: {len(truth)} frames, but the first and last do not count")
        inner = slice(1, -1)
        j, f = by_frame(truth[inner], answer[inner], None if void is None else void[inner])
        self._objects[name] = course(j), course(f)
        self._frames += len(j)

    def scores(self) -> VideoScores:
        """Means over all objects added. Raises DataError if there are none."""
        if not self._objects:
            raise DataError("no object to follow in any sequence")
        j, f = zip(*self._objects.values(), strict=True)
        mean_j, mean_f = _mean(j), _mean(f)
        return VideoScores(
            j_and_f=(mean_j.mean + mean_f.mean) / 2,
            j=mean_j,
            f=mean_f,
            objects=dict(self._objects),
            frames=self._frames,
        )


def _mean(courses: Sequence[Course]) -> Course:
    values = np.array([(c.mean, c.recall, c.decay) for c in courses]).mean(axis=0)
    return Course(mean=float(values[0]), recall=float(values[1]), decay=float(values[2]))


def _near(lines: Mask, reach_px: int) -> Mask:
    """Pixels within reach of a line: dilation by a disk, x² + y² ≤ reach²."""
    steps = np.arange(-reach_px, reach_px + 1)
    disk = (steps[:, None] ** 2 + steps**2 <= reach_px**2).astype(np.uint8)
    grown: Any = cv2.dilate(lines.view(np.uint8), disk)
    return np.asarray(grown, np.uint8).view(np.bool_)


def _window(mask: Mask, margin_px: int) -> tuple[slice, slice]:
    """Rows and columns that hold all boundaries of a mask and what is in reach of them."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return slice(0), slice(0)
    return (
        slice(max(int(rows[0]) - margin_px - 1, 0), int(rows[-1]) + margin_px + 2),
        slice(max(int(columns[0]) - margin_px - 1, 0), int(columns[-1]) + margin_px + 2),
    )
