"""Pictures of video files, V4L2 cameras and network streams, by OpenCV."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2

from edgeperc.drivers.formats import Options
from edgeperc.drivers.formats.packets import frame
from edgeperc.errors import DataError, DeviceError
from edgeperc.packet import Packet

_TIMEOUT_MS = 5000
_COMPLETE = 0.9


def read(path: Path, options: Options) -> Iterator[Packet]:
    """Frames of a video file, RGB, stamped with their time in the video.

    Raises DataError if it ends long before the number of frames that it announces.
    """
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not video.isOpened():
        raise DataError("it cannot be opened as a video")
    announced = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    count = 0
    while (image := _next(video)) is not None:
        time_ns = round(video.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
        yield frame(image, time_ns, time_ns)
        count += 1
    if count < _COMPLETE * announced:  # of some files the number is an estimate
        raise DataError(f"it ends after {count} of {announced} frames")


def watch(source: str, options: Options) -> Iterator[Packet]:
    """Frames of a live source, RGB, stamped with CLOCK_MONOTONIC as they come in.

    source: the number of a V4L2 camera, or a URL. Raises DeviceError if it does not open or ends.
    """
    if source.isdigit():
        wishes = [
            (cv2.CAP_PROP_FRAME_WIDTH, options.width_px),
            (cv2.CAP_PROP_FRAME_HEIGHT, options.height_px),
            (cv2.CAP_PROP_FPS, options.rate_hz),
            (cv2.CAP_PROP_BUFFERSIZE, 1),
        ]
        video = cv2.VideoCapture(int(source), cv2.CAP_V4L2)
        for key, value in wishes:
            if value is not None:
                video.set(key, value)
        hint = f"is it plugged in, and is this user in the group that may read /dev/video{source}?"
    else:
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _TIMEOUT_MS]
        limits += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, _TIMEOUT_MS]
        video = cv2.VideoCapture(source, cv2.CAP_FFMPEG, limits)
        hint = "is the address right, and does ffplay show it?"
    if not video.isOpened():
        raise DeviceError("the camera does not open", hint=hint)
    while (image := _next(video)) is not None:
        now_ns = time.monotonic_ns()
        yield frame(image, now_ns, now_ns)
    raise DeviceError("the camera sends no more pictures")


def _next(video: cv2.VideoCapture) -> Any:
    """The next picture, (H, W, 3) RGB uint8 or (H, W); None if there is none."""
    more, image = video.read()
    if not more:
        return None
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
