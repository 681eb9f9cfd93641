"""GigE Vision cameras of any maker by Aravis, in a process of its own; real ones not run so far."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import msgspec

import edgeperc
from edgeperc.drivers.formats.aravis import PACKAGES_HINT, Settings
from edgeperc.drivers.formats.wire import Job
from edgeperc.drivers.formats.worker import Worker
from edgeperc.drivers.replay import Pixels, Seconds
from edgeperc.errors import DeviceError
from edgeperc.packet import Packet

_MODULE = "edgeperc.drivers.formats.aravis"
_LOOK_S = 10
_HANG_S = 5.0

Offset = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
PixelFormat = Literal["Mono8", "RGB8", "BayerRG8", "BayerGR8", "BayerGB8", "BayerBG8"]


class Gige:
    """A GigE Vision camera that runs by itself.

    camera: its id in Aravis, "maker-model-serial"; None takes the first that answers. What is left
    out stays as the camera has it. gain: in the camera's own units. pixel_format: colours and Bayer
    patterns become RGB. deadline_s: after so long without a picture the camera is given up.

    Frames are newest first: whatever was not fetched in time, or came incompletely, leaves a gap in
    seq. Times are the camera's moved to CLOCK_MONOTONIC.
    """

    def __init__(
        self,
        *,
        name: str = "gige",
        camera: str | None = None,
        width_px: Pixels | None = None,
        height_px: Pixels | None = None,
        offset_x_px: Offset | None = None,
        offset_y_px: Offset | None = None,
        rate_hz: Positive | None = None,
        exposure_us: Positive | None = None,
        gain: Annotated[float, msgspec.Meta(ge=0)] | None = None,
        pixel_format: PixelFormat = "Mono8",
        deadline_s: Seconds = 2.0,
    ) -> None:
        settings = Settings(
            camera=camera,
            width_px=width_px,
            height_px=height_px,
            offset_x_px=offset_x_px,
            offset_y_px=offset_y_px,
            rate_hz=rate_hz,
            exposure_us=exposure_us,
            gain=gain,
            pixel_format=pixel_format,
            silence_s=deadline_s,
        )
        job = Job(module=_MODULE, source=msgspec.json.encode(settings).decode(), live=True)
        label = f"GigE camera {camera}" if camera else "GigE camera"
        # The child tells of silence itself, and may have to wait for the camera when it opens it.
        patience_s = deadline_s + _HANG_S
        self._worker = Worker(job, label=label, deadline_s=patience_s, error=DeviceError)
        self._name = name

    def packets(self) -> Iterator[Packet]:
        """Yield frames until `close`.

        Raises DeviceError if the camera is not there or is lost, ConfigError if it does not take a
        setting or Aravis is missing.
        """
        for packet in self._worker.packets():
            yield replace(packet, stamp=replace(packet.stamp, source=self._name))

    def close(self) -> None:
        """Stop, within a moment; may be called twice and from any thread."""
        self._worker.close()


def list_cameras() -> list[str]:
    """What Aravis sees, a sentence each, after a second; also where it sees nothing."""
    try:
        found = subprocess.run(
            [sys.executable, "-m", _MODULE],
            capture_output=True,
            check=True,
            text=True,
            timeout=_LOOK_S,
            cwd=Path(edgeperc.__file__).parents[1],
        ).stdout.split()
    except subprocess.CalledProcessError:
        return [f"aravis: not installed; {PACKAGES_HINT}"]
    except subprocess.TimeoutExpired:
        return ["aravis: cannot look for cameras: it does not answer"]
    return [f"aravis: {camera}" for camera in found] or ["aravis: sees no camera"]
