"""What was asked and answered, side by side in one picture that one can look at.

    sheet([[picture, painted(picture, truth), painted(picture, answer)]], ["", "truth", "answer"])

Objects have the colours of the PNG files with numbers, see `edgeperc.palette`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeperc.palette import colours

Picture: TypeAlias = NDArray[np.uint8]

FILL = 0.5
PANEL_PX = 320
"""Width of a panel; the height keeps the aspect."""
_TITLE_PX = 18


def painted(picture: Picture, numbers: NDArray[Any]) -> Picture:
    """A copy of (H, W, 3) RGB with each object of (H, W) filled in a colour and outlined."""
    table = colours().astype(np.float32)
    on = numbers > 0
    shown = picture.copy()
    mixed = (1 - FILL) * picture[on] + FILL * table[(numbers[on] - 1) % 255 + 1]
    shown[on] = mixed.astype(np.uint8)
    edges = np.zeros(numbers.shape, np.bool_)
    edges[:, 1:] = numbers[:, 1:] != numbers[:, :-1]
    edges[1:] |= numbers[1:] != numbers[:-1]
    shown[edges] = 255
    return np.asarray(shown)


def layered(masks: Mapping[int, NDArray[np.bool_]], shape: Sequence[int]) -> NDArray[np.uint8]:
    """One map (H, W) of masks by number, small ones above large ones; numbers from 1 to 254."""
    numbers = np.zeros(tuple(shape[:2]), np.uint8)
    for number in sorted(masks, key=lambda each: -int(masks[each].sum())):
        if number < 255:
            numbers[masks[number]] = number
    return numbers


def sheet(
    rows: Sequence[Sequence[Picture]], titles: Sequence[str], *, panel_px: int = PANEL_PX
) -> Picture:
    """Rows of pictures of equal aspect, panel_px wide each, with a title above each column."""
    panels = [[_panel(picture, panel_px) for picture in row] for row in rows]
    lines = [np.concatenate(row, axis=1) for row in panels]
    head: Any = np.full((_TITLE_PX, lines[0].shape[1], 3), 255, np.uint8)
    for column, title in enumerate(titles):
        place = (column * panel_px + 4, _TITLE_PX - 5)
        cv2.putText(head, title, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([head, *lines])


def jpeg(picture: Picture) -> bytes:
    """The bytes of a JPEG file."""
    return cv2.imencode(".jpg", np.ascontiguousarray(picture[:, :, ::-1]))[1].tobytes()


def _panel(picture: Picture, width_px: int) -> Picture:
    height_px = max(1, round(picture.shape[0] * width_px / picture.shape[1]))
    resized: Any = cv2.resize(picture, (width_px, height_px), interpolation=cv2.INTER_AREA)
    return np.asarray(resized, np.uint8)
