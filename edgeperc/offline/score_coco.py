"""Average precision of boxes or masks as COCO has it: over IoU .50 to .95 and 101 recalls.

    tally = PrecisionTally(classes)
    tally.add(truth_of_one_picture, found_in_it)     # Things each
    tally.scores()

Source: cocodataset.org, detection evaluation; cocoapi's cocoeval.py. An object counts once, to the
best box that overlaps it enough; crowds and objects of another size than asked for neither count
for nor against. At most MOST of a class are counted a picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from edgeperc.masks import Rle, area, decode

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MOST = 100
SIZES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2)}
SIZES["large"] = (96.0**2, 1e10)
"""Areas, px²."""

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Things:
    """Truth or finds in one picture. boxes: (N, 4) xyxy px. class_ids: (N,). masks: N, or None.

    scores: (N,), of finds. areas: (N,) px² and crowd: (N,) bool, of the truth.
    """

    boxes: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    masks: tuple[Rle, ...] | None = None
    scores: F64 | None = None
    areas: F64 | None = None
    crowd: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionScores:
    """All 0..1, None where there is no such object. ap: mean over THRESHOLDS and classes."""

    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    recall: float | None
    by_class: dict[str, float | None]
    pictures: int
    objects: int

    def rows(self) -> dict[str, float | None]:
        """The figures by name, for a table."""
        sizes = {"small": self.ap_small, "medium": self.ap_medium, "large": self.ap_large}
        return {
            "AP": self.ap,
            "AP50": self.ap50,
            "AP75": self.ap75,
            **{f"AP {size}": value for size, value in sizes.items()},
            f"recall of {MOST}": self.recall,
            **{f"AP {name}": value for name, value in self.by_class.items()},
        }


def precision_table(columns: dict[str, PrecisionScores]) -> Table:
    """One column each for boxes, masks, …, in percent."""
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in columns:
        table.add_column(f"{name} %", justify="right")
    rows = {name: scores.rows() for name, scores in columns.items()}
    for row in next(iter(rows.values())):
        values = [rows[name][row] for name in columns]
        table.add_row(row, *("-" if v is None else f"{100 * v:.2f}" for v in values))
    return table


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One class in one picture. iou: (finds, objects), finds best first."""

    iou: F64
    scores: F64
    found_areas: F64
    areas: F64
    crowd: NDArray[np.bool_]


class PrecisionTally:
    """Overlaps of finds with the truth, one picture after the other."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self._classes = classes
        self._parts: list[list[_Part]] = [[] for _ in classes]
        self._pictures = self._objects = 0

    def add(self, truth: Things, found: Things) -> None:
        """One picture. Overlap is of masks if both have them, else of boxes."""
        self._pictures += 1
        self._objects += len(truth.boxes)
        for k, parts in enumerate(self._parts):
            ours, theirs = (
                np.flatnonzero(found.class_ids == k),
                np.flatnonzero(truth.class_ids == k),
            )
            if len(ours) or len(theirs):
                parts.append(_part(truth, found, theirs, ours))

    def scores(self) -> PrecisionScores:
        """Means over the classes that occur."""
        curves = {
            size: [_curves(parts, limits) for parts in self._parts]
            for size, limits in SIZES.items()
        }
        every = curves["all"]
        return PrecisionScores(
            ap=_mean([c and c[0].mean() for c in every]),
            ap50=_mean([c and c[0][0].mean() for c in every]),
            ap75=_mean([c and c[0][5].mean() for c in every]),
            ap_small=_mean([c and c[0].mean() for c in curves["small"]]),
            ap_medium=_mean([c and c[0].mean() for c in curves["medium"]]),
            ap_large=_mean([c and c[0].mean() for c in curves["large"]]),
            recall=_mean([c and c[1].mean() for c in every]),
            by_class={
                name: _mean([c and c[0].mean()])
                for name, c in zip(self._classes, every, strict=True)
            },
            pictures=self._pictures,
            objects=self._objects,
        )


def _part(truth: Things, found: Things, theirs: NDArray[np.intp], ours: NDArray[np.intp]) -> _Part:
    assert found.scores is not None
    ours = ours[np.argsort(-found.scores[ours], kind="stable")][:MOST]
    crowd = np.zeros(len(theirs), np.bool_) if truth.crowd is None else truth.crowd[theirs]
    boxes, true_boxes = found.boxes[ours].astype(np.float64), truth.boxes[theirs].astype(np.float64)
    if found.masks is not None and truth.masks is not None:
        masks = [found.masks[i] for i in ours]
        overlap, areas, true_areas = _of_masks(masks, [truth.masks[i] for i in theirs])
    else:
        overlap, areas, true_areas = _of_boxes(boxes, true_boxes)
    either = np.where(crowd, areas[:, None], areas[:, None] + true_areas - overlap)
    return _Part(
        iou=np.divide(overlap, either, out=np.zeros_like(overlap), where=either > 0),
        scores=found.scores[ours],
        found_areas=areas,
        areas=true_areas if truth.areas is None else truth.areas[theirs],
        crowd=crowd,
    )


def _of_boxes(boxes: F64, true_boxes: F64) -> tuple[F64, F64, F64]:
    """Shared areas (N, M), areas (N,) and (M,)."""
    low = np.maximum(boxes[:, None, :2], true_boxes[:, :2])
    high = np.minimum(boxes[:, None, 2:], true_boxes[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    return shared, *(np.prod(b[:, 2:] - b[:, :2], axis=1) for b in (boxes, true_boxes))


def _of_masks(masks: list[Rle], true_masks: list[Rle]) -> tuple[F64, F64, F64]:
    """The same in pixels."""
    areas, true_areas = ([float(area(m)) for m in each] for each in (masks, true_masks))
    shared = np.zeros((len(masks), len(true_masks)))
    if shared.size:
        flat = [np.stack([decode(m).ravel() for m in each]) for each in (masks, true_masks)]
        shared = (flat[0].astype(np.float32) @ flat[1].T.astype(np.float32)).astype(np.float64)
    return shared, np.array(areas), np.array(true_areas)


def _curves(parts: list[_Part], limits: tuple[float, float]) -> tuple[F64, F64] | None:
    """Precision (thresholds, recalls) and last recall (thresholds,); None without an object."""
    matched = [_match(part, limits) for part in parts]
    wanted = sum(count for *_, count in matched)
    if not wanted:
        return None
    scores = np.concatenate([part.scores for part in parts])
    order = np.argsort(-scores, kind="stable")
    right, counts = (np.concatenate([m[k] for m in matched], axis=1)[:, order] for k in (0, 1))
    hits, misses = np.cumsum(right & counts, axis=1), np.cumsum(~right & counts, axis=1)
    precision = hits / np.maximum(hits + misses, 1)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = hits / wanted
    curves = np.zeros((len(THRESHOLDS), len(RECALLS)))
    for k, row in enumerate(recall):
        at = np.searchsorted(row, RECALLS, side="left")
        reached = at < len(row)
        curves[k, reached] = precision[k, at[reached]]
    return curves, recall[:, -1] if recall.shape[1] else np.zeros(len(THRESHOLDS))


def _match(part: _Part, limits: tuple[float, float]) -> tuple[Any, Any, int]:
    """Is each find right, does it count, (thresholds, finds) each; and the objects asked for."""
    low, high = limits
    aside = part.crowd | (part.areas < low) | (part.areas > high)
    outside = (part.found_areas < low) | (part.found_areas > high)
    right = np.zeros((len(THRESHOLDS), len(part.scores)), np.bool_)
    counts = np.ones_like(right)
    for t, threshold in enumerate(THRESHOLDS):
        free = np.ones(len(part.areas), np.bool_)
        for k, row in enumerate(part.iou):
            best = _best(row, free, aside, threshold)
            if best is None:
                counts[t, k] = not outside[k]
                continue
            right[t, k], counts[t, k] = True, not aside[best]
            free[best] = part.crowd[best]
    return right, counts, int(np.count_nonzero(~aside))


def _best(
    row: F64, free: NDArray[np.bool_], aside: NDArray[np.bool_], threshold: float
) -> int | None:
    """The object that a find is matched to: one that is asked for, before one that is not."""
    for wanted in (~aside, aside):
        fits = np.where(free & wanted, row, -1.0)
        if len(fits) and fits.max() >= min(threshold, 1 - 1e-10):
            return int(len(fits) - 1 - fits[::-1].argmax())  # of equals the last, as COCO has it
    return None


def _mean(values: list[Any]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
