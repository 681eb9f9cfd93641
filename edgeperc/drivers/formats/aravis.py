"""Pictures of GigE Vision cameras, by Aravis through the system's PyGObject.

`python -m edgeperc.drivers.formats.aravis` lists the cameras that answer on the network.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeperc.drivers.camera_clock import CameraClock, PictureCount
from edgeperc.drivers.formats import Options
from edgeperc.drivers.formats.packets import frame
from edgeperc.errors import ConfigError, DeviceError
from edgeperc.packet import Packet

SYSTEM_PACKAGES = "/usr/lib/python3/dist-packages"
PACKAGES_HINT = "apt-get install gir1.2-aravis-0.8 python3-gi, and run the system's Python version"
_HINT = "is it on this network, and does no other program hold it?"
_BUFFERS = 8
_POLL_US = 200_000
_CONTROL_S = 5.0
_BAYER = {"BayerRG8": "RGGB", "BayerGR8": "GRBG", "BayerGB8": "GBRG", "BayerBG8": "BGGR"}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a camera is told; None leaves a setting as it is. camera: an id of Aravis, or None."""

    camera: str | None = None
    width_px: int | None = None
    height_px: int | None = None
    offset_x_px: int | None = None
    offset_y_px: int | None = None
    rate_hz: float | None = None
    exposure_us: float | None = None
    gain: float | None = None
    pixel_format: str = "Mono8"
    silence_s: float = 2.0


def watch(source: str, options: Options) -> Iterator[Packet]:
    """Frames of a camera, the newest first, stamped with CLOCK_MONOTONIC; gaps in seq are drops.

    source: Settings as JSON. Raises DeviceError if the camera is not there or is lost, ConfigError
    for a setting that it does not take.
    """
    settings = msgspec.json.decode(source, type=Settings)
    aravis, refusal = library()
    camera = _opened(aravis, refusal, settings.camera)
    try:
        _take_control(camera.get_device(), refusal)
        camera.stop_acquisition()  # whom it served before may have been killed
        _set(aravis, refusal, camera, settings)
        yield from _pictures(aravis, camera, settings)
    except refusal as error:
        raise DeviceError(f"the camera was lost: {error.message}", hint=_HINT) from error


def library() -> tuple[Any, Any]:
    """Aravis and the error it raises, by this Python's packages or else the system's.

    Raises ConfigError if neither has it.
    """
    try:
        try:
            import gi
        except ImportError:
            sys.path.append(SYSTEM_PACKAGES)  # behind our own, and in this process alone
            import gi
        gi.require_version("Aravis", "0.8")
        from gi.repository import Aravis, GLib
    except (ImportError, ValueError) as error:
        raise ConfigError(f"this camera needs Aravis: {error}", hint=PACKAGES_HINT) from error
    return Aravis, GLib.GError


def ids(aravis: Any) -> list[str]:
    """The cameras that answer within a second."""
    aravis.update_device_list()
    return [aravis.get_device_id(number) for number in range(aravis.get_n_devices())]


def _opened(aravis: Any, refusal: Any, camera: str | None) -> Any:
    """A camera that answers: listed before, or Aravis may reach it by the wrong interface."""
    there = ids(aravis)
    hint = f"there is {' and '.join(there)}" if there else _HINT
    if camera is None and not there:
        raise DeviceError("no GigE Vision camera answers", hint=hint)
    try:
        return aravis.Camera.new(camera or there[0])
    except refusal as error:
        raise DeviceError(f"the camera does not open: {error.message}", hint=hint) from error


def _take_control(device: Any, refusal: Any) -> None:
    """Wait for the camera to forget whom it served before, which it does after some seconds."""
    until_s = time.monotonic() + _CONTROL_S
    while not device.is_controller():
        if time.monotonic() > until_s:
            raise DeviceError("another program holds the camera", hint=_HINT)
        time.sleep(0.1)
        with contextlib.suppress(refusal):
            device.take_control()


def _set(aravis: Any, refusal: Any, camera: Any, settings: Settings) -> None:
    """Change what is asked for. Raises ConfigError for what the camera does not take."""
    formats = camera.dup_available_pixel_formats_as_strings()
    if settings.pixel_format not in formats:
        raise ConfigError(
            f"pixel_format is {settings.pixel_format}, the camera takes {', '.join(formats)}"
        )
    camera.clear_triggers()
    camera.set_pixel_format_from_string(settings.pixel_format)
    _set_region(camera, settings)
    off = aravis.Auto.OFF
    if settings.exposure_us is not None and camera.is_exposure_auto_available():
        camera.set_exposure_time_auto(off)
    if settings.gain is not None and camera.is_gain_auto_available():
        camera.set_gain_auto(off)
    for key, bounds, write in (
        ("rate_hz", camera.get_frame_rate_bounds, camera.set_frame_rate),
        ("exposure_us", camera.get_exposure_time_bounds, camera.set_exposure_time),
        ("gain", camera.get_gain_bounds, camera.set_gain),
    ):
        value = getattr(settings, key)
        if value is None:
            continue
        try:
            low, high = bounds()
        except refusal as error:
            raise ConfigError(f"{key}: the camera has no such setting: {error.message}") from error
        if not low <= value <= high:  # Aravis would write it
            raise ConfigError(f"{key} is {value:g}, the camera takes {low:g} to {high:g}")
        write(value)


def _set_region(camera: Any, settings: Settings) -> None:
    now, sensor = camera.get_region(), camera.get_sensor_size()
    asked = (settings.offset_x_px, settings.offset_y_px, settings.width_px, settings.height_px)
    usual = (now.x, now.y, now.width, now.height)
    x, y, width, height = (u if a is None else a for a, u in zip(asked, usual, strict=True))
    if x + width <= sensor.width and y + height <= sensor.height:
        camera.set_region(x, y, width, height)
        now = camera.get_region()
        if (now.x, now.y, now.width, now.height) == (x, y, width, height):
            return
    raise ConfigError(
        f"the camera takes no {width} × {height} px at ({x}, {y}):"
        f" it has {sensor.width} × {sensor.height} px, and width goes in steps of"
        f" {camera.get_width_increment()}, height of {camera.get_height_increment()}"
    )


def _pictures(aravis: Any, camera: Any, settings: Settings) -> Iterator[Packet]:
    lost = threading.Event()
    camera.get_device().connect("control-lost", lambda _: lost.set())
    stream = camera.create_stream(None, None)
    for _ in range(_BUFFERS):
        stream.push_buffer(aravis.Buffer.new_allocate(camera.get_payload()))
    exposure_ns = round(1000 * camera.get_exposure_time())
    clock, count = CameraClock(), PictureCount()
    camera.start_acquisition()
    for buffer in _newest(aravis, stream, lost, settings.silence_s):
        ago_ns = time.time_ns() - buffer.get_system_timestamp()  # when its first bytes came in
        start_ns = time.monotonic_ns() - ago_ns - exposure_ns
        if camera_ns := buffer.get_timestamp():
            start_ns = clock.start_ns(camera_ns, start_ns)
        image, seq = _image(buffer, settings.pixel_format), count.seq(buffer.get_frame_id())
        stream.push_buffer(buffer)
        yield frame(image, start_ns, start_ns + exposure_ns, seq=seq)


def _newest(aravis: Any, stream: Any, lost: threading.Event, silence_s: float) -> Iterator[Any]:
    """Whole buffers. Raises DeviceError when the camera lets go, or keeps silent."""
    until_s = time.monotonic() + silence_s
    while time.monotonic() < until_s and not lost.is_set():
        buffer = stream.timeout_pop_buffer(_POLL_US)
        if buffer is None:
            continue
        while (newer := stream.try_pop_buffer()) is not None:
            stream.push_buffer(buffer)
            buffer = newer
        if buffer.get_status() == aravis.BufferStatus.SUCCESS:
            yield buffer
            until_s = time.monotonic() + silence_s
        else:
            stream.push_buffer(buffer)
    why = "the camera is gone" if lost.is_set() else f"no picture came for {silence_s:g} s"
    raise DeviceError(why, hint=_HINT)


def _image(buffer: Any, pixel_format: str) -> NDArray[Any]:
    """(H, W) grey or (H, W, 3) RGB uint8, a copy."""
    height, width = buffer.get_image_height(), buffer.get_image_width()
    data = np.frombuffer(buffer.get_data(), np.uint8)
    if pixel_format == "RGB8":
        return data[: 3 * height * width].reshape(height, width, 3)
    grey = data[: height * width].reshape(height, width)
    if pixel_format not in _BAYER:
        return grey
    import cv2

    return cv2.cvtColor(grey, getattr(cv2, f"COLOR_Bayer{_BAYER[pixel_format]}2RGB"))


if __name__ == "__main__":
    print("\n".join(ids(library()[0])))
