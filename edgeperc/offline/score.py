"""Intersection over union and accuracy of label maps, from a confusion matrix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

Labels = NDArray[np.uint8]
Confusion = NDArray[np.int64]
"""(classes, classes): pixels by truth (row) and answer (column)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What a confusion matrix says. iou: by class, None for one that neither side has.

    miou: mean over the classes that occur; accuracy: share of right pixels; all in 0..1.
    """

    iou: dict[str, float | None]
    miou: float
    accuracy: float
    pixels: int

    def table(self, title: str) -> Table:
        """One line a class, then the summary, in percent."""
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        table.add_column("class")
        table.add_column("IoU %", justify="right")
        for name, iou in self.iou.items():
            table.add_row(name, "-" if iou is None else f"{100 * iou:.2f}")
        table.add_row("[bold]mIoU[/bold]", f"[bold]{100 * self.miou:.2f}[/bold]")
        table.add_row("[bold]accuracy[/bold]", f"[bold]{100 * self.accuracy:.2f}[/bold]")
        return table


def confusion_matrix(truth: Labels, answer: Labels, classes: int) -> Confusion:
    """Count pixels by truth and answer, both (H, W).

    Pixels labelled beyond the classes (255) on either side are left out: nobody knows the truth
    there, or the network did not look there.
    """
    known = (truth < classes) & (answer < classes)
    pairs = truth[known].astype(np.int64) * classes + answer[known]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def score(confusion: Confusion, classes: Iterable[str]) -> Scores:
    """Intersection over union by class, their mean, and pixel accuracy."""
    right = np.diag(confusion).astype(np.float64)
    union = confusion.sum(0) + confusion.sum(1) - right
    occurs = union > 0
    iou = np.divide(right, union, out=np.zeros_like(right), where=occurs)
    pixels = int(confusion.sum())
    return Scores(
        iou={
            name: float(value) if present else None
            for name, value, present in zip(classes, iou, occurs, strict=True)
        },
        miou=float(iou[occurs].mean()) if occurs.any() else 0.0,
        accuracy=float(right.sum() / pixels) if pixels else 0.0,
        pixels=pixels,
    )
