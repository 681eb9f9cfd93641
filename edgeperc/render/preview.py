"""Results in the terminal: maps in coloured half blocks, and one line that says what was seen."""

from __future__ import annotations

import colorsys
import math
from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from rich.text import Text

from edgeperc.result import UNKNOWN, Detections, Instances, LabelMap, Result, SearchMap

GOLDEN_RATIO = 0.61803399  # steps of it around the colour wheel never come close to each other


def class_colour(label: int) -> str:
    """Colour of a class as "#rrggbb"; neighbours differ, 255 (unknown) is black."""
    if label == UNKNOWN:
        return "#000000"
    saturation, value = (0.45, 0.8)[label % 2], (0.95, 0.5, 0.75)[label % 3]
    rgb = colorsys.hsv_to_rgb(label * GOLDEN_RATIO % 1.0, saturation, value)
    return "#{:02x}{:02x}{:02x}".format(*(round(255 * part) for part in rgb))


def object_colour(object_id: int) -> str:
    """Colour of an object as "#rrggbb": always bright, the same as long as the id is the same."""
    saturation = (0.85, 0.65)[object_id % 2]
    rgb = colorsys.hsv_to_rgb(object_id * GOLDEN_RATIO % 1.0, saturation, 1.0)
    return "#{:02x}{:02x}{:02x}".format(*(round(255 * part) for part in rgb))


def heat_colour(heat: int) -> str:
    """Colour of 0 (black) over 128 (red) to 255 (yellow) as "#rrggbb"."""
    return f"#{min(255, 2 * heat):02x}{max(0, 2 * heat - 255):02x}00"


def picture(result: Result, *, columns: int, rows: int) -> Text:
    """Draw a result that is a map; of boxes there is no picture without the camera's."""
    if isinstance(result, LabelMap):
        return half_blocks(result.labels, columns=columns, rows=rows)
    if isinstance(result, SearchMap):
        return half_blocks(_heat(result), columns=columns, rows=rows, colour=heat_colour)
    if isinstance(result, Instances):
        ids = [*result.ids[:UNKNOWN].tolist()]
        colours = [*map(object_colour, ids), *["#000000"] * (UNKNOWN + 1 - len(ids))]
        labels = _objects(result)
        return half_blocks(labels, columns=columns, rows=rows, colour=colours.__getitem__)
    return Text()


def half_blocks(
    labels: NDArray[np.uint8],
    *,
    columns: int,
    rows: int,
    colour: Callable[[int], str] = class_colour,
) -> Text:
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
            picture.append("▀", f"{colour(above)} on {colour(below)}")
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
    if isinstance(result, SearchMap):
        return Text(_search_summary(result))
    if isinstance(result, Instances):
        return _objects_summary(result)
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
    if isinstance(result, Detections) and result.gaze:
        line.append(f"  at {_angles(result.gaze.pan_rad, result.gaze.tilt_rad)}")
    return line


def _objects_summary(result: Instances) -> Text:
    """Each object in its colour with the score of its mask, or that it is out of sight."""
    line = Text()
    for index, object_id in enumerate(result.ids.tolist()):
        name = " ".join(filter(None, (str(object_id), *result.classes[index : index + 1])))
        if result.visible[index] >= 0.5:
            line.append("■ ", object_colour(object_id))
            line.append(f"{name} {result.scores[index]:.2f}  ")
        else:
            line.append("□ ", object_colour(object_id))
            line.append(f"{name} out of sight  ", "dim")
    line.rstrip()
    return line if len(result.ids) else Text("no objects yet")


def _search_summary(result: SearchMap) -> str:
    at = f", gaze {_angles(*result.trail[-1].tolist())}" if len(result.trail) else ""
    expected = float(result.intensity.sum())
    return f"{len(result.tracks)} tracks, {expected:.1f} more expected{at}"


def _angles(pan_rad: float, tilt_rad: float) -> str:
    return f"{math.degrees(pan_rad):+.2f}° {math.degrees(tilt_rad):+.2f}°"


def _heat(result: SearchMap) -> NDArray[np.uint8]:
    """Logarithm of the intensity, (H, W) uint8: 255 at the highest, 0 at a thousandth of it."""
    highest = max(float(result.intensity.max(initial=0)), 1e-9)
    decades = np.log10(np.maximum(result.intensity / highest, 1e-3))
    heat: NDArray[np.uint8] = np.round(255 * (1 + decades / 3)).astype(np.uint8)
    return heat


def _objects(result: Instances) -> NDArray[np.uint8]:
    """Which object each pixel belongs to, by index; the later one where two overlap."""
    from edgeperc import masks

    width_px, height_px = result.picture_px
    labels = np.full((height_px, width_px), UNKNOWN, np.uint8)
    for index, mask in enumerate(result.masks[:UNKNOWN]):
        if (mask.height_px, mask.width_px) == labels.shape:
            labels[masks.decode(mask)] = index
    return labels


def _centres(size: int, count: int) -> NDArray[np.intp]:
    return ((np.arange(count) + 0.5) * size / count).astype(np.intp)
