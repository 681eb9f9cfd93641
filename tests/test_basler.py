"""Basler cameras, as pylon emulates them."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice, pairwise, repeat
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgeperc.cli import shelves
from edgeperc.drivers import basler
from edgeperc.drivers.basler import Basler, Settings, _set_region, list_cameras
from edgeperc.errors import ConfigError, DeviceError
from edgeperc.packet import Frame, Packet
from edgeperc.plugin import prepare

pytestmark = pytest.mark.usefixtures("emulated")

SMALL = {"width_px": 224, "height_px": 160, "exposure_us": 1000.0}
MS = 10**6


def take(camera: Basler, count: int, *, pause_s: float = 0.0) -> list[Frame]:
    """The first frames of a camera, which is then closed."""
    frames: list[Packet] = []
    for packet in islice(camera.packets(), count):
        frames.append(packet)
        time.sleep(pause_s)
    camera.close()
    assert all(isinstance(frame, Frame) for frame in frames)
    return frames  # type: ignore[return-value]


@pytest.fixture
def crops(tmp_path: Path) -> list[np.ndarray[Any, Any]]:
    """Pictures of 90 × 60 px in a folder, all different."""
    random = np.random.default_rng(3)
    pictures = [random.integers(0, 255, (60, 90), dtype=np.uint8) for _ in range(4)]
    for number, picture in enumerate(pictures):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
    return pictures


def test_a_free_camera_gives_frames_with_their_exposures() -> None:
    before_ns = time.monotonic_ns()
    frames = take(Basler(name="wide", rate_hz=120, **SMALL), 30)
    assert {frame.stamp.source for frame in frames} == {"wide"}
    assert frames[0].image.shape == (160, 224)
    assert frames[0].image.std() > 10
    assert all(frame.stamp.end_ns - frame.stamp.start_ns == MS for frame in frames)
    assert before_ns < frames[0].stamp.start_ns
    assert frames[-1].stamp.end_ns < time.monotonic_ns()


def test_which_part_of_the_sensor() -> None:
    size = {"width_px": 32, "height_px": 16, "trigger": "software"}
    whole = take(Basler(**{**size, "width_px": 256, "height_px": 256}), 1)[0].image
    part = take(Basler(offset_x_px=200, offset_y_px=100, **size), 1)[0].image
    assert part.shape == (16, 32)
    assert (whole[100:116, 200:232] - part).std() < 1e-9  # the picture moves, by its brightness
    camera = Basler(offset_x_px=200, offset_y_px=100, **size)
    settings = Settings(camera._camera.GetNodeMap(), camera._genicam, "it")
    _set_region(settings, 4096, 4096, None, None)
    assert (settings.read("OffsetX"), settings.read("OffsetY")) == (0, 0)
    camera.close()


def test_a_slow_reader_gets_the_newest_and_sees_what_it_missed(
    crops: list[np.ndarray[Any, Any]], tmp_path: Path
) -> None:
    camera = Basler(image_folder=str(tmp_path), rate_hz=200, exposure_us=1000.0)
    frames = take(camera, 8, pause_s=0.02)
    seqs = [frame.stamp.seq for frame in frames]
    assert all(later > sooner for sooner, later in pairwise(seqs))
    assert seqs[-1] > 10
    for frame in frames:  # the folder in a loop: a picture tells its number
        assert (frame.image == crops[frame.stamp.seq % 4]).all()


def test_pictures_of_a_folder_on_request(crops: list[np.ndarray[Any, Any]], tmp_path: Path) -> None:
    camera = Basler(name="gaze", image_folder=str(tmp_path), trigger="software")
    frames = []
    for _ in range(6):
        asked_ns = time.monotonic_ns()
        frames.append(camera.expose())
        assert asked_ns <= frames[-1].stamp.end_ns <= time.monotonic_ns()
        time.sleep(0.02)  # nothing is taken meanwhile
    camera.close()
    assert [(frame.stamp.source, frame.stamp.seq) for frame in frames] == [
        ("gaze", k) for k in range(6)
    ]
    assert all((frame.image == crops[k % 4]).all() for k, frame in enumerate(frames))
    assert not frames[0].image.flags.writeable


@pytest.mark.parametrize("pixel_format", ["RGB8Packed", "BGR8Packed", "BayerRG8", "BayerGB8"])
def test_colours_come_as_rgb(pixel_format: str, tmp_path: Path) -> None:
    rgb = (200, 120, 30)
    cv2.imwrite(str(tmp_path / "0.png"), np.full((40, 60, 3), rgb[::-1], np.uint8))
    image = take(Basler(image_folder=str(tmp_path), pixel_format=pixel_format), 1)[0].image
    assert image.shape == (40, 60, 3)
    assert np.abs(image.mean(axis=(0, 1)) - rgb).max() < 2


def test_deep_grey_comes_in_8_bits() -> None:
    same = {"width_px": 64, "height_px": 64, "trigger": "software"}
    shallow = take(Basler(**same), 1)[0].image
    deep = take(Basler(pixel_format="Mono12", **same), 1)[0].image
    assert deep.dtype == np.uint8
    assert deep.shape == shallow.shape


def test_packets_of_a_triggered_camera_keep_its_rate() -> None:
    camera = Basler(trigger="software", rate_hz=40, **SMALL)
    frames = take(camera, 5)
    assert [frame.stamp.seq for frame in frames] == list(range(5))
    # As fast as it goes would be 10 ms; where the machine dawdles, a step or two are caught up.
    assert frames[-1].stamp.end_ns - frames[0].stamp.end_ns > 2 * 20 * MS


def test_a_free_camera_answers_with_what_it_sees_from_then_on(
    crops: list[np.ndarray[Any, Any]], tmp_path: Path
) -> None:
    camera = Basler(image_folder=str(tmp_path), rate_hz=20, exposure_us=100.0)
    for _ in range(3):
        packet = next(camera.packets())
        time.sleep(0.09)  # one picture more is there already, and the next comes in 10 ms
        assert camera.expose().stamp.seq >= packet.stamp.seq + 2
    camera.close()


def test_a_picture_begun_before_it_was_asked_for_is_no_answer() -> None:
    camera = Basler(rate_hz=10, exposure_us=60_000.0, width_px=64, height_px=48)
    next(camera.packets())
    time.sleep(0.06)  # the next is being exposed
    asked_ns = time.monotonic_ns()
    assert camera.expose().stamp.start_ns >= asked_ns
    camera.close()


def test_broken_pictures_are_left_out_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    camera = Basler(name="wide", rate_hz=100, **SMALL)
    packets = camera.packets()
    first = next(packets)
    for _ in range(2):
        camera._camera.ForceFailedBufferCount.Value = 3
        camera._camera.ForceFailedBuffer.Execute()
        list(islice(packets, 5))
    last = next(packets)
    camera.close()
    assert last.stamp.seq - first.stamp.seq >= 11 + 2 * 3
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "wide: a picture is left out: The buffer was incompletely" in caplog.messages[0]


def test_a_broken_picture_on_request_is_taken_again() -> None:
    camera = Basler(trigger="software", **SMALL)
    first = camera.expose()
    camera._camera.ForceFailedBufferCount.Value = 2
    camera._camera.ForceFailedBuffer.Execute()
    assert camera.expose().stamp.seq == first.stamp.seq + 3
    camera.close()


@pytest.mark.parametrize("trigger", ["free", "software", "line1"])
def test_a_pulled_cable_is_a_lost_device(trigger: Any) -> None:
    camera = Basler(serial="0815-0001", trigger=trigger, **SMALL)
    packets = camera.packets()
    if trigger != "line1":
        next(packets)
    camera._camera.FirePnPCallback.Execute()
    with pytest.raises(DeviceError, match="Basler Emulation 0815-0001: .*(gone|removed)$"):
        list(islice(packets, 500))
    with pytest.raises(DeviceError, match="closed"):
        camera.expose()
    camera.close()


def test_a_camera_that_refuses_is_lost_in_one_line() -> None:
    camera = Basler(**SMALL)
    camera._camera.DestroyDevice()  # pylon raises from here on
    with pytest.raises(DeviceError, match=r"^Basler Emulation \S+: \w.*\w$") as caught:
        next(camera.packets())
    assert "thrown" not in str(caught.value)
    camera.close()


def test_no_signal_on_line_1() -> None:
    camera = Basler(trigger="line1", deadline_s=0.3, **SMALL)
    with pytest.raises(DeviceError, match="no picture came for 0.3 s; does a signal come on line"):
        camera.expose()
    camera.close()


def test_a_missing_camera_is_told_which_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match="no Basler camera with serial 4711") as caught:
        Basler(serial="4711")
    assert caught.value.hint == "there is Emulation 0815-0000 and Emulation 0815-0001"
    with pytest.raises(DeviceError, match="of model acA720-520uc with serial 0815-0000"):
        Basler(model="acA720-520uc", serial="0815-0000")
    assert list_cameras() == ["pypylon: Emulation 0815-0000", "pypylon: Emulation 0815-0001"]
    monkeypatch.delenv("PYLON_CAMEMU")
    with pytest.raises(DeviceError, match="no Basler camera") as caught:
        Basler(model="Emulation")
    assert "plugged in" in caught.value.hint


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"width_px": 5000}, "width_px is 5000, Basler Emulation 0815-0000 takes 1 to 4096"),
        ({"pixel_format": "YUV"}, "pixel_format is YUV, .* takes Mono8, Mono10"),
        ({"rate_hz": 1e6}, "rate_hz is 1000000.0, .* takes 0.01 to 5000"),
        ({"exposure_us": 1.0}, "exposure_us is 1.0, .* takes 100 to 3e"),
        ({"gain": 90.0}, "gain is 90.0, .* takes 0 to 48"),
        ({"offset_x_px": 4096}, "offset_x_px is 4096, .* takes 0 to"),
        ({"image_folder": "nowhere"}, "nowhere: no such file"),
        ({"shutter": 3}, "unknown key 'shutter'"),
        ({"trigger": "line7"}, "trigger: invalid enum value 'line7'"),
    ],
)
def test_settings_that_it_does_not_take(keys: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=f"rig.toml \\[sensors.wide\\].*{complaint}"):
        made({"driver": "basler", "serial": "0815-0000", **keys})


def test_a_camera_with_wrong_settings_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []

    def spied(*asked: Any) -> Any:
        opened.append(real(*asked))
        return opened[-1]

    real = basler._opened
    monkeypatch.setattr(basler, "_opened", spied)
    with pytest.raises(ConfigError):
        Basler(width_px=5000)
    assert not opened[0].IsOpen()


def made(table: dict[str, Any]) -> Any:
    injected = {"name": "wide", "clock": None}
    where = "rig.toml [sensors.wide]"
    return prepare(table, kind="driver", where=where, folder=Path(), injected=injected)()


class Lacking:
    """Settings of the emulated camera, without some."""

    def __init__(self, nodes: Any, *names: str) -> None:
        self.nodes = nodes
        self.names = names

    def GetNode(self, name: str) -> Any:  # noqa: N802
        return self.nodes.GetNode("NoSuchNode" if name in self.names else name)


def test_cameras_differ_in_the_names_of_settings() -> None:
    camera = Basler(**SMALL)
    nodes, genicam = camera._camera.GetNodeMap(), camera._genicam
    usb = Settings(Lacking(nodes, "ExposureTimeAbs"), genicam, "Basler acA")
    usb.write("exposure_us", 3000.0, "ExposureTimeAbs", "ExposureTime")
    assert usb.read("ExposureTimeAbs", "ExposureTime") == nodes.GetNode("ExposureTime").GetValue()
    gige = Settings(Lacking(nodes, "Gain"), genicam, "Basler acA")
    gige.write("gain", 299.6, "Gain", "GainRaw")
    assert nodes.GetNode("GainRaw").GetValue() == 300
    none = Settings(Lacking(nodes, "Gain", "GainRaw"), genicam, "Basler acA")
    assert none.read("Gain", "GainRaw") is None
    with pytest.raises(ConfigError, match="gain: Basler acA has no Gain or GainRaw"):
        none.write("gain", 3.0, "Gain", "GainRaw")
    camera.close()


class Altered:
    """A grab result in which some fields are another camera's."""

    def __init__(self, result: Any, fields: dict[str, Any]) -> None:
        self.result = result
        self.fields = fields

    def __getattr__(self, name: str) -> Any:
        return self.fields[name] if name in self.fields else getattr(self.result, name)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self.result.Release()


def alter(camera: Basler, fields: Iterator[dict[str, Any]]) -> None:
    fetch = camera._fetch

    def altered() -> Any:
        result = fetch()
        return None if result is None else Altered(result, next(fields))

    camera._fetch = altered  # type: ignore[method-assign]


def test_a_camera_with_a_clock_says_when_it_exposed() -> None:
    camera = Basler(trigger="software", **SMALL)
    camera._tick_ns = 8.0
    alter(camera, ({"TimeStamp": 10**12 + ticks} for ticks in (0, 125_000, 375_000)))
    asked_ns = time.monotonic_ns()
    first, second, third = (camera.expose().stamp for _ in range(3))
    camera.close()
    assert asked_ns < first.end_ns < time.monotonic_ns()
    assert second.start_ns - first.start_ns <= 1.0001 * MS  # drift is allowed for
    assert third.start_ns - second.start_ns == pytest.approx(2 * MS, rel=1e-3)
    assert third.end_ns - third.start_ns == MS


def test_of_a_camera_that_does_not_count_pylon_knows_what_was_missed(
    crops: list[np.ndarray[Any, Any]], tmp_path: Path
) -> None:
    camera = Basler(image_folder=str(tmp_path), rate_hz=100, exposure_us=1000.0)
    alter(camera, repeat({"BlockID": (1 << 64) - 1}))
    packets = camera.packets()
    frames = [next(packets)]
    camera._camera.ForceFailedBufferCount.Value = 3
    camera._camera.ForceFailedBuffer.Execute()
    frames += islice(packets, 3)
    time.sleep(0.05)
    frames += islice(packets, 3)
    camera.close()
    assert frames[-1].stamp.seq >= 6 + 3 + 2
    for frame in frames:
        assert (frame.image == crops[frame.stamp.seq % 4]).all()


def test_close_does_not_wait_for_a_trigger() -> None:
    camera = Basler(trigger="line1", deadline_s=60.0, **SMALL)
    frames: list[Packet] = []
    thread = threading.Thread(target=lambda: frames.extend(camera.packets()))
    thread.start()
    time.sleep(0.05)
    camera.close()
    thread.join(30)
    assert not thread.is_alive()
    assert not frames


def test_without_pypylon_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pypylon.pylon", None)
    with pytest.raises(ConfigError, match="needs pypylon, which is not installed") as caught:
        Basler()
    assert caught.value.hint == "pip install 'edgeperc[basler]'"
    assert list_cameras() == ["pypylon: not installed; pip install 'edgeperc[basler]'"]


def test_the_command_line_lists_it(capsys: pytest.CaptureFixture[str]) -> None:
    shelves.devices()
    listed = capsys.readouterr().out
    assert "pypylon: Emulation 0815-0001" in listed
    assert "aravis: " in listed
