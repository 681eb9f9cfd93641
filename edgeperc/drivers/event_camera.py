"""Live event cameras, by neuromorphic-drivers or dv-processing. Not run on hardware so far.

Both libraries are imported on use. Times are moved once to the host's monotonic clock: the last
event of the first packet is taken to have happened when that packet came. They are late by its way
to us, some milliseconds, and drift with the camera's crystal, some tens of µs a second.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from edgeperc.drivers.formats.packets import events, frame, numbered
from edgeperc.errors import ConfigError, DeviceError
from edgeperc.packet import Events, Frame, Packet

log = logging.getLogger("edgeperc")

Model = Literal["davis346", "dvxplorer", "evk3", "evk4"]
MODULES: dict[Model, str] = {
    "davis346": "inivation_davis346",
    "dvxplorer": "inivation_dvxplorer",
    "evk3": "prophesee_evk3_hd",
    "evk4": "prophesee_evk4",
}
_HINT = "plug it in and let this user at USB devices (udev rules): see docs/drivers.md"
_POLL_S = 0.1


class EventCamera:
    """A DAVIS346, DVXplorer, EVK3 HD or EVK4 by neuromorphic-drivers.

    model: None takes whichever is there, as it is. serial: which of several. biases: by the names
    of the library's `Biases` of that model; what is left out keeps its default. exposure_us and
    frame_interval_us: of the pictures of a DAVIS346.

    Raises ConfigError for a setting that the model has not, or if the library is missing.
    """

    def __init__(
        self,
        *,
        name: str = "event-camera",
        model: Model | None = None,
        serial: str | None = None,
        biases: dict[str, int] | None = None,
        exposure_us: Annotated[int, msgspec.Meta(gt=0)] | None = None,
        frame_interval_us: Annotated[int, msgspec.Meta(gt=0)] | None = None,
    ) -> None:
        self._library = library("neuromorphic_drivers")
        self._name = name
        self._serial = serial
        pictures = {"exposure_us": exposure_us, "frame_interval_us": frame_interval_us}
        settings = {key: value for key, value in pictures.items() if value is not None}
        self._settings = _settings(self._library, model, biases or {}, settings)
        self._closed = threading.Event()

    def packets(self) -> Iterator[Packet]:
        """Yield what the camera sends, until `close`. Raises DeviceError if it is not there."""
        return numbered(self._packets(), self._name)

    def close(self) -> None:
        """Stop within a moment; may be called twice and from any thread."""
        self._closed.set()

    def _packets(self) -> Iterator[Packet]:
        try:
            device = self._library.open(
                self._settings, iterator_timeout=_POLL_S, serial=self._serial
            )
        except Exception as error:
            raise DeviceError(f"no event camera opens: {_said(error)}", hint=_HINT) from error
        try:
            size = device.properties()
            clock, dropped = HostClock(), 0
            while not self._closed.is_set():
                status, packet = next(device)
                if packet is not None:
                    yield from decoded(packet, (size.width, size.height), clock)
                if status.ring is not None and status.ring.dropped_packets > dropped:
                    dropped = status.ring.dropped_packets
                    log.warning("%s: %d USB packets were dropped so far", self._name, dropped)
        except (RuntimeError, StopIteration) as error:
            raise DeviceError(f"the event camera was lost: {error}", hint=_HINT) from error
        finally:
            device.close()


class DvCamera:
    """An iniVation camera (DAVIS, DVXplorer, DVS128) by dv-processing.

    serial: which of several. Raises ConfigError if the library is missing.
    """

    def __init__(self, *, name: str = "event-camera", serial: str | None = None) -> None:
        self._library = library("dv_processing")
        self._name = name
        self._serial = serial
        self._closed = threading.Event()

    def packets(self) -> Iterator[Packet]:
        """Yield what the camera sends, until `close`. Raises DeviceError if it is not there."""
        return numbered(self._packets(), self._name)

    def close(self) -> None:
        """Stop within a moment; may be called twice and from any thread."""
        self._closed.set()

    def _packets(self) -> Iterator[Packet]:
        open_camera = self._library.io.camera.open
        try:
            camera = open_camera(self._serial) if self._serial else open_camera()
        except Exception as error:
            raise DeviceError(f"no iniVation camera opens: {_said(error)}", hint=_HINT) from error
        yield from read_dv(camera, HostClock(), self._closed)
        if not self._closed.is_set():
            raise DeviceError("the iniVation camera was lost", hint=_HINT)


class HostClock:
    """Moves a camera's time to CLOCK_MONOTONIC by a shift that is fixed at the first packet."""

    def __init__(self, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._now_ns = now_ns
        self._shift_us: int | None = None

    def shift_us(self, newest_us: int) -> int:
        """What to add to the camera's times. newest_us: the last one of a packet just received."""
        if self._shift_us is None:
            self._shift_us = self._now_ns() // 1000 - newest_us
        return self._shift_us


def decoded(packet: Any, size_px: tuple[int, int], clock: HostClock) -> Iterator[Packet]:
    """The events and pictures of a packet of neuromorphic-drivers, on the host's clock."""
    table = packet.polarity_events
    if table is not None and len(table):
        yield _events(table["t"], table["x"], table["y"], table["on"], size_px, clock)
    for picture in getattr(packet, "frames", ()):
        shift_us = clock.shift_us(picture.t)
        begin_us = picture.start_t if picture.exposure_start_t is None else picture.exposure_start_t
        end_us = picture.t if picture.exposure_end_t is None else picture.exposure_end_t
        pixels = (picture.pixels >> 8).astype(np.uint8)
        yield frame(pixels, (begin_us + shift_us) * 1000, (end_us + shift_us) * 1000)


def read_dv(source: Any, clock: HostClock, closed: threading.Event) -> Iterator[Events | Frame]:
    """Events and pictures of a dv-processing input as they come, on the host's clock."""
    size_px = tuple(source.getEventResolution())
    while not closed.is_set() and source.isRunningAny():
        store = source.getNextEventBatch()
        if store is not None and not store.isEmpty():
            table = store.numpy()
            columns = (table["timestamp"], table["x"], table["y"], table["polarity"])
            yield _events(*columns, size_px, clock)
        picture = source.getNextFrame() if source.isFrameStreamAvailable() else None
        if picture is not None:
            begin_ns = (picture.timestamp + clock.shift_us(picture.timestamp)) * 1000
            image = picture.image if picture.image.ndim == 2 else picture.image[:, :, ::-1]
            exposure_ns = round(picture.exposure.total_seconds() * 1e9)
            yield frame(image, begin_ns, begin_ns + exposure_ns)
        if store is None and picture is None:
            closed.wait(0.001)


def list_cameras() -> list[str]:
    """What the two libraries see on USB, a sentence each; also where they see nothing."""
    return [
        *_listed("neuromorphic_drivers", _of_neuromorphic_drivers),
        *_listed("dv_processing", _of_dv_processing),
    ]


def library(module: str) -> Any:
    """Import a camera library. Raises ConfigError that names the extra."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"this camera needs {module.replace('_', '-')}, which is not installed",
            hint="pip install 'edgeperc[cameras]'",
        ) from error


def _events(t: Any, x: Any, y: Any, p: Any, size_px: tuple[int, int], clock: HostClock) -> Events:
    times = t.astype(np.int64)
    return events(times + clock.shift_us(int(times[-1])), x, y, p, size_px)


def _settings(
    nd: Any, model: Model | None, biases: dict[str, int], settings: dict[str, int]
) -> Any:
    """A configuration of neuromorphic-drivers. Raises ConfigError for what a model has not."""
    if model is None:
        if biases or settings:
            raise ConfigError("settings are of one model: name it in the key 'model'")
        return None
    module = getattr(nd, MODULES[model])
    known = {field.name for field in dataclasses.fields(module.Biases)}
    if unknown := sorted(biases.keys() - known):
        raise ConfigError(
            f"a {model} has no bias '{unknown[0]}'", hint=f"it has {', '.join(sorted(known))}"
        )
    fields = {field.name for field in dataclasses.fields(module.Configuration)}
    if unknown := sorted(settings.keys() - fields):
        raise ConfigError(f"a {model} has no {unknown[0]}: it takes no pictures")
    return module.Configuration(biases=module.Biases(**biases), **settings)


def _said(error: Exception) -> str:
    """What a library says, in one line: dv-processing adds its stack, and says nothing if empty."""
    if isinstance(error, IndexError):
        return "none is connected"
    lines = str(error).splitlines() or [type(error).__name__]
    told = [line for line in lines if line.startswith("RuntimeError: ")]
    return told[0].removeprefix("RuntimeError: ") if told else f"{lines[0]} (from the USB library)"


def _listed(module: str, look: Callable[[Any], list[str]]) -> list[str]:
    title = module.replace("_", "-")
    try:
        found = look(library(module))
    except ConfigError as error:
        return [f"{title}: not installed; {error.hint}"]
    except Exception as error:
        return [f"{title}: cannot look for cameras: {_said(error)}"]
    return [f"{title}: {camera}" for camera in found] or [f"{title}: sees no camera"]


def _of_neuromorphic_drivers(nd: Any) -> list[str]:
    return [
        f"{found.name.value}, serial {found.serial or 'unknown'}, {found.connection.value}"
        + (f": {found.error}" if found.error else "")
        for found in nd.list_devices()
    ]


def _of_dv_processing(dv: Any) -> list[str]:
    return [
        f"{found.cameraModel.name}, serial {found.serialNumber}"
        for found in dv.io.camera.discover()
    ]
