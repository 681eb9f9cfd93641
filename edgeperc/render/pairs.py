"""Frames beside their events as a video, with what was found.

+---------------------+---------------------+
| the result over the | and under the       |
| frame, or grey      | events: brighter    |
| where there is none | red, darker blue    |
+---------------------+---------------------+
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeperc.packet import Events, Frame, Pair
from edgeperc.render.drawing import Picture, draw
from edgeperc.render.video import VideoFile
from edgeperc.result import Result

NO_FRAME, NO_EVENT = 64, 24
BRIGHTER, DARKER = (255, 80, 60), (70, 130, 255)


class RenderPairs:
    """Draws the pairs of one source and their results into a video file; a Viewer.

    Raises ConfigError if the file cannot be written.
    """

    def __init__(self, path: Path, *, source: str) -> None:
        self._video = VideoFile(path)
        self.where = str(path)
        self._source = source
        self._pair: Pair | None = None
        self._lock = threading.Lock()

    def see(self, seen: Frame | Pair) -> None:
        """Keep a pair until its result comes, which is next."""
        with self._lock:
            if isinstance(seen, Pair) and seen.stamp.source == self._source:
                self._pair = seen

    def write(self, result: Result) -> None:
        """Take the result about the pair and move the video on."""
        with self._lock:
            if self._pair is not None and result.stamp == self._pair.stamp:
                self._video.write(side_by_side(self._pair, result), result.stamp.end_ns)
                self._pair = None

    def close(self) -> None:
        """Finish the file; may be called twice."""
        with self._lock:
            self._video.close()


def side_by_side(pair: Pair, result: Result) -> Picture:
    """The result over the frame, and under the events: (H, 2 W, 3) RGB uint8."""
    size = (pair.events.height_px, pair.events.width_px)
    image = np.full(size, NO_FRAME, np.uint8) if pair.frame is None else pair.frame.image
    found = draw(np.full(size, NO_EVENT, np.uint8), [result])
    return np.concatenate([draw(image, [result]), draw_events(pair.events, found)], axis=1)


def draw_events(events: Events, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy of a picture, (H, W, 3) RGB uint8, with each pixel's last event in its colour."""
    picture = picture.copy()
    colours = np.array([DARKER, BRIGHTER], np.uint8)
    picture[events.y, events.x] = colours[events.p.astype(np.intp)]
    return picture
