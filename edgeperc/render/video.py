"""A video file that pictures are written into, and that plays however the run ends."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeperc.errors import ConfigError

CODECS = {".mp4": "mp4v", ".webm": "VP90", ".avi": "MJPG"}
RATE_HZ, HIGHEST_RATE_HZ = 30.0, 240.0
_HELD = 5
_ROOM_BYTES = 1 << 16  # where less is left, something may not have found room


class VideoFile:
    """Writes pictures (H, W, 3) RGB uint8 into .mp4, .webm or .avi, all of the first one's size.

    rate_hz: of the file; None takes it from the times of the first pictures, which are held back
    until there are some. Raises ConfigError if there is no such folder or kind of file.
    """

    def __init__(self, path: Path, *, rate_hz: float | None = None) -> None:
        if path.suffix not in CODECS:
            raise ConfigError(
                f"{path}: cannot render to {path.suffix or 'a file without ending'}",
                hint=f"use one of {', '.join(CODECS)}",
            )
        if not path.parent.is_dir():
            raise ConfigError(f"{path.parent}: no such folder")
        if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            raise ConfigError(f"{path}: cannot be written")
        self.path = path
        self.count = 0
        self.rate_hz = rate_hz
        self._held: list[tuple[NDArray[np.uint8], int]] = []
        self._writer: cv2.VideoWriter | None = None
        self._size_px = (0, 0)
        self._closed = False

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def write(self, picture: NDArray[np.uint8], time_ns: int = 0) -> None:
        """Add a picture, seen at `time_ns`. Raises ConfigError if OpenCV cannot write the file."""
        if self._closed:
            return
        if self._writer is None:
            self._held.append((picture.copy(), time_ns))
            if self.rate_hz is None and len(self._held) < _HELD:
                return
            self._open()
        else:
            self._put(picture)

    def close(self) -> None:
        """Finish the file; may be called twice. Without a picture there is none.

        Raises ConfigError where the disk is full, of which OpenCV says nothing.
        """
        if self._held:
            self._open()
        self._closed = True
        if self._writer:
            self._writer.release()
            self._writer = None
            if shutil.disk_usage(self.path.parent).free < _ROOM_BYTES:
                raise ConfigError(f"{self.path}: the disk is full: it lacks its end")

    def _open(self) -> None:
        held, self._held = self._held, []
        if self.rate_hz is None:
            self.rate_hz = _rate_hz([time_ns for _, time_ns in held])
        self.rate_hz = round(self.rate_hz, 2)  # MPEG-4 counts in 65,535ths of a second at best
        height_px, width_px = held[0][0].shape[:2]
        self._size_px = (width_px + width_px % 2, height_px + height_px % 2)  # as codecs want them
        self._try()
        codec = cv2.VideoWriter.fourcc(*CODECS[self.path.suffix])
        self._writer = cv2.VideoWriter(str(self.path), codec, self.rate_hz, self._size_px)
        if not self._writer.isOpened():
            raise ConfigError(
                f"{self.path}: OpenCV cannot write this kind of video here",
                hint=f"try another of {', '.join(CODECS)}",
            )
        for picture, _ in held:
            self._put(picture)

    def _try(self) -> None:
        """Raise ConfigError where the file cannot be written, in the system's words."""
        try:
            with self.path.open("wb") as file:
                file.write(bytes(4096))
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be written: {error.strerror}") from error

    def _put(self, picture: NDArray[np.uint8]) -> None:
        assert self._writer
        width_px, height_px = self._size_px
        missing = (height_px - picture.shape[0], width_px - picture.shape[1])
        if missing in ((0, 1), (1, 0), (1, 1)):
            picture = np.pad(picture, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
        elif missing != (0, 0):
            picture = np.asarray(cv2.resize(picture, self._size_px), np.uint8)
        self._writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        self.count += 1


def _rate_hz(times_ns: list[int]) -> float:
    """Pictures a second, by the median of their distances; the usual rate where none make sense."""
    steps_ns = np.diff(times_ns)
    steps_ns = steps_ns[steps_ns > 0]
    if steps_ns.size == 0:
        return RATE_HZ
    return float(min(max(1e9 / np.median(steps_ns), 1.0), HIGHEST_RATE_HZ))
