"""Live event cameras, as far as that goes without one: settings, errors, and decoding."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeperc.config import Rig, load
from edgeperc.drivers.event_camera import (
    DvCamera,
    EventCamera,
    HostClock,
    decoded,
    list_cameras,
    read_dv,
)
from edgeperc.drivers.formats.packets import UntilError
from edgeperc.errors import ConfigError, DeviceError
from edgeperc.packet import Events, Frame
from edgeperc.plugin import prepare
from edgeperc.validate import Validator

DEVICES = Path(__file__).parents[1] / "devices"

nd = pytest.importorskip("neuromorphic_drivers")
dv = pytest.importorskip("dv_processing")
no_camera = pytest.mark.skipif(
    any("serial" in line for line in list_cameras()), reason="there is a camera"
)


@no_camera
@pytest.mark.parametrize(
    "make",
    [
        EventCamera,
        lambda: EventCamera(model="davis346", serial="0001", biases={"diffbn": 1000}),
        DvCamera,
        lambda: DvCamera(serial="0001"),
    ],
)
def test_no_camera_is_one_sentence_with_a_hint(make: Callable[[], Any]) -> None:
    with pytest.raises(DeviceError, match=r"no .*camera opens: \w") as caught:
        next(make().packets())
    assert "\n" not in str(caught.value)
    assert "udev" in caught.value.hint


@pytest.mark.parametrize(
    ("driver", "module"), [(EventCamera, "neuromorphic_drivers"), (DvCamera, "dv_processing")]
)
def test_a_missing_library_names_the_extra(
    driver: Callable[[], Any], module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=f"needs {module.replace('_', '-')}") as caught:
        driver()
    assert caught.value.hint == "pip install 'edgeperc[cameras]'"
    assert f"{module.replace('_', '-')}: not installed" in " ".join(list_cameras())


@no_camera
def test_the_list_of_cameras_is_sentences() -> None:
    lines = list_cameras()
    assert [line.partition(":")[0] for line in lines] == ["neuromorphic-drivers", "dv-processing"]
    assert all("\n" not in line for line in lines)


def test_settings_that_a_model_has_not_are_refused() -> None:
    with pytest.raises(ConfigError, match="a evk4 has no bias 'diffbn'") as caught:
        EventCamera(model="evk4", biases={"diffbn": 1})
    assert "diff_on" in caught.value.hint
    with pytest.raises(ConfigError, match="a dvxplorer has no exposure_us"):
        EventCamera(model="dvxplorer", exposure_us=100)
    with pytest.raises(ConfigError, match="name it in the key 'model'"):
        EventCamera(biases={"diffbn": 1})


@pytest.mark.parametrize("name", ["davis346", "dvxplorer", "evk3", "evk4"])
def test_a_rig_file_builds_its_camera(name: str) -> None:
    path = DEVICES / f"{name}.toml"
    rig = load(path, Rig)
    make = prepare(
        rig.sensors["dvs"],
        kind="driver",
        where=str(path),
        folder=path.parent,
        injected={"name": "dvs", "clock": None},
    )
    camera = make()
    assert isinstance(camera, EventCamera)
    assert camera._settings.type().endswith({"evk3": "evk3_hd"}.get(name, name))
    assert "not run on hardware" in rig.summary


def test_a_packet_of_a_davis_comes_on_the_hosts_clock() -> None:
    table = np.zeros(3, [("t", "<u8"), ("x", "<u2"), ("y", "<u2"), (("p", "on"), "?")])
    table["t"], table["x"], table["on"] = [100, 200, 300], [1, 2, 3], [True, False, True]
    picture = nd.packet.Frame()
    picture.start_t, picture.exposure_start_t, picture.exposure_end_t, picture.t = 50, 150, 250, 350
    picture.pixels = np.full((260, 346), 200 << 8, np.uint16)
    packet = nd.packet.Davis346Packet()
    packet.polarity_events, packet.frames = table, [picture]
    clock = HostClock(now_ns=lambda: 7_000_000_000)
    first, frame = decoded(packet, (346, 260), clock)
    assert isinstance(first, Events)
    assert isinstance(frame, Frame)
    assert first.t.tolist() == [6_999_800, 6_999_900, 7_000_000]
    assert first.p.tolist() == [True, False, True]
    assert (first.width_px, first.height_px) == (346, 260)
    assert (frame.stamp.start_ns, frame.stamp.end_ns) == (6_999_850_000, 6_999_950_000)
    assert (frame.image == 200).all()
    packet.polarity_events, packet.frames = None, []
    assert list(decoded(packet, (346, 260), clock)) == []
    evk = nd.packet.Evt3Packet()
    evk.polarity_events = table
    (again,) = decoded(evk, (1280, 720), clock)
    assert again.stamp.end_ns == 7_000_000_000


def test_a_dv_input_is_read_as_a_camera_is(scene: Any, written: Callable[[str], Path]) -> None:
    """A recording is the same kind of input to dv-processing as a camera."""
    recording = dv.io.MonoCameraRecording(str(written("aedat4")))
    clock = HostClock(now_ns=lambda: 10**15)
    packets = list(read_dv(recording, clock, threading.Event()))
    moved = Validator("drop").stream(packets)
    parts = [packet for packet in moved if isinstance(packet, Events)]
    t = np.concatenate([part.t for part in parts])
    first_packet = scene.t < scene.t[0] + 10_000
    assert (t == scene.t + (10**12 - scene.t[first_packet][-1])).all()
    assert (np.concatenate([part.x for part in parts]) == scene.x).all()
    assert (np.concatenate([part.p for part in parts]) == scene.p).all()
    frames = [packet for packet in packets if isinstance(packet, Frame)]
    exposures = [(f.stamp.end_ns - f.stamp.start_ns) // 1000 for f in frames]
    assert exposures == [end - start for start, end in scene.exposures_us]
    assert all((f.image == image).all() for f, image in zip(frames, scene.images, strict=True))


def test_close_ends_the_reading(written: Callable[[str], Path]) -> None:
    closed = threading.Event()
    recording = dv.io.MonoCameraRecording(str(written("aedat4")))
    packets = read_dv(recording, HostClock(), closed)
    assert len(list(itertools.islice(packets, 3))) == 3
    closed.set()
    assert len(list(packets)) <= 1
    camera = EventCamera()
    camera.close()
    camera.close()


class Cable:
    """What `neuromorphic_drivers.open` returns, until the cable is pulled."""

    def __init__(self, packets: list[Any]) -> None:
        self.packets = packets
        self.closed = False

    def properties(self) -> Any:
        return nd.prophesee_evk4.Properties()

    def __next__(self) -> Any:
        if not self.packets:
            raise RuntimeError("Pipe error")
        ring = nd.status.RingStatus(
            system_time=0.0,
            backlog=0,
            raw_packets=1,
            clutch_engaged=False,
            current_t=0,
            dropped_packets=2,
        )
        return nd.status.Status(system_time=0.0, ring=ring), self.packets.pop(0)

    def close(self) -> None:
        self.closed = True


def test_a_camera_sends_until_its_cable_is_pulled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    packet = nd.packet.Evt3Packet()
    packet.polarity_events = np.ones(3, [("t", "<u8"), ("x", "<u2"), ("y", "<u2"), ("on", "?")])
    cable = Cable([packet, None, packet])
    monkeypatch.setattr(nd, "open", lambda *_, **__: cable)
    packets = UntilError(EventCamera(name="eye").packets())
    received = list(packets)
    with pytest.raises(DeviceError, match="the event camera was lost: Pipe error"):
        packets.reraise()
    assert [(p.stamp.source, p.stamp.seq) for p in received] == [("eye", 0), ("eye", 1)]
    assert {(p.width_px, p.height_px) for p in received if isinstance(p, Events)} == {(1280, 720)}
    assert [record.message for record in caplog.records] == [
        "eye: 2 USB packets were dropped so far"
    ]
    assert cable.closed
