"""What every driver must do, whatever it drives.

A source that is the same each time joins by a line in DRIVERS, a live camera by one in LIVE.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest

from edgeperc.clock import ReplayClock
from edgeperc.drivers.basler import Basler
from edgeperc.drivers.galvo.twin import TwinMirror
from edgeperc.drivers.gige import Gige
from edgeperc.drivers.opencv import Video
from edgeperc.drivers.replay import Replay
from edgeperc.drivers.twin import Twin
from edgeperc.drivers.twin_search import TwinSearch
from edgeperc.drivers.twin_wide import TwinWide
from edgeperc.errors import DeviceError
from edgeperc.packet import Events, Frame, Packet, Sensor
from edgeperc.validate import Validator

Make = Callable[[], Sensor]


def replay(kind: str) -> Callable[[Any, Path], Sensor]:
    return lambda written, folder: Replay(str(written(kind)), name="cam")


def video(written: Any, folder: Path) -> Sensor:
    path = folder / "clip.avi"
    if not path.exists():
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
        for grey in range(40):
            writer.write(np.full((48, 64, 3), grey * 6, np.uint8))
        writer.release()
    return Video(str(path), name="cam")


def twin(written: Any, folder: Path) -> Sensor:
    return Twin(name="cam", clock=ReplayClock(None), duration_s=0.3)


def twin_wide(written: Any, folder: Path) -> Sensor:
    return TwinWide(name="cam", clock=ReplayClock(None), rate_hz=20.0, duration_s=0.5)


def twin_search(written: Any, folder: Path) -> Sensor:
    clock = ReplayClock(None)
    mirror = TwinMirror(now_ns=clock.now_ns)
    return TwinSearch(name="cam", clock=clock, mirror=mirror, duration_s=0.2)


DRIVERS = {
    **{kind: replay(kind) for kind in ("evt2", "evt3", "dat2", "es", "aedat4", "dsec", "mvsec")},
    **{kind: replay(kind) for kind in ("text_s", "ros1_dvs", "mcap")},
    "video": video,
    "twin": twin,
    "twin-wide": twin_wide,
    "twin-search": twin_search,
}


@pytest.fixture(params=DRIVERS)
def make(request: pytest.FixtureRequest, written: Any, tmp_path: Path) -> Make:
    return lambda: DRIVERS[request.param](written, tmp_path)


def content(packet: Packet) -> list[bytes]:
    if isinstance(packet, Frame):
        return [packet.image.tobytes()]
    return [column.tobytes() for column in (packet.t, packet.x, packet.y, packet.p)]


def test_packets_are_in_order_sound_and_the_same_each_time(make: Make) -> None:
    packets = list(make().packets())
    assert packets
    for kind in (Events, Frame):  # counted apart, so that a gap is a drop also for who takes one
        seqs = [packet.stamp.seq for packet in packets if isinstance(packet, kind)]
        assert seqs == list(range(len(seqs)))
    assert {packet.stamp.source for packet in packets} == {"cam"}
    ends_ns = [packet.stamp.end_ns for packet in packets]
    assert ends_ns == sorted(ends_ns)
    for packet in packets:
        assert packet.stamp.start_ns <= packet.stamp.end_ns
        arrays = [packet.t, packet.x, packet.p] if isinstance(packet, Events) else [packet.image]
        assert not any(array.flags.writeable for array in arrays)
        if isinstance(packet, Events) and len(packet):
            assert packet.stamp.start_ns <= packet.t[0] * 1000
            assert packet.t[-1] * 1000 <= packet.stamp.end_ns
    validator = Validator("raise")
    assert len(list(validator.stream(packets))) == len(packets)
    again = list(make().packets())
    assert [packet.stamp for packet in again] == [packet.stamp for packet in packets]
    assert all(content(a) == content(b) for a, b in zip(packets, again, strict=True))


def test_close_ends_it_from_any_thread_and_for_good(make: Make) -> None:
    sensor = make()
    begun, closed = threading.Event(), threading.Event()

    def consume() -> None:
        for _ in sensor.packets():
            begun.set()
            closed.wait(20)

    thread = threading.Thread(target=consume, daemon=True)
    thread.start()
    assert begun.wait(30)
    sensor.close()
    sensor.close()
    closed.set()
    thread.join(10)
    assert not thread.is_alive()
    assert list(sensor.packets()) == []


class Live(NamedTuple):
    """A live camera. make: opens it. pull: the cable."""

    make: Callable[[], Any]
    pull: Callable[[], None]


def basler(trigger: Any) -> Callable[[pytest.FixtureRequest], Live]:
    def there(request: pytest.FixtureRequest) -> Live:
        request.getfixturevalue("emulated")
        opened: list[Basler] = []

        def make() -> Basler:
            size = {"width_px": 64, "height_px": 48, "exposure_us": 1000.0}
            opened.append(Basler(name="cam", rate_hz=100, trigger=trigger, **size))
            return opened[-1]

        def pull() -> None:
            opened[-1]._camera.FirePnPCallback.Execute()

        return Live(make, pull)

    return there


def gige(request: pytest.FixtureRequest) -> Live:
    fake = request.getfixturevalue("fake_gige")
    fake.start()
    size = {"width_px": 64, "height_px": 48, "rate_hz": 100.0}
    return Live(lambda: Gige(name="cam", deadline_s=0.5, **size), fake.pull)


def network(request: pytest.FixtureRequest) -> Live:
    stream = request.getfixturevalue("stream")
    return Live(lambda: Video(stream.url, name="cam"), stream.end)


LIVE = {
    "basler": basler("free"),
    "basler on request": basler("software"),
    "gige": gige,
    "video": network,
}


@pytest.fixture(params=LIVE)
def live(request: pytest.FixtureRequest) -> Live:
    return LIVE[request.param](request)


def test_a_live_camera_tells_when_it_saw_what(live: Live) -> None:
    before_ns = time.monotonic_ns()
    camera = live.make()
    frames = list(islice(camera.packets(), 12))
    camera.close()
    assert len(frames) == 12
    assert {frame.stamp.source for frame in frames} == {"cam"}
    assert frames[0].stamp.seq == 0
    steps = [later.stamp.seq - sooner.stamp.seq for sooner, later in pairwise(frames)]
    assert min(steps) >= 1  # a gap is a drop
    for frame in frames:
        assert isinstance(frame, Frame)
        assert frame.image.shape[:2] == (48, 64)
        assert frame.image.any()
        assert not frame.image.flags.writeable
        assert before_ns < frame.stamp.start_ns <= frame.stamp.end_ns < time.monotonic_ns()
    validator = Validator("raise")
    assert len(list(validator.stream(frames))) == 12


def test_a_live_camera_keeps_its_pictures_apart(live: Live) -> None:
    camera = live.make()
    packets = camera.packets()
    first = next(packets)
    seen = first.image.tobytes()
    list(islice(packets, 15))  # as many as any camera has buffers
    camera.close()
    assert first.image.tobytes() == seen


def test_a_live_camera_closes_from_any_thread_and_for_good(live: Live) -> None:
    camera = live.make()
    begun = threading.Event()

    def consume() -> None:
        for _ in camera.packets():
            begun.set()

    thread = threading.Thread(target=consume, daemon=True)
    thread.start()
    assert begun.wait(30)
    closing = [threading.Thread(target=camera.close) for _ in range(2)]
    for each in closing:
        each.start()
    for each in (*closing, thread):
        each.join(10)
        assert not each.is_alive()
    camera.close()
    assert list(camera.packets()) == []


def test_a_pulled_cable_is_a_lost_device(live: Live) -> None:
    camera = live.make()
    packets = camera.packets()
    next(packets)
    live.pull()
    with pytest.raises(DeviceError, match=r"\w"):
        list(islice(packets, 500))
    camera.close()
    camera.close()


def test_a_live_camera_that_was_never_looked_at_closes(live: Live) -> None:
    camera = live.make()
    camera.close()
    assert list(camera.packets()) == []
