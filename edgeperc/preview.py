"""Results in the terminal: a label map in coloured half blocks, and its classes as a legend."""

from __future__ import annotations

import colorsys
from collections import Counter

import numpy as np
from numpy.typing import NDArray
from rich.text import Text

from edgeperc.result import UNKNOWN, LabelMap, Result

GOLDEN_RATIO = 0.61803399  # steps of it around the colour wheel never come close to each other


def class_colour(label: int) -> str:
    """Colour of a class as "#rrggbb"; neighbours differ, 255 (unknown) is black."""
    if label == UNKNOWN:
        return "#000000"
    saturation, value = (0.45, 0.8)[label % 2], (0.95, 0.5, 0.75)[label % 3]
    rgb = colorsys.hsv_to_rgb(label * GOLDEN_RATIO % 1.0, saturation, value)
    return "#{:02x}{:02x}{:02x}".format(*(round(255 * part) for part in rgb))


def half_blocks(labels: NDArray[np.uint8], *, columns: int, rows: int) -> Text:
    """Draw `labels` into at most `columns` × `rows` characters; two pixels share one character.

    labels: (H, W) uint8. Keeps the aspect ratio: a character is twice as high as it is wide.
    """
    height, width = labels.shape
    if min(height, width, columns, rows) <= 0:
        return Text()
    scale = min(columns / width, 2 * rows / height)
    wide, high = max(1, int(width * scale)), max(1, int(height * scale) // 2) * 2
    pixels = labels[_centres(height, high)][:, _centres(width, wide)].tolist()
    picture = Text(no_wrap=True)
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        for above, below in zip(upper, lower, strict=True):
            picture.append("▀", f"{class_colour(above)} on {class_colour(below)}")
        picture.append("\n")
    picture.rstrip()
    return picture


def class_shares(result: LabelMap) -> dict[str, float]:
    """Share of each class that is present among the pixels that the network looked at."""
    counts = np.bincount(result.labels.ravel(), minlength=256)[: len(result.classes)]
    seen = int(counts.sum())
    return {
        name: float(count / seen)
        for name, count in zip(result.classes, counts, strict=True)
        if count
    }


def summary(result: Result) -> Text:
    """One line on what was seen: classes in their colours, with shares or counts."""
    if isinstance(result, LabelMap):
        found = {name: f"{share:.0%}" for name, share in class_shares(result).items()}
    else:
        counts = Counter(result.classes[index] for index in result.class_ids)
        found = {name: str(count) for name, count in sorted(counts.items())}
    line = Text()
    for name, amount in found.items():
        line.append("■ ", class_colour(result.classes.index(name)))
        line.append(f"{name} {amount}  ")
    line.rstrip()
    return line


def _centres(size: int, count: int) -> NDArray[np.intp]:
    return ((np.arange(count) + 0.5) * size / count).astype(np.intp)
