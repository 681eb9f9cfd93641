"""What was found, drawn over the picture that it was found in.

An object keeps its colour for as long as it keeps its id; one that the network believes to be out
of sight is drawn faintly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeperc import masks
from edgeperc.render.preview import class_colour, object_colour
from edgeperc.result import UNKNOWN, Detections, Instances, LabelMap, Result

Picture: TypeAlias = NDArray[np.uint8]
Colour: TypeAlias = tuple[int, int, int]

SEEN = 0.5
"""An object of less `visible` is drawn as one that is out of sight."""
FILL, FAINT_FILL, LABEL_FILL = 0.45, 0.15, 0.5
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw(image: NDArray[np.uint8], results: Sequence[Result]) -> Picture:
    """A copy of the picture, (H, W) or (H, W, 3) RGB uint8, in colour, with all results on it."""
    picture = _in_colour(image)
    for result in results:
        if isinstance(result, LabelMap):
            _draw_labels(picture, result)
        elif isinstance(result, Detections):
            _draw_boxes(picture, result)
        elif isinstance(result, Instances):
            _draw_instances(picture, result)
    return picture


def rgb(colour: str) -> Colour:
    """Parts 0..255 of "#rrggbb"."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return red, green, blue


def _draw_instances(picture: Picture, found: Instances) -> None:
    """Fill, outline and name each object; say below which ones are nowhere in the picture."""
    hidden = []
    labels = []
    for index, mask in enumerate(found.masks):
        object_id, seen = int(found.ids[index]), float(found.visible[index]) >= SEEN
        colour = rgb(object_colour(object_id))
        name = " ".join(filter(None, (str(object_id), *found.classes[index : index + 1])))
        if not found.boxes[index].any() or not _fits(picture, mask):
            hidden.append(name)
            continue
        top_left = _fill(picture, mask, found.boxes[index], colour, FILL if seen else FAINT_FILL)
        says = f"{name}  {found.scores[index]:.2f}" if seen else f"{name}  out of sight?"
        labels.append((says, top_left, colour if seen else (128, 128, 128)))
    for says, place, colour in labels:  # above all masks
        _write(picture, says, place, colour)
    if hidden:
        height_px = picture.shape[0]
        _write(picture, f"out of sight: {', '.join(hidden)}", (0, height_px), (128, 128, 128))


def _fill(
    picture: Picture, mask: masks.Rle, box: NDArray[np.float32], colour: Colour, share: float
) -> tuple[int, int]:
    """Mix a colour in where the mask is, and outline it; returns the box's upper left corner."""
    height_px, width_px = picture.shape[:2]
    limits = [width_px, height_px, width_px, height_px]
    left, top, right, bottom = np.clip(box.astype(int), 0, limits).tolist()
    part = picture[top:bottom, left:right]
    on = masks.decode(mask)[top:bottom, left:right]
    mixed = part[on] * np.float32(1 - share) + np.array(colour, np.float32) * np.float32(share)
    part[on] = mixed.astype(np.uint8)
    lines, _ = cv2.findContours(on.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    thick = _scale(picture) if share == FILL else 1
    cv2.drawContours(picture, lines, -1, colour, thick, cv2.LINE_AA, offset=(left, top))
    return left, top


def _draw_boxes(picture: Picture, found: Detections) -> None:
    for box, score, index in zip(found.boxes, found.scores, found.class_ids, strict=True):
        colour = rgb(class_colour(int(index) % UNKNOWN))
        x0, y0, x1, y1 = np.rint(box).astype(int).tolist()
        cv2.rectangle(picture, (x0, y0), (x1, y1), colour, _scale(picture), cv2.LINE_AA)
        _write(picture, f"{found.classes[index]}  {score:.2f}", (x0, y0), colour)


def _draw_labels(picture: Picture, found: LabelMap) -> None:
    if found.labels.shape != picture.shape[:2]:
        return
    colours = np.array([rgb(class_colour(label)) for label in range(256)], np.float32)
    known = found.labels != UNKNOWN
    inside = picture[known] * np.float32(1 - LABEL_FILL)
    inside += colours[found.labels[known]] * np.float32(LABEL_FILL)
    picture[known] = inside.astype(np.uint8)


def _write(picture: Picture, says: str, place: tuple[int, int], colour: Colour) -> None:
    """Words on a plate of `colour` whose foot stands on `place` x, y, but within the picture."""
    scale = _scale(picture)
    size, thick = 0.4 * (1 + scale) / 2, max(1, scale // 2)
    (width, height), below = cv2.getTextSize(says, _FONT, size, thick)
    x = max(0, min(place[0], picture.shape[1] - width - 4))
    y = max(height + below + 2, min(place[1], picture.shape[0]))
    cv2.rectangle(picture, (x, y - height - below - 2), (x + width + 4, y), colour, -1)
    ink = (0, 0, 0) if sum(colour) > 330 else (255, 255, 255)
    cv2.putText(picture, says, (x + 2, y - below), _FONT, size, ink, thick, cv2.LINE_AA)


def _scale(picture: Picture) -> int:
    """How thick lines are: 1 for small pictures, 3 at full HD."""
    height_px, width_px = picture.shape[:2]
    return max(1, round(float(min(height_px, width_px)) / 360))


def _fits(picture: Picture, mask: masks.Rle) -> bool:
    return (mask.height_px, mask.width_px) == picture.shape[:2]


def _in_colour(image: NDArray[np.uint8]) -> Picture:
    if image.ndim == 3:
        return np.array(image)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), np.uint8)
