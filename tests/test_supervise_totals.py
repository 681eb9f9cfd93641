"""Counts over the lives of a process."""

from __future__ import annotations

from dataclasses import replace

from edgeperc.meter import MeterSnapshot, StageRow
from edgeperc.pairs import PairCounters
from edgeperc.result import ModelRef
from edgeperc.status import PipelineStatus, SensorStatus
from edgeperc.supervise.orders import Report
from edgeperc.supervise.totals import total
from edgeperc.validate import Counters

SENSOR = SensorStatus(
    name="a",
    state="running",
    packets=7,
    events=6,
    frames=5,
    moves=4,
    error="e",
    counters=Counters(received=11, gaps=2),
)
METER = MeterSnapshot(3, 2, 1, 9.5, (StageRow("total", 1.0, 2.0),))
PIPELINE = PipelineStatus(
    name="p", model=ModelRef(name="m"), meter=METER, error="", pairs=PairCounters(pairs=5, late=1)
)


def test_the_first_process_has_what_it_says() -> None:
    said = Report(sensor=SENSOR, pipeline=PIPELINE, lost=4)
    assert total(said, Report()) == said


def test_counts_add_up_and_what_is_of_now_is_of_now() -> None:
    now = Report(
        sensor=replace(SENSOR, state="lost", error="", packets=1),
        pipeline=replace(PIPELINE, meter=replace(METER, results=1, rate_hz=2.0), error="x"),
        progress=1,
        lost=1,
    )
    seen = total(now, Report(sensor=SENSOR, pipeline=PIPELINE, progress=50, lost=4))
    assert seen.sensor
    assert seen.pipeline
    assert (seen.sensor.state, seen.sensor.error) == ("lost", "")
    assert (seen.sensor.packets, seen.sensor.events, seen.sensor.frames) == (8, 12, 10)
    assert (seen.sensor.moves, seen.sensor.counters) == (8, Counters(received=22, gaps=4))
    assert seen.pipeline.meter == replace(METER, results=4, dropped=4, failed=2, rate_hz=2.0)
    assert (seen.pipeline.pairs, seen.pipeline.error) == (PairCounters(pairs=10, late=2), "x")
    assert (seen.progress, seen.lost) == (1, 5)
    assert (SENSOR.packets, SENSOR.counters) == (7, Counters(received=11, gaps=2))


def test_one_that_has_said_nothing_yet_has_the_counts_of_the_last_and_no_more() -> None:
    dead = replace(PIPELINE, error="it died", note="slow")
    seen = total(Report(), Report(sensor=replace(SENSOR, state="lost"), pipeline=dead))
    assert seen.sensor
    assert seen.pipeline
    assert (seen.sensor.state, seen.sensor.packets, seen.sensor.error) == ("running", 7, "")
    assert seen.pipeline.meter == replace(METER, rate_hz=0.0, stages=())
    assert (seen.pipeline.error, seen.pipeline.note) == ("", "")
    assert seen.pipeline.pairs == PairCounters(pairs=5, late=1)
