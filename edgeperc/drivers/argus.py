"""CSI cameras of a Jetson, by NVIDIA's Argus through GStreamer in OpenCV. Not run on hardware."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec

from edgeperc.drivers.formats.packets import numbered
from edgeperc.drivers.formats.wire import Job
from edgeperc.drivers.formats.worker import Worker
from edgeperc.drivers.replay import Pixels, Seconds
from edgeperc.errors import ConfigError, DeviceError
from edgeperc.packet import Packet

Flip = Literal["none", "rotate-180", "horizontal-flip", "vertical-flip"]
_FLIP_METHOD: dict[Flip, int] = {"rotate-180": 2, "horizontal-flip": 4, "vertical-flip": 6}


class Argus:
    """A CSI camera: RGB frames, stamped with the host's monotonic clock when they come in.

    sensor_id: of the camera, from 0. width_px, height_px, rate_hz: one of the sensor's modes; an
    IMX219 has 1280 × 720 at 120 frames a second. exposure_us, gain: lowest and highest that the
    automatic may choose; twice the same sets them. deadline_s: after so long without a frame the
    camera is given up.

    Raises ConfigError if a range is upside down.
    """

    def __init__(
        self,
        *,
        name: str = "argus",
        sensor_id: Annotated[int, msgspec.Meta(ge=0)] = 0,
        width_px: Pixels = 1280,
        height_px: Pixels = 720,
        rate_hz: Annotated[int, msgspec.Meta(gt=0)] = 120,
        exposure_us: tuple[float, float] | None = None,
        gain: tuple[float, float] | None = None,
        flip: Flip = "none",
        deadline_s: Seconds = 10.0,
    ) -> None:
        source = gstreamer(
            sensor_id=sensor_id,
            width_px=width_px,
            height_px=height_px,
            rate_hz=rate_hz,
            exposure_us=exposure_us,
            gain=gain,
            flip=flip,
        )
        job = Job(module="edgeperc.drivers.formats.video", source=source, live=True)
        label = f"CSI camera {sensor_id}"
        self._worker = Worker(job, label=label, deadline_s=deadline_s, error=DeviceError)
        self._name = name

    def packets(self) -> Iterator[Packet]:
        """Yield frames until `close`.

        Raises ConfigError if this OpenCV has no GStreamer, DeviceError if the camera is lost.
        """
        return numbered(self._worker.packets(), self._name)

    def close(self) -> None:
        """Stop, within a moment; may be called twice and from any thread."""
        self._worker.close()


def gstreamer(
    *,
    sensor_id: int,
    width_px: int,
    height_px: int,
    rate_hz: int,
    exposure_us: tuple[float, float] | None = None,
    gain: tuple[float, float] | None = None,
    flip: Flip = "none",
) -> str:
    """What GStreamer is to do, ending in an appsink that keeps only the newest picture.

    Source: NVIDIA's Accelerated GStreamer guide; the elements exist on a Jetson alone.
    """
    camera = f"nvarguscamerasrc sensor-id={sensor_id}"
    if exposure_us:
        low_us, high_us = _range("exposure_us", exposure_us)
        camera += f' exposuretimerange="{round(low_us * 1000)} {round(high_us * 1000)}"'
    if gain:
        low, high = _range("gain", gain)
        camera += f' gainrange="{low:g} {high:g}"'
    method = _FLIP_METHOD.get(flip)
    turn = "nvvidconv" if method is None else f"nvvidconv flip-method={method}"
    size = f"width={width_px},height={height_px},framerate={rate_hz}/1"
    return " ! ".join(
        [
            camera,
            f"video/x-raw(memory:NVMM),{size},format=NV12",
            turn,
            "video/x-raw,format=BGRx",
            "videoconvert",
            "video/x-raw,format=BGR",
            "appsink drop=true max-buffers=1 sync=false",
        ]
    )


def _range(key: str, values: tuple[float, float]) -> tuple[float, float]:
    if not 0 < values[0] <= values[1]:
        raise ConfigError(f"{key} is {list(values)}, must be lowest and highest, above 0")
    return values
