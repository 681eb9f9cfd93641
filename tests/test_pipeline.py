from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from edgeperc import (
    ConfigError,
    DataError,
    DeviceError,
    EdgepercError,
    Events,
    Frame,
    LabelMap,
    ModelError,
    ModelRef,
    Stamp,
)
from edgeperc.clock import ReplayClock
from edgeperc.packet import Packet
from edgeperc.pipeline import Pipeline, Run, Search
from edgeperc.result import Result
from edgeperc.status import PipelineStatus, SensorStatus
from edgeperc.validate import Validator
from edgeperc.window import TimeWindows

REF = ModelRef(name="counter")


def events(start_us: int, count: int = 10) -> Events:
    return Events(
        stamp=Stamp(source="dvs", seq=0, start_ns=start_us * 1000, end_ns=(start_us + 10) * 1000),
        t=np.arange(start_us, start_us + count, dtype=np.int64),
        x=np.zeros(count, np.uint16),
        y=np.zeros(count, np.uint16),
        p=np.ones(count, np.bool_),
        width_px=4,
        height_px=4,
    )


def frame(at_us: int) -> Frame:
    stamp = Stamp(source="dvs", seq=0, start_ns=at_us * 1000, end_ns=at_us * 1000)
    return Frame(stamp=stamp, image=np.zeros((4, 4), np.uint8))


def label(packet: Packet) -> LabelMap:
    value = len(packet) if isinstance(packet, Events) else 99
    labels = np.full((4, 4), value, np.uint8)
    return LabelMap(stamp=packet.stamp, labels=labels, classes=("a",), model=REF)


@dataclass
class Script:
    """A sensor that says what it is told to, and may break at the end."""

    packets_: list[Packet]
    error: Exception | None = None
    pause_s: float = 0.0
    closed: int = 0

    def packets(self) -> Iterator[Packet]:
        for packet in self.packets_:
            time.sleep(self.pause_s)
            yield packet
        if self.error:
            raise self.error

    def close(self) -> None:
        self.closed += 1


@dataclass
class Kept:
    """A sink that keeps every result."""

    results: list[Result] = field(default_factory=list)
    where: str = ""
    closed: int = 0

    def write(self, result: Result) -> None:
        self.results.append(result)

    def close(self) -> None:
        self.closed += 1


def pipeline(model: Callable[[Packet], LabelMap] = label, *, frames: bool = False) -> Pipeline:
    windows = None if frames else TimeWindows(10)
    return Pipeline(name="p", input="dvs", model=model, ref=REF, windows=windows)


def make_run(
    sensor: Callable[[], Script],
    *pipelines: Pipeline,
    lossless: bool,
    sink: Kept | None = None,
    search: Search | None = None,
) -> Run:
    return Run(
        sensors={"dvs": sensor},
        pipelines=pipelines,
        sinks=[sink or Kept()],
        clock=ReplayClock(None),
        validator=lambda: Validator(policy="raise", max_gap_us=1_000_000),
        lossless=lossless,
        search=search,
    )


def finish(run: Run) -> None:
    run.start()
    try:
        assert run.wait(10)
    finally:
        run.stop()


def test_a_lossless_run_answers_for_every_window_in_order() -> None:
    kept = Kept()
    script = Script([events(10 * k) for k in range(50)])

    def slow(packet: Packet) -> LabelMap:
        time.sleep(0.002)
        return label(packet)

    run = make_run(lambda: script, pipeline(slow), lossless=True, sink=kept)
    finish(run)
    assert [r.stamp.seq for r in kept.results] == list(range(50))
    assert all((r.labels == 10).all() for r in kept.results if isinstance(r, LabelMap))
    assert run.pipelines()[0].meter.dropped == 0
    assert run.sensors()[0].state == "ended"
    assert run.sensors()[0].events == 500
    assert run.errors == ()
    assert script.closed
    assert kept.closed


def test_a_live_run_keeps_the_newest_and_counts_the_rest() -> None:
    kept = Kept()
    go = threading.Event()

    def stuck_at_first(packet: Packet) -> LabelMap:
        go.wait(60)
        return label(packet)

    script = Script([events(10 * k) for k in range(50)])
    run = make_run(lambda: script, pipeline(stuck_at_first), lossless=False, sink=kept)
    run.start()
    deadline_s = time.monotonic() + 30
    while run.sensors()[0].state != "ended" and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert run.sensors()[0].state == "ended"
    assert not run.wait(0.1)  # the model is stuck, the sensor is not
    go.set()
    assert run.wait(10)
    run.stop()
    seqs = [r.stamp.seq for r in kept.results]
    assert seqs[-1] == 49
    assert seqs == sorted(seqs)
    assert len(seqs) + run.pipelines()[0].meter.dropped == 50
    assert len(seqs) <= 2


def test_each_pipeline_gets_the_packets_of_its_kind() -> None:
    kept = Kept()
    script = Script([events(0), frame(10), events(10), frame(20), events(20)])
    by_events = pipeline()
    by_frames = Pipeline(name="f", input="dvs", model=label, ref=REF, windows=None)
    finish(make_run(lambda: script, by_events, by_frames, lossless=True, sink=kept))
    values = sorted(int(r.labels[0, 0]) for r in kept.results if isinstance(r, LabelMap))
    assert values == [10, 10, 10, 99, 99]


def test_a_broken_recording_ends_with_its_error_after_its_prefix() -> None:
    kept = Kept()
    script = Script([events(0), events(10)], DataError("a.raw: byte 7: broken"))
    run = make_run(lambda: script, pipeline(), lossless=True, sink=kept)
    finish(run)
    assert len(kept.results) == 2
    assert run.errors == ("a.raw: byte 7: broken",)
    assert run.sensors()[0].state == "failed"


@pytest.mark.parametrize("error", [DeviceError("unplugged"), ConfigError("no such file")])
def test_a_lost_camera_is_reopened_and_its_clock_may_start_anew(error: EdgepercError) -> None:
    kept = Kept()
    lives = [
        Script([events(1_000_000), events(1_000_010)], error),
        Script([events(0), events(10), events(20)]),
    ]
    run = make_run(lambda: lives.pop(0), pipeline(), lossless=False, sink=kept)
    run.start()
    assert run.wait(10)
    run.stop()
    assert not lives
    assert run.sensors()[0].state == "ended"
    assert run.sensors()[0].error == ""
    assert kept.results[-1].stamp.end_ns == 30_000


def test_a_lost_device_ends_a_lossless_run() -> None:
    run = make_run(lambda: Script([events(0)], DeviceError("unplugged")), pipeline(), lossless=True)
    finish(run)
    assert run.errors == ("unplugged",)


def test_a_packet_that_the_model_refuses_is_counted_and_the_next_is_answered() -> None:
    kept = Kept()

    def refuse_second(packet: Packet) -> LabelMap:
        if packet.stamp.seq == 1:
            raise ModelError("wrong shape")
        return label(packet)

    run = make_run(
        lambda: Script([events(10 * k) for k in range(4)]),
        pipeline(refuse_second),
        lossless=True,
        sink=kept,
    )
    finish(run)
    assert [r.stamp.seq for r in kept.results] == [0, 2, 3]
    assert run.pipelines()[0].meter.failed == 1
    assert run.errors == ("pipeline p: wrong shape",)


def test_a_failing_sink_is_left_out_and_the_others_go_on() -> None:
    class Full(Kept):
        def write(self, result: Result) -> None:
            raise OSError("no space left on device")

        def close(self) -> None:
            super().close()
            raise OSError("no space left on device")

    kept, full = Kept(), Full()
    run = Run(
        sensors={"dvs": lambda: Script([events(10 * k) for k in range(4)])},
        pipelines=[pipeline()],
        sinks=[full, kept],
        clock=ReplayClock(None),
        validator=Validator,
        lossless=True,
    )
    finish(run)
    assert len(kept.results) == 4
    assert run.errors == ("sink Full: no space left on device",)
    assert full.closed


def test_a_bug_in_a_thread_reaches_whoever_waits() -> None:
    def buggy(packet: Packet) -> LabelMap:
        raise ZeroDivisionError

    run = make_run(lambda: Script([events(0)]), pipeline(buggy), lossless=True)
    run.start()
    with pytest.raises(ZeroDivisionError):
        run.wait(10)
    run.stop()


def test_a_bug_ends_the_sensors_too() -> None:
    def buggy(packet: Packet) -> LabelMap:
        raise ZeroDivisionError

    class Endless(Script):
        def packets(self) -> Iterator[Packet]:
            k = 0
            while not self.closed:
                time.sleep(0.001)
                yield events(10 * k)
                k += 1

    run = make_run(lambda: Endless([]), pipeline(buggy), lossless=False)
    run.start()
    with pytest.raises(ZeroDivisionError):
        run.wait()
    run.stop()


def test_stop_ends_a_run_whose_sensor_never_does() -> None:
    class Endless(Script):
        def packets(self) -> Iterator[Packet]:
            k = 0
            while not self.closed:
                time.sleep(0.001)
                yield events(10 * k)
                k += 1

    run = make_run(lambda: Endless([]), pipeline(), lossless=True)
    run.start()
    assert not run.wait(0.1)
    started_s = time.monotonic()
    run.stop()
    assert time.monotonic() - started_s < 2
    assert run.wait(10)


def test_results_carry_the_stage_times_and_the_packets_stamp() -> None:
    kept = Kept()
    finish(make_run(lambda: Script([events(0)]), pipeline(), lossless=True, sink=kept))
    (result,) = kept.results
    assert result.stamp == Stamp(source="dvs", seq=0, start_ns=0, end_ns=10_000)
    assert result.timings.total_ns >= result.timings.wait_ns > 0


def test_a_slow_pipeline_passes_over_what_comes_within_its_period() -> None:
    kept = Kept()
    script = Script([frame(1000 * k) for k in range(10)])
    slow = replace(pipeline(frames=True), period_ns=3_000_000)
    run = make_run(lambda: script, slow, lossless=True, sink=kept)
    finish(run)
    assert [result.stamp.end_ns for result in kept.results] == [0, 3_000_000, 6_000_000, 9_000_000]


@dataclass
class Seeker:
    """A search that ends when its pipeline has said all, and keeps what it was told."""

    hints: frozenset[str] = frozenset({"p"})
    told: list[tuple[str, int]] = field(default_factory=list)
    finished: threading.Event = field(default_factory=threading.Event)
    stopped: int = 0
    shown: list[bool] = field(default_factory=list)

    def run(self, emit: Callable[[Result], None], see: Callable[[Frame], None] | None) -> None:
        self.finished.wait(10)
        if see:
            see(frame(76))
        emit(label(frame(77)))

    def show(self, wanted: bool) -> None:
        self.shown.append(wanted)

    def hint(self, pipeline: str, result: Result) -> None:
        self.told.append(("hint", result.stamp.end_ns))

    def passed(self, pipeline: str, end_ns: int) -> None:
        self.told.append(("passed", end_ns))

    def ended(self, pipeline: str) -> None:
        self.finished.set()

    def stop(self) -> None:
        self.stopped += 1
        self.finished.set()

    def sensors(self) -> tuple[SensorStatus, ...]:
        return (SensorStatus(name="mirror", state="lost", error="unplugged", hint="plug it in"),)

    def pipelines(self) -> tuple[PipelineStatus, ...]:
        return ()


def test_a_search_is_told_everything_and_its_results_go_to_the_sinks() -> None:
    kept, seeker = Kept(), Seeker()
    script = Script([frame(1000 * k) for k in range(4)])
    slow = replace(pipeline(frames=True), period_ns=2_000_000)
    run = make_run(lambda: script, slow, lossless=True, sink=kept, search=seeker)
    finish(run)
    told = [("hint", 0), ("passed", 1_000_000), ("hint", 2_000_000), ("passed", 3_000_000)]
    assert seeker.told == told
    assert kept.results[-1].stamp.end_ns == 77_000
    assert run.errors == ("unplugged",)
    assert run.hints == ("plug it in",)
    assert [status.name for status in run.sensors()] == ["dvs", "mirror"]


@dataclass
class Seeing(Kept):
    """A sink that keeps packets, too."""

    packets: list[Packet] = field(default_factory=list)

    def take(self, packet: Packet) -> None:
        self.packets.append(packet)


def test_what_a_search_sees_goes_to_the_sinks_that_want_packets() -> None:
    seeing, seeker = Seeing(), Seeker()
    script = Script([frame(0)])
    run = make_run(lambda: script, pipeline(frames=True), lossless=True, search=seeker)
    run.add(seeing)
    finish(run)
    assert [packet.stamp.end_ns for packet in seeing.packets] == [0, 76_000]
    assert seeker.shown[0] is True
    run.remove(seeing)
    assert seeker.shown[-1] is False


def test_when_the_search_ends_everything_ends() -> None:
    endless = Script([frame(1000 * k) for k in range(100_000)], pause_s=0.001)
    seeker = Seeker()
    run = make_run(lambda: endless, pipeline(frames=True), lossless=False, search=seeker)
    run.start()
    assert not run.wait(0.05)
    seeker.finished.set()
    assert run.wait(30)
    run.stop()
    assert endless.closed


@dataclass
class Reporting(Kept):
    """A sink that keeps what it is told about the parts."""

    reports: list[dict[str, bool]] = field(default_factory=list)

    def report(self, well: Mapping[str, bool]) -> None:
        self.reports.append(dict(well))


def test_sinks_that_want_to_know_hear_how_the_parts_are() -> None:
    reporting, plain = Reporting(), Kept()
    run = Run(
        sensors={"dvs": lambda: Script([frame(0)])},
        pipelines=[pipeline(frames=True)],
        sinks=[plain, reporting],
        clock=ReplayClock(None),
        validator=lambda: Validator(policy="raise", max_gap_us=1_000_000),
        lossless=True,
        search=Seeker(),
    )
    finish(run)
    run.report()
    assert reporting.reports == [
        {"sensors/dvs": True, "sensors/mirror": False, "pipelines/p": True}
    ]


def test_a_viewer_sees_each_frame_before_its_result() -> None:
    order: list[tuple[str, int]] = []

    class Viewing(Kept):
        def see(self, frame: Frame) -> None:
            order.append(("frame", frame.stamp.end_ns))

        def write(self, result: Result) -> None:
            order.append(("result", result.stamp.end_ns))

    run = Run(
        sensors={"dvs": lambda: Script([frame(0), events(5), frame(1000)])},
        pipelines=[pipeline(frames=True)],
        sinks=[],
        clock=ReplayClock(None),
        validator=lambda: Validator(policy="raise", max_gap_us=1_000_000),
        lossless=True,
        viewer=Viewing(),
    )
    finish(run)
    assert sorted(order, key=lambda each: each[1]) == [
        *(("frame", 0), ("result", 0), ("frame", 1_000_000), ("result", 1_000_000))
    ]
    assert order.index(("frame", 0)) < order.index(("result", 0))
