"""Basler cameras by pypylon, also the cameras that pylon emulates; real ones not run so far.

`PYLON_CAMEMU=2` in the environment gives two emulated cameras, 0815-0000 and 0815-0001.
"""

from __future__ import annotations

import importlib
import logging
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Annotated, Any, Literal

import msgspec

from edgeperc.drivers.camera_clock import CameraClock, PictureCount
from edgeperc.drivers.formats.packets import frame
from edgeperc.drivers.replay import Pixels, Seconds, existing
from edgeperc.errors import ConfigError, DeviceError
from edgeperc.packet import Frame, Packet

log = logging.getLogger("edgeperc")

Offset = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Trigger = Literal["free", "software", "line1"]
_POLL_MS = 100
_HINT = "is it plugged in, has it power, and does no other program use it?"


class Basler:
    """A Basler camera, GigE or USB: frames by themselves, on request, or by a signal on line 1.

    serial, model: which camera; None takes the first. What is left out stays as the camera has it,
    but a size without offsets lies in the sensor's corner. gain: in dB, or in the camera's own
    units where it knows no dB. pixel_format: by the camera's name; colours and Bayer patterns
    become RGB, deeper grey becomes 8 bits. trigger: "free" runs at rate_hz; "software" exposes when
    `expose` or `packets` asks, the latter at rate_hz or as fast as it goes; "line1" when a mirror's
    board says so. image_folder: an emulated camera plays the pictures of this folder, in their own
    size. deadline_s: after so long without a picture the camera is given up.

    Frames are newest first: whatever was not fetched in time, or came incompletely, leaves a gap in
    seq. Times are the camera's moved to CLOCK_MONOTONIC; a camera without a clock, such as an
    emulated one, is taken to have ended its exposure when the picture was fetched.

    Raises DeviceError if the camera is not there, ConfigError for a setting that it does not take.
    """

    def __init__(
        self,
        *,
        name: str = "basler",
        serial: str | None = None,
        model: str | None = None,
        width_px: Pixels | None = None,
        height_px: Pixels | None = None,
        offset_x_px: Offset | None = None,
        offset_y_px: Offset | None = None,
        rate_hz: Positive | None = None,
        exposure_us: Positive | None = None,
        gain: Annotated[float, msgspec.Meta(ge=0)] | None = None,
        pixel_format: str = "Mono8",
        trigger: Trigger = "free",
        image_folder: str | None = None,
        deadline_s: Seconds = 2.0,
    ) -> None:
        self._pylon, self._genicam = library()
        self._name = name
        self._rate_hz = rate_hz
        self._trigger = trigger
        self._deadline_s = deadline_s
        self._lock = threading.Lock()  # held while the camera is spoken to
        self._closed = threading.Event()
        self._clock = CameraClock()
        self._count = PictureCount()
        self._missed = 0
        self._is_told = False
        self._camera = _opened(self._pylon, self._genicam, serial, model)
        self._label = f"Basler {_called(self._camera.GetDeviceInfo())}"
        settings = Settings(self._camera.GetNodeMap(), self._genicam, self._label)
        place = (width_px, height_px, offset_x_px, offset_y_px)
        try:
            with self._speaking():
                settings.write("pixel_format", pixel_format, "PixelFormat")
                _set_region(settings, *place)
                _set_light(settings, exposure_us, gain)
                _set_trigger(settings, trigger, rate_hz)
                if image_folder:
                    _set_folder(settings, str(existing(image_folder).resolve()))
                exposure_us = settings.read("ExposureTimeAbs", "ExposureTime") or 0
                ticks_hz = settings.read("GevTimestampTickFrequency") or 1e9
        except BaseException:
            self.close()
            raise
        self._exposure_ns = round(1000 * exposure_us)
        self._tick_ns = 1e9 / ticks_hz
        self._converter = _converter(self._pylon, pixel_format)

    def packets(self) -> Iterator[Packet]:
        """Yield frames until `close`. Raises DeviceError when the camera is lost."""
        due_s = time.monotonic()
        while (picture := self._next()) is not None:
            yield picture
            if self._trigger == "software" and self._rate_hz:
                due_s = max(due_s + 1 / self._rate_hz, time.monotonic())
                self._closed.wait(due_s - time.monotonic())

    def expose(self) -> Frame:
        """Take one picture and fetch it; used from one thread.

        With trigger "free", the first picture whose exposure begins from now on; with "line1", the
        next one. Raises DeviceError if none comes.
        """
        if self._trigger == "free":
            self._forget()
        asked_ns = time.monotonic_ns()
        while (picture := self._next()) is not None:
            if self._trigger != "free" or picture.stamp.start_ns >= asked_ns:
                return picture
        raise DeviceError(f"{self._label}: it was closed")

    def close(self) -> None:
        """Release the camera, within a moment; may be called twice and from any thread."""
        self._closed.set()
        with self._lock, suppress(self._genicam.GenericException):
            self._camera.Close()
            self._camera.DestroyDevice()

    def _next(self) -> Frame | None:
        """The next whole picture; None once closed. One that comes broken is asked for again."""
        is_asked = self._trigger != "software"
        until_s = time.monotonic() + self._deadline_s
        while time.monotonic() < until_s:
            with self._lock, self._speaking():
                if self._closed.is_set():
                    return None
                if not self._camera.IsGrabbing():
                    self._camera.StartGrabbing(self._pylon.GrabStrategy_LatestImageOnly)
                is_asked = is_asked or self._ask()
                result = self._fetch() if is_asked else None
                picture = None if result is None else self._picture(result)
            if picture:
                return picture
            if result is not None:  # it is false by now, being released
                is_asked = self._trigger != "software"
        signal = "; does a signal come on line 1?" if self._trigger == "line1" else ""
        raise self._lost(f"no picture came for {self._deadline_s:g} s{signal}")

    def _ask(self) -> bool:
        """Trigger, if the camera is ready for it."""
        wait = self._pylon.TimeoutHandling_Return
        if self._camera.CanWaitForFrameTriggerReady() and not (
            self._camera.WaitForFrameTriggerReady(_POLL_MS, wait)
        ):
            return False
        self._camera.ExecuteSoftwareTrigger()
        return True

    def _forget(self) -> None:
        """Take away a picture that waits: it was seen before it was asked for."""
        with self._lock, self._speaking():
            if self._closed.is_set() or not self._camera.IsGrabbing():
                return
            if (result := self._fetch(wait_ms=0)) is not None:
                self._picture(result)

    def _fetch(self, *, wait_ms: int = _POLL_MS) -> Any:
        """A grab result, or None if there is none yet."""
        result = self._camera.RetrieveResult(wait_ms, self._pylon.TimeoutHandling_Return)
        if self._camera.IsCameraDeviceRemoved():
            raise self._lost("the camera is gone")
        return result if result.IsValid() else None

    def _picture(self, result: Any) -> Frame | None:
        """The frame of a grab result; None, and said once, if the result is not whole."""
        arrived_ns = time.monotonic_ns()
        with result:
            self._missed += result.GetNumberOfSkippedImages()
            if not result.GrabSucceeded():
                self._missed += 1
                if not self._is_told:
                    said = result.GetErrorDescription()
                    log.warning("%s: a picture is left out: %s", self._name, said)
                    self._is_told = True
                return None
            image = self._converter.Convert(result) if self._converter else result
            start_ns = arrived_ns - self._exposure_ns
            if result.TimeStamp:
                start_ns = self._clock.start_ns(round(result.TimeStamp * self._tick_ns), start_ns)
            seq = self._count.seq(result.BlockID, missed=self._missed)
            self._missed = 0
            picture = frame(image.GetArray(), start_ns, start_ns + self._exposure_ns, seq=seq)
        return replace(picture, stamp=replace(picture.stamp, source=self._name))

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        """Turn what pylon raises into a DeviceError of one line."""
        try:
            yield
        except self._genicam.GenericException as error:
            raise self._lost(_said(error)) from error

    def _lost(self, what: str) -> DeviceError:
        self._closed.set()  # a picture that comes after all must not answer the next request
        return DeviceError(f"{self._label}: {what}", hint=_HINT)


class Settings:
    """A camera's settings by the names of GenICam, of which GigE and USB cameras have different."""

    def __init__(self, nodes: Any, genicam: Any, label: str) -> None:
        self._nodes = nodes
        self._genicam = genicam
        self._label = label

    def has(self, name: str) -> bool:
        """Whether the camera has it."""
        return bool(self._genicam.IsAvailable(self._nodes.GetNode(name)))

    def read(self, *names: str) -> float | None:
        """The value of the first that the camera has."""
        name = next(filter(self.has, names), None)
        return float(self._nodes.GetNode(name).GetValue()) if name else None

    def write(self, key: str, value: bool | float | str | None, *names: str) -> None:
        """Change the first that the camera has; None leaves it as it is.

        key: what the operator calls it. Raises ConfigError that says what the camera takes.
        """
        if value is None:
            return
        name = next(filter(self.has, names), None)
        if name is None:
            raise ConfigError(f"{key}: {self._label} has no {' or '.join(names)}")
        node = self._nodes.GetNode(name)
        try:
            node.SetValue(round(float(value)) if name.endswith("Raw") else value)
        except self._genicam.GenericException as error:
            takes = _range(node) or _said(error)
            raise ConfigError(f"{key} is {value}, {self._label} takes {takes}") from error


def list_cameras() -> list[str]:
    """What pylon sees, a sentence each; also where it sees nothing."""
    try:
        pylon, _ = library()
        found = [_called(info) for info in pylon.TlFactory.GetInstance().EnumerateDevices()]
    except ConfigError as error:
        return [f"pypylon: not installed; {error.hint}"]
    return [f"pypylon: {camera}" for camera in found] or ["pypylon: sees no camera"]


def library() -> tuple[Any, Any]:
    """Import pylon and genicam of pypylon. Raises ConfigError that names the extra."""
    try:
        return importlib.import_module("pypylon.pylon"), importlib.import_module("pypylon.genicam")
    except ImportError as error:
        raise ConfigError(
            "this camera needs pypylon, which is not installed",
            hint="pip install 'edgeperc[basler]'",
        ) from error


def _opened(pylon: Any, genicam: Any, serial: str | None, model: str | None) -> Any:
    """The first camera that fits, open. Raises DeviceError that names those that are there."""
    factory = pylon.TlFactory.GetInstance()
    try:
        there = factory.EnumerateDevices()
        for info in there:
            if serial in (None, info.GetSerialNumber()) and model in (None, info.GetModelName()):
                camera = pylon.InstantCamera(factory.CreateDevice(info))
                camera.Open()
                return camera
    except genicam.GenericException as error:
        raise DeviceError(f"the camera does not open: {_said(error)}", hint=_HINT) from error
    wanted = [f"of model {model}"] * bool(model) + [f"with serial {serial}"] * bool(serial)
    names = " and ".join(_called(info) for info in there)
    raise DeviceError(
        " ".join(["there is no Basler camera", *wanted]),
        hint=f"there is {names}" if names else _HINT,
    )


def _set_region(
    settings: Settings, width: int | None, height: int | None, x: int | None, y: int | None
) -> None:
    if width or height:
        settings.write("offset_x_px", 0, "OffsetX")  # leaves room for any size
        settings.write("offset_y_px", 0, "OffsetY")
    settings.write("width_px", width, "Width")
    settings.write("height_px", height, "Height")
    settings.write("offset_x_px", x, "OffsetX")
    settings.write("offset_y_px", y, "OffsetY")


def _set_light(settings: Settings, exposure_us: float | None, gain: float | None) -> None:
    for value, automatic in ((exposure_us, "ExposureAuto"), (gain, "GainAuto")):
        if value is not None and settings.has(automatic):
            settings.write(automatic, "Off", automatic)
    settings.write("exposure_us", exposure_us, "ExposureTimeAbs", "ExposureTime")
    settings.write("gain", gain, "Gain", "GainRaw")


def _set_trigger(settings: Settings, trigger: Trigger, rate_hz: float | None) -> None:
    if trigger != "free":  # pylon has switched all triggers off when it opened the camera
        source = {"software": "Software", "line1": "Line1"}[trigger]
        settings.write("trigger", "FrameStart", "TriggerSelector")
        settings.write("trigger", "On", "TriggerMode")
        settings.write("trigger", source, "TriggerSource")
    elif rate_hz is not None:
        if settings.has("AcquisitionFrameRateEnable"):
            settings.write("rate_hz", True, "AcquisitionFrameRateEnable")
        settings.write("rate_hz", rate_hz, "AcquisitionFrameRateAbs", "AcquisitionFrameRate")


def _set_folder(settings: Settings, folder: str) -> None:
    settings.write("image_folder", "Off", "TestImageSelector")
    settings.write("image_folder", folder, "ImageFilename")
    settings.write("image_folder", "On", "ImageFileMode")


def _converter(pylon: Any, pixel_format: str) -> Any:
    """What makes 8 bits of a format, grey or RGB; None for one that needs nothing."""
    if pixel_format == "Mono8":
        return None
    converter = pylon.ImageFormatConverter()
    grey = pixel_format.startswith("Mono")
    converter.OutputPixelFormat = pylon.PixelType_Mono8 if grey else pylon.PixelType_RGB8packed
    converter.InconvertibleEdgeHandling.SetValue("Extend")  # else a Bayer picture's edges are black
    return converter


def _called(info: Any) -> str:
    return f"{info.GetModelName()} {info.GetSerialNumber()}"


def _range(node: Any) -> str:
    """What values a setting takes; empty for one that has no range."""
    if hasattr(node, "Symbolics"):
        return ", ".join(node.Symbolics)
    if not hasattr(node, "Min"):
        return ""
    step = f" in steps of {node.Inc}" if isinstance(node.Min, int) and node.Inc > 1 else ""
    return f"{node.Min:g} to {node.Max:g}{step}"


def _said(error: Exception) -> str:
    """What pylon says, without where in its sources."""
    words = re.split(r" : \w+ thrown", str(error))[0].split()
    return " ".join(words).rstrip(".")
