"""Results that bring what they were made from, over gRPC and in memory."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeperc.client import Client, connect
from edgeperc.errors import ConfigError
from edgeperc.packet import Events, Frame, Stamp
from edgeperc.result import LabelMap, ModelRef
from edgeperc.sink import Inventory, SourceInfo
from edgeperc.sinks import shots as module
from edgeperc.sinks.drawn import COLOURS
from edgeperc.sinks.grpc import Grpc
from edgeperc.sinks.shots import Shots

from .test_client_orders import example
from .test_grpc import eventually

SIZE = (32, 48)


def stamp(seq: int, *, source: str = "wide", length_ns: int = 1000) -> Stamp:
    return Stamp(source=source, seq=seq, start_ns=seq * length_ns, end_ns=(seq + 1) * length_ns)


def frame(seq: int, *, grey: int | None = None) -> Frame:
    image = np.full(SIZE, seq if grey is None else grey, np.uint8)
    return Frame(stamp=stamp(seq), image=image)


def result(of: Stamp, model: str = "m") -> LabelMap:
    return LabelMap(
        stamp=of, labels=np.zeros(SIZE, np.uint8), classes=("a",), model=ModelRef(name=model)
    )


def events(seq: int, *, x: int, count: int = 5, source: str = "dvs") -> Events:
    """Of 10 ms, all in the middle of it and in column x of row 0."""
    about = stamp(seq, source=source, length_ns=10_000_000)
    return Events(
        stamp=about,
        t=np.full(count, about.start_ns // 1000 + 5_000, np.int64),
        x=np.full(count, x, np.uint16),
        y=np.zeros(count, np.uint16),
        p=np.ones(count, np.bool_),
        width_px=SIZE[1],
        height_px=SIZE[0],
    )


@pytest.fixture
def sink() -> Iterator[Grpc]:
    sources = tuple(SourceInfo(name=name, driver="twin") for name in ("wide", "dvs"))
    sink = Grpc(listen="127.0.0.1:0", inventory=Inventory(sources=sources))
    yield sink
    sink.close()


@pytest.fixture
def client(sink: Grpc) -> Iterator[Client]:
    with connect(sink.address) as client:
        yield client


def test_each_result_brings_the_very_picture_it_was_made_from(sink: Grpc, client: Client) -> None:
    received = client.subscribe(mode="queue", depth=16, include_image=True)
    assert sink.wants_packets
    for seq in range(0, 200, 50):
        sink.take(frame(seq))
    for seq in range(0, 200, 50):  # all pictures were there before, as with a slow network
        sink.write(result(stamp(seq)))
        found = next(received)
        assert found.result.stamp.seq == seq
        assert found.image is not None
        assert found.image.shape == (*SIZE, 3)
        assert np.abs(found.image.astype(int) - seq).max() < 4


def test_nothing_is_kept_or_encoded_for_those_who_do_not_ask(
    sink: Grpc, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []
    jpeg = module.jpeg
    monkeypatch.setattr(module, "jpeg", lambda image: (encoded.append(1), jpeg(image))[1])
    plain = client.subscribe(mode="queue")
    assert not sink.wants_packets
    sink.take(frame(1))
    sink.write(result(stamp(1)))
    found = next(plain)
    assert (found.jpeg, found.image, encoded) == (b"", None, [])

    seeing = [client.subscribe(mode="queue", include_image=True) for _ in range(3)]
    sink.take(frame(2))
    for model in ("m", "n"):  # two networks look at one picture
        sink.write(result(stamp(2), model))
    for each in seeing:
        assert next(each).jpeg == next(each).jpeg != b""
    assert [next(plain).jpeg for _ in range(2)] == [b"", b""]
    assert encoded == [1]

    del seeing, each
    gc.collect()
    assert eventually(lambda: not sink.wants_packets)


def test_a_result_whose_picture_is_not_at_hand_comes_without(sink: Grpc, client: Client) -> None:
    received = client.subscribe(mode="queue", include_image=True)
    sink.take(frame(1))
    sink.write(result(replace(stamp(1), end_ns=5)))  # of the same number, after a sensor came back
    assert next(received).jpeg == b""
    sink.write(result(stamp(1)))
    assert next(received).jpeg


def test_what_was_lost_is_counted_with_images_too(sink: Grpc, client: Client) -> None:
    received = client.subscribe(include_image=True, max_rate_hz=0.001)
    for seq in range(3):
        sink.take(frame(seq))
        sink.write(result(stamp(seq)))
    first = next(received)
    assert first.jpeg
    assert first.dropped_before == first.result.stamp.seq


def test_events_come_as_what_they_did_in_the_window(sink: Grpc, client: Client) -> None:
    received = client.subscribe(include_image=True)
    for seq in range(4):
        sink.take(events(seq, x=10 * seq))
    window = Stamp(source="dvs", seq=0, start_ns=10_000_000, end_ns=30_000_000)
    sink.write(result(window))
    image = next(received).image
    assert image is not None
    assert image.shape == (*SIZE, 3)
    nothing = COLOURS[3].astype(int)
    changed = (np.abs(image.astype(int) - nothing).sum(axis=2) > 90).any(axis=0)
    assert changed[10]
    assert changed[20]
    assert not changed[0]  # before the window
    assert not changed[30]  # behind it


def test_latest_has_the_image_from_the_second_time_on(sink: Grpc, client: Client) -> None:
    sink.take(frame(1))
    sink.write(result(stamp(1)))
    assert client.latest(include_image=True).jpeg == b""
    sink.take(frame(2))
    sink.write(result(stamp(2)))
    found = client.latest(include_image=True)
    assert found.image is not None
    assert client.latest().jpeg == b""


def test_the_docs_example_runs(sink: Grpc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    has_ended = threading.Event()

    def live() -> None:
        for seq in itertools.count():
            sink.take(frame(seq, grey=80))
            sink.write(result(stamp(seq)))
            if has_ended.wait(0.02):
                return

    camera = threading.Thread(target=live)
    camera.start()
    try:
        exec(example("include_image=True", sink.address), {})
    finally:
        has_ended.set()
        camera.join()
    assert (tmp_path / "seen.jpg").read_bytes()[:2] == b"\xff\xd8"


def test_a_long_queue_of_images_is_refused(client: Client) -> None:
    with pytest.raises(ConfigError, match="depth is 17, must be at most 16 with include_image"):
        client.subscribe(mode="queue", depth=17, include_image=True)
    client.subscribe(mode="queue", depth=17)


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 10 * SIZE[0] * SIZE[1])
    shots = Shots()
    with shots.wanted():
        first = frame(0, grey=7)
        pixels = weakref.ref(first.image.base)
        shots.take(first)
        del first
        for seq in range(1, 30):
            shots.take(frame(seq, grey=seq))
        assert pixels() is None
        kept = [seq for seq in range(30) if shots.of(result(stamp(seq)))]
        assert kept == list(range(20, 30))
        huge = Frame(stamp=stamp(99), image=np.zeros((400, 400), np.uint8))
        shots.take(huge)
        assert shots.of(result(stamp(99)))  # one is kept, whatever its size


def test_events_that_are_old_are_forgotten_and_give_no_image() -> None:
    shots = Shots()
    with shots.wanted():
        for seq in range(300):  # three seconds
            shots.take(events(seq, x=1))
        old = Stamp(source="dvs", seq=0, start_ns=0, end_ns=20_000_000)
        new = replace(old, start_ns=2_900_000_000, end_ns=2_950_000_000)
        assert shots.of(result(old)) is None
        assert shots.of(result(new)) is shots.of(result(new))


def test_a_camera_that_came_back_with_another_size_or_clock_begins_anew() -> None:
    shots = Shots()
    with shots.wanted():
        shots.take(events(100, x=1))
        smaller = replace(events(101, x=1), width_px=20)
        shots.take(smaller)
        window = replace(smaller.stamp, seq=0)
        shot = shots.of(result(window))
        assert shot
        assert shot.image.width == 20
        shots.take(replace(events(0, x=1), width_px=20))
        assert shots.of(result(window)) is None


def test_when_nobody_asks_any_more_all_is_forgotten_though_nothing_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a daemon, where no packets come to the front process then."""
    shots = Shots()
    seen = frame(1)
    pixels = weakref.ref(seen.image.base)
    with shots.wanted():
        shots.take(seen)
        del seen
        assert pixels() is not None
    assert pixels() is None
    assert not shots.are_wanted

    monkeypatch.setattr(module, "LINGER_S", 0.1)
    shots.linger()
    shots.take(frame(2))
    assert shots.of(result(stamp(2))) or not shots.are_wanted
    assert eventually(lambda: not shots.are_wanted)
    assert shots.of(result(stamp(2))) is None
    assert not shots._sources
