"""Pictures of video files, V4L2 cameras and network streams, by OpenCV."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2

from edgeperc.drivers.formats import Options
from edgeperc.drivers.formats.packets import frame
from edgeperc.errors import ConfigError, DataError, DeviceError
from edgeperc.packet import Packet

_TIMEOUT_MS = 5000
_COMPLETE = 0.9


def read(path: Path, options: Options) -> Iterator[Packet]:
    """Frames of a video file, RGB, stamped with their time in the video.

    Raises DataError if it ends long before the number of frames that it announces.
    """
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not video.isOpened():
        raise DataError(
            "it cannot be opened as a video", hint="is the file complete, and does ffplay show it?"
        )
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

    source: the number of a V4L2 camera, a URL, or a GStreamer pipeline, "... ! appsink". Raises
    DeviceError if it does not open or ends, ConfigError if this OpenCV has no GStreamer.
    """
    if source.isdigit():
        video = _v4l2(int(source), options)
        hint = f"is it plugged in, and is this user in the group that may read /dev/video{source}?"
    elif " ! " in source:
        video = _gstreamer(source)
        hint = f"does it run by itself? gst-launch-1.0 {source}"
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


def _v4l2(number: int, options: Options) -> cv2.VideoCapture:
    video = cv2.VideoCapture(number, cv2.CAP_V4L2)
    for key, value in (
        (cv2.CAP_PROP_FRAME_WIDTH, options.width_px),
        (cv2.CAP_PROP_FRAME_HEIGHT, options.height_px),
        (cv2.CAP_PROP_FPS, options.rate_hz),
        (cv2.CAP_PROP_BUFFERSIZE, 1),
    ):
        if value is not None:
            video.set(key, value)
    return video


def _gstreamer(pipeline: str) -> cv2.VideoCapture:
    """Open a pipeline. Raises ConfigError if this OpenCV was built without GStreamer."""
    if not re.search(r"GStreamer:\s+YES", cv2.getBuildInformation()):
        raise ConfigError(
            f"the OpenCV that is installed, {cv2.__version__}, was built without GStreamer",
            hint="take the one of JetPack: a virtual environment with --system-site-packages,"
            " and no opencv-python in it",
        )
    return cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)


def _next(video: cv2.VideoCapture) -> Any:
    """The next picture, (H, W, 3) RGB uint8 or (H, W); None if there is none."""
    more, image = video.read()
    if not more:
        return None
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
