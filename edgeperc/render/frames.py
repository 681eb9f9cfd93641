"""The frames of a camera as a video, with what all of its pipelines found drawn over each."""

from __future__ import annotations

import threading
from pathlib import Path

from edgeperc.packet import Frame, Pair, Stamp
from edgeperc.render.drawing import draw
from edgeperc.render.video import VideoFile
from edgeperc.result import Result

HELD = 64
"""So many frames wait for their results at most; then the oldest is drawn with what there is."""


class RenderFrames:
    """Draws results over the frames of one source into a video file; a Viewer.

    pipelines: how many answer for each frame. Raises ConfigError if the file cannot be written.
    """

    def __init__(self, path: Path, *, source: str, pipelines: int = 1) -> None:
        self._video = VideoFile(path)
        self.where = str(path)
        self._source, self._pipelines = source, pipelines
        self._waiting: dict[Stamp, tuple[Frame, list[Result]]] = {}
        self._lock = threading.Lock()

    def see(self, seen: Frame | Pair) -> None:
        """Keep the picture until its results have come."""
        with self._lock:
            if isinstance(seen, Frame) and seen.stamp.source == self._source:
                self._waiting[seen.stamp] = (seen, [])
                if len(self._waiting) > HELD:
                    self._put_oldest()

    def write(self, result: Result) -> None:
        """Take a result; the last one for a frame moves the video on."""
        with self._lock:
            if result.stamp not in self._waiting:
                return
            results = self._waiting[result.stamp][1]
            results.append(result)
            if len(results) == self._pipelines:
                while next(iter(self._waiting)) != result.stamp:
                    self._put_oldest()
                self._put_oldest()

    def close(self) -> None:
        """Finish the file with the frames that wait; may be called twice."""
        with self._lock:
            while self._waiting:
                self._put_oldest()
            self._video.close()

    def _put_oldest(self) -> None:
        frame, results = self._waiting.pop(next(iter(self._waiting)))
        self._video.write(draw(frame.image, results), frame.stamp.end_ns)
