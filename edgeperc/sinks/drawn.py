"""What sensors saw, as pictures for those who look: pages, and clients that ask for the image.

data = jpeg(frame.image)
steps, count = event_steps(parts, since_us=0, until_us=50_000)
data = jpeg(event_picture(steps))
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeperc.packet import Events

JPEG_QUALITY = 80
MOST_STEPS = 3
"""So many events of one polarity more than of the other make a pixel's strongest colour."""
COLOURS = np.array(
    [
        *((0x4F, 0x8D, 0xFF), (0x35, 0x66, 0xC8), (0x24, 0x46, 0x82)),
        (0x0B, 0x0D, 0x10),
        *((0x7A, 0x5A, 0x22), (0xC4, 0x86, 0x2A), (0xFF, 0xB1, 0x3D)),
    ],
    np.uint8,
)
"""Of the steps, as the page has them by night: RGB, blue where darker, orange where brighter."""


def jpeg(image: NDArray[np.uint8], *, max_width_px: int = 0) -> bytes:
    """A picture (H, W) or (H, W, 3) RGB uint8 as a JPEG; one that is wider is made smaller."""
    height_px, width_px = image.shape[:2]
    drawn: Any = image
    if max_width_px and width_px > max_width_px:
        drawn_px = max(1, round(height_px * max_width_px / width_px))
        drawn = cv2.resize(drawn, (max_width_px, drawn_px), interpolation=cv2.INTER_AREA)
    if drawn.ndim == 3:
        drawn = cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return bytes(data.tobytes())


def event_steps(
    parts: Iterable[Events], *, since_us: int, until_us: int | None = None
) -> tuple[NDArray[np.uint8], int]:
    """What the events of [since_us, until_us) did to each pixel, and how many there were.

    parts: of one camera, at least one. The (H, W) steps are 3 where nothing or as much of both
    happened, up to 6 where it became brighter, down to 0 where it became darker.
    """
    net = np.zeros(0, np.int64)
    width_px = height_px = count = 0
    for part in parts:
        if net.size == 0:
            width_px, height_px = part.width_px, part.height_px
            net = np.zeros(width_px * height_px, np.int64)
        first = int(np.searchsorted(part.t, since_us))
        end = len(part) if until_us is None else int(np.searchsorted(part.t, until_us))
        at = part.y[first:end].astype(np.int64) * width_px + part.x[first:end]
        brighter = part.p[first:end]
        net += np.bincount(at[brighter], minlength=net.size)
        net -= np.bincount(at[~brighter], minlength=net.size)
        count += at.size
    steps = (np.clip(net, -MOST_STEPS, MOST_STEPS) + MOST_STEPS).astype(np.uint8)
    return steps.reshape(height_px, width_px), count


def event_picture(steps: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) RGB of `event_steps`."""
    picture: NDArray[np.uint8] = COLOURS[steps]
    return picture
