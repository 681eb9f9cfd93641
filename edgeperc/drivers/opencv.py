"""Video files, V4L2 cameras and network streams as sensors, by OpenCV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec

from edgeperc.clock import Clock
from edgeperc.drivers.formats import Options
from edgeperc.drivers.formats.packets import numbered
from edgeperc.drivers.formats.wire import Job
from edgeperc.drivers.formats.worker import Worker
from edgeperc.drivers.replay import Pace, Pixels, Seconds, existing
from edgeperc.errors import DataError, DeviceError
from edgeperc.packet import Packet

_EVER_US = 1 << 62


class Video:
    """Frames, RGB, of a file or a live source.

    source: a file; or a V4L2 camera, as 0 or "/dev/video0"; or a URL that FFmpeg can read, such as
    "rtsp://camera/stream"; or, if OpenCV has GStreamer, a pipeline "... ! appsink". A file is paced
    by `clock` and stamped with the time in the video; a live frame is stamped with the host's
    monotonic clock when it comes in, for when it was exposed is not known. width_px, height_px,
    rate_hz: asked of a V4L2 camera, which may give others.
    deadline_s: after so long without a frame the source is given up.

    Raises ConfigError if there is no such file, DeviceError if a link under /dev leads nowhere.
    """

    def __init__(
        self,
        source: str | int,
        *,
        name: str = "video",
        clock: Clock | None = None,
        width_px: Pixels | None = None,
        height_px: Pixels | None = None,
        rate_hz: Annotated[float, msgspec.Meta(gt=0)] | None = None,
        deadline_s: Seconds = 10.0,
    ) -> None:
        label = str(source)
        device = Path(label).resolve() if label.startswith("/dev/") else label  # also by-id links
        camera = str(device).removeprefix("/dev/video")
        live = label.startswith("/dev/") or camera.isdigit() or "://" in label or " ! " in label
        if camera.startswith("/dev/"):  # a by-id link goes away with its camera
            raise DeviceError(f"{label}: no such camera", hint="is it plugged in?")
        self._name = name
        self._pace = Pace(None if live else clock, max_gap_us=_EVER_US)
        job = Job(
            module="edgeperc.drivers.formats.video",
            source=camera if live else str(existing(label).resolve()),
            options=Options(width_px=width_px, height_px=height_px, rate_hz=rate_hz),
            live=live,
        )
        error = DeviceError if live else DataError
        self._worker = Worker(job, label=label, deadline_s=deadline_s, error=error)

    def packets(self) -> Iterator[Packet]:
        """Yield frames until the file ends, or the camera is closed.

        Raises DataError where a file breaks, DeviceError when a live source is lost.
        """
        return self._pace.packets(numbered(self._worker.packets(), self._name))

    def close(self) -> None:
        """Stop, within a moment; may be called twice and from any thread."""
        self._pace.stop()
        self._worker.close()
