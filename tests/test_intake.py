"""Pairs through the loop: two sensors in threads of their own, live and lossless."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from edgeperc.clock import ReplayClock
from edgeperc.errors import DeviceError
from edgeperc.packet import Events, Frame, ModelInput, Packet, Pair, Stamp
from edgeperc.pairs import Rules, pair
from edgeperc.pipeline import Pipeline, Run
from edgeperc.result import LabelMap, ModelRef, Result
from edgeperc.validate import Validator

REF = ModelRef(name="m")
MS = 1_000_000


def frames(count: int, *, start_ms: int = 0, size: int = 4) -> list[Packet]:
    return [
        Frame(
            stamp=Stamp(source="cam", seq=k, start_ns=at, end_ns=at + 2 * MS),
            image=np.eye(size, dtype=np.uint8) + np.uint8(k % 250),
        )
        for k in range(count)
        if (at := (start_ms + 40 * k) * MS) or True
    ]


def events(count: int, *, start_ms: int = 0) -> list[Packet]:
    """Packets of 10 ms with an event each ms."""
    packets: list[Packet] = []
    for k in range(count):
        t = np.arange(10, dtype=np.int64) * 1000 + (start_ms + 10 * k) * 1000
        stamp = Stamp(source="dvs", seq=k, start_ns=int(t[0]) * 1000, end_ns=int(t[-1]) * 1000)
        xy = np.zeros(10, np.uint16)
        packets.append(
            Events(stamp=stamp, t=t, x=xy, y=xy, p=t % 2000 == 0, width_px=4, height_px=4)
        )
    return packets


@dataclass
class Script:
    """A sensor that says what it is told to, after pauses, and may break at the end."""

    packets_: list[Packet]
    error: Exception | None = None
    pause: Callable[[Packet], None] = lambda _: None

    def packets(self) -> Iterator[Packet]:
        for packet in self.packets_:
            self.pause(packet)
            yield packet
        if self.error:
            raise self.error

    def close(self) -> None:
        pass


@dataclass
class Kept:
    """A model and a sink that keep what they get."""

    pairs: list[Pair] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    reports: list[Mapping[str, bool]] = field(default_factory=list)
    where: str = ""

    def __call__(self, packet: ModelInput, /) -> LabelMap:
        assert isinstance(packet, Pair)
        self.pairs.append(packet)
        labels = np.zeros((4, 4), np.uint8)
        return LabelMap(stamp=packet.stamp, labels=labels, classes=("a",), model=REF)

    def write(self, result: Result) -> None:
        self.results.append(result)

    def report(self, well: Mapping[str, bool]) -> None:
        self.reports.append(dict(well))

    def close(self) -> None:
        pass


def make_run(
    sensors: Mapping[str, Callable[[], Script]], kept: Kept, *, lossless: bool = True
) -> Run:
    pipeline = Pipeline(
        name="p",
        input="dvs",
        frames="cam" if "cam" in sensors else "",
        model=kept,
        ref=REF,
        windows=None,
        pairs=Rules(),
    )
    return Run(
        sensors=sensors,
        pipelines=[pipeline],
        sinks=[kept],
        clock=ReplayClock(None),
        validator=lambda: Validator(policy="drop", max_gap_us=1_000_000),
        lossless=lossless,
    )


def play(run: Run) -> None:
    run.start()
    try:
        assert run.wait(20)
    finally:
        run.stop()


def as_bytes(pairs: list[Pair]) -> dict[int, tuple[object, ...]]:
    """Start of each pair -> all that it holds."""
    return {
        each.stamp.start_ns: (
            each.stamp,
            each.frame and each.frame.image.tobytes(),
            each.events.stamp,
            *(getattr(each.events, name).tobytes() for name in "txyp"),
        )
        for each in pairs
    }


WHOLE = as_bytes(pair(frames(25), events(100), Rules(), sources=("cam", "dvs"))[0])


@pytest.mark.parametrize("slow", [Frame, Events])
def test_two_sensors_are_paired_as_if_all_were_known_whichever_is_slow(slow: type) -> None:
    def pause(packet: Packet) -> None:
        time.sleep(0.01 if isinstance(packet, slow) else 0)

    kept = Kept()
    sensors = {
        "cam": lambda: Script(frames(25), pause=pause),
        "dvs": lambda: Script(events(100), pause=pause),
    }
    run = make_run(sensors, kept)
    play(run)
    assert as_bytes(kept.pairs) == WHOLE
    assert [result.stamp.seq for result in kept.results] == list(range(25))
    (status,) = run.pipelines()
    assert status.pairs is not None
    assert (status.pairs.pairs, status.pairs.late, status.pairs.late_events) == (25, 0, 0)


def test_one_sensor_that_sends_both_gives_the_same_pairs() -> None:
    mixed = sorted([*frames(25), *events(100)], key=lambda packet: packet.stamp.end_ns)
    kept = Kept()
    play(make_run({"dvs": lambda: Script(mixed)}, kept))
    assert {k: v[1:] for k, v in as_bytes(kept.pairs).items()} == {
        k: v[1:] for k, v in WHOLE.items()
    }


def test_what_is_answered_live_is_what_a_replay_gives() -> None:
    """Both sensors in real time, twice as fast; the model may miss pairs, but not change them."""
    clock = ReplayClock(2.0)

    def pause(packet: Packet) -> None:
        clock.wait_until(packet.stamp.end_ns)

    kept = Kept()
    sensors = {
        "cam": lambda: Script(frames(25), pause=pause),
        "dvs": lambda: Script(events(100), pause=pause),
    }
    play(make_run(sensors, kept, lossless=False))
    live = as_bytes(kept.pairs)
    assert len(live) > 5
    assert all(WHOLE[start_ns] == held for start_ns, held in live.items())


def test_when_the_camera_ends_early_events_go_on_and_health_says_so() -> None:
    kept = Kept()
    blocked, seen = threading.Event(), threading.Event()

    def pause(packet: Packet) -> None:
        if packet.stamp.seq == 90:
            seen.set()
            blocked.wait(20)

    sensors = {
        "cam": lambda: Script(frames(5)),
        "dvs": lambda: Script(events(100), pause=pause),
    }
    run = make_run(sensors, kept)
    run.start()
    assert seen.wait(20)
    run.report()
    assert kept.reports == [{"sensors/cam": False, "sensors/dvs": True, "pipelines/p": True}]
    assert run.pipelines()[0].note == "frames of 'cam' are missing or empty"
    blocked.set()
    assert run.wait(20)
    run.stop()
    assert [each.frame is None for each in kept.pairs] == [False] * 5 + [True] * 13
    assert all(len(each.events) == 50 for each in kept.pairs[5:])
    assert run.errors == ()


def test_when_the_event_camera_is_lost_frames_go_on_until_it_is_back() -> None:
    lives = [
        Script(events(30), DeviceError("unplugged")),
        Script(events(180, start_ms=600)),
    ]
    clock = ReplayClock(2.0)

    def pause(packet: Packet) -> None:
        clock.wait_until(packet.stamp.end_ns)

    def open_dvs() -> Script:
        script = lives.pop(0)
        script.pause = pause
        return script

    kept = Kept()
    sensors = {"cam": lambda: Script(frames(60), pause=pause), "dvs": open_dvs}
    run = make_run(sensors, kept, lossless=False)
    play(run)
    counts = {each.stamp.seq: len(each.events) for each in kept.pairs}
    alone = [count for seq, count in counts.items() if 9 <= seq < 14]
    again = [count for seq, count in counts.items() if 50 <= seq < 58]
    assert alone
    assert set(alone) == {0}
    assert again
    assert set(again) == {50}
    assert not run.errors


def test_sensors_of_different_size_end_the_pipeline_with_both_names() -> None:
    kept = Kept()
    sensors = {"cam": lambda: Script(frames(5, size=9)), "dvs": lambda: Script(events(50))}
    run = make_run(sensors, kept)
    play(run)
    (error,) = run.errors
    assert "'cam'" in error
    assert "'dvs'" in error
    assert "9 × 9 px" in error
    assert not kept.pairs


def test_sensors_of_different_clocks_end_the_pipeline_with_both_names() -> None:
    kept = Kept()
    late = frames(5, start_ms=1_600_000_000_000)
    run = make_run({"cam": lambda: Script(late), "dvs": lambda: Script(events(50))}, kept)
    play(run)
    (error,) = run.errors
    assert "'cam'" in error
    assert "'dvs'" in error
    assert not kept.pairs


def test_stop_ends_a_sensor_that_waits_for_the_other() -> None:
    def forever(packet: Packet) -> None:
        time.sleep(0 if isinstance(packet, Frame) else 60)

    sensors = {
        "cam": lambda: Script(frames(500)),
        "dvs": lambda: Script(events(1), pause=forever),
    }
    run = make_run(sensors, Kept())
    run.start()
    assert not run.wait(0.2)
    started_s = time.monotonic()
    run.stop()
    assert time.monotonic() - started_s < 3
