"""What every driver must do, whatever it drives; a new one joins by a line in DRIVERS."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgeperc.clock import ReplayClock
from edgeperc.drivers.opencv import Video
from edgeperc.drivers.replay import Replay
from edgeperc.drivers.twin import Twin
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


DRIVERS = {
    **{kind: replay(kind) for kind in ("evt2", "evt3", "dat2", "es", "aedat4", "dsec", "mvsec")},
    **{kind: replay(kind) for kind in ("text_s", "ros1_dvs", "mcap")},
    "video": video,
    "twin": twin,
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
