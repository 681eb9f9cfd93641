"""How well boxes fit the truth: average precision, recall, and what a search makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from edgeperc.detection.decode import F32
from edgeperc.detection.jitter import box_iou

MATCH_IOU = 0.5
COUNTED = 0.5
"""Things of which less is visible are neither asked for nor held against a box."""
VISIBLE_BINS = ((0.1, 0.3), (0.3, 0.5), (0.5, 0.8), (0.8, 1.01))


@dataclass(frozen=True, slots=True, kw_only=True)
class Things:
    """The truth in one picture. usable: whether a search may count on finding each, (N,) bool."""

    boxes: F32
    class_ids: NDArray[np.int64]
    visible: NDArray[Any]
    usable: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxScores:
    """Of the pictures of one kind; all shares in 0..1, None where there is nothing to count.

    ap50: by class, area under precision over recall at IoU 0.5, of things more than half visible.
    recall: by class, and recall_by_visible, at the score threshold. pd: share of the usable things
    more than half visible that are found. false_per_look: boxes on nothing. centre_rms_px: of the
    found ones. variance_ratio: mean of squared edge errors over stated variances; 1 is honest.
    """

    pictures: int
    things: dict[str, int]
    ap50: dict[str, float | None]
    recall: dict[str, float | None]
    recall_by_visible: dict[str, float | None]
    pd: float | None
    false_per_look: float
    centre_rms_px: float | None
    variance_ratio: float | None

    @property
    def mean_ap50(self) -> float:
        """Over the classes that occur."""
        known = [value for value in self.ap50.values() if value is not None]
        return float(np.mean(known)) if known else 0.0

    @property
    def headline(self) -> str:
        """A few words for a progress line."""
        return f"AP50 {100 * self.mean_ap50:.1f} %"

    def table(self, title: str) -> Table:
        """One line a class, then the summary."""
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        table.add_column("class")
        for name in ("things", "AP50 %", "recall %"):
            table.add_column(name, justify="right")
        for name, count in self.things.items():
            table.add_row(name, str(count), _percent(self.ap50[name]), _percent(self.recall[name]))
        for name, recall in self.recall_by_visible.items():
            table.add_row(f"visible {name}", "", "", _percent(recall))
        table.add_row("[bold]mean[/bold]", "", f"[bold]{100 * self.mean_ap50:.2f}[/bold]", "")
        table.add_row("Pd of a look", "", "", _percent(self.pd))
        for name, value in (
            ("false boxes a picture", self.false_per_look),
            ("rms error of centres, px", self.centre_rms_px),
            ("squared error / stated variance", self.variance_ratio),
        ):
            table.add_row(name, "", "", "-" if value is None else f"{value:.3f}")
        return table


@dataclass(slots=True)
class BoxTally:
    """Collects pictures and gives their scores. score: the threshold at which recall is stated."""

    classes: Sequence[str]
    score: float
    _pictures: int = 0
    _things: list[NDArray[Any]] = field(default_factory=list)
    _found: list[NDArray[Any]] = field(default_factory=list)
    _offsets: list[NDArray[np.float64]] = field(default_factory=list)
    _ratios: list[NDArray[np.float64]] = field(default_factory=list)

    def add(
        self,
        truth: Things,
        boxes: F32,
        scores: F32,
        class_ids: NDArray[np.int64],
        variance: F32 | None = None,
    ) -> None:
        """One picture: the truth, and what a detector says, in any order."""
        order = np.argsort(-scores, kind="stable")
        boxes, scores, class_ids = boxes[order], scores[order], class_ids[order]
        match = _match(truth, boxes, class_ids)
        sure = scores >= self.score
        seen = np.zeros(len(truth.boxes), bool)
        hits = match[(match >= 0) & sure]
        seen[hits] = True
        self._things.append(np.stack([truth.class_ids, truth.visible, truth.usable, seen], axis=1))
        exact = (match >= 0) & sure
        exact[exact] = truth.visible[hits] >= COUNTED
        hardly_visible = (match >= 0) & (np.append(truth.visible, 1)[match] < COUNTED)
        outcome = np.where(hardly_visible, _NOT_COUNTED, match)
        self._found.append(np.stack([class_ids, scores, outcome], axis=1))
        error = (boxes[exact] - truth.boxes[match[exact]]).astype(np.float64)
        self._offsets.append((error[:, :2] + error[:, 2:]) / 2)
        if variance is not None:
            self._ratios.append(error**2 / np.maximum(variance[order][exact], 1e-9))
        self._pictures += 1

    def scores(self) -> BoxScores:
        """Of all pictures so far."""
        things = np.concatenate(self._things) if self._things else np.zeros((0, 4))
        found = np.concatenate(self._found) if self._found else np.zeros((0, 3))
        class_id, visible, usable, seen = things.T
        asked, half_visible = class_id[:, None] == np.arange(len(self.classes)), visible >= COUNTED
        counts = (asked & half_visible[:, None]).sum(axis=0)
        by_visible = {
            f"{low:.1f} to {min(high, 1):.1f}": _share(seen, (visible >= low) & (visible < high))
            for low, high in VISIBLE_BINS
        }
        offsets = np.concatenate(self._offsets) if self._offsets else np.zeros((0, 2))
        ratios = np.concatenate(self._ratios) if self._ratios else np.zeros((0, 4))
        return BoxScores(
            pictures=self._pictures,
            things={name: int(n) for name, n in zip(self.classes, counts, strict=True)},
            ap50={
                name: _average_precision(found[found[:, 0] == k], int(counts[k]))
                for k, name in enumerate(self.classes)
            },
            recall={
                name: _share(seen, asked[:, k] & half_visible)
                for k, name in enumerate(self.classes)
            },
            recall_by_visible=by_visible,
            pd=_share(seen, (usable > 0) & half_visible),
            false_per_look=float(
                ((found[:, 2] == _NOTHING) & (found[:, 1] >= self.score)).sum()
                / max(self._pictures, 1)
            ),
            centre_rms_px=float(np.sqrt((offsets**2).sum(axis=1).mean())) if len(offsets) else None,
            variance_ratio=float(ratios.mean()) if len(ratios) else None,
        )


_NOTHING, _NOT_COUNTED = -1, -2


def _match(truth: Things, boxes: F32, class_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each box, best first, the thing it finds, _NOTHING, or _NOT_COUNTED.

    A box on a thing that is hardly visible, or a second one on a thing that is not asked for, is
    not counted.
    """
    match = np.full(len(boxes), _NOTHING)
    if len(truth.boxes) == 0:
        return match
    overlap = box_iou(boxes, truth.boxes)
    overlap[class_ids[:, None] != truth.class_ids] = 0
    free = np.ones(len(truth.boxes), bool)
    counted = truth.visible >= COUNTED
    for k, row in enumerate(overlap):
        # Things that count come first: a box that fits one is not spent on a hidden neighbour.
        for wanted in (counted, ~counted):
            best = int(np.argmax(np.where(free & wanted, row, 0)))
            if row[best] >= MATCH_IOU and free[best] and wanted[best]:
                match[k] = best
                free[best] = False
                break
        else:
            if (row[~counted] >= MATCH_IOU / 2).any():
                match[k] = _NOT_COUNTED
    return match


def _average_precision(found: NDArray[Any], things: int) -> float | None:
    """found: rows of class, score and match; those not counted are left out."""
    if things == 0:
        return None
    found = found[found[:, 2] != _NOT_COUNTED]
    found = found[np.argsort(-found[:, 1], kind="stable")]
    right = np.cumsum(found[:, 2] >= 0)
    precision = right / np.arange(1, len(found) + 1)
    recall = right / things
    # Precision at a recall is the best at that recall or beyond.
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0) * precision))


def _share(seen: NDArray[Any], asked: NDArray[Any]) -> float | None:
    return float(seen[asked].mean()) if asked.any() else None


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"
