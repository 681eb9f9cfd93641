"""Counts that go on where one process ended and the next began.

    before = Report()
    ...                             # the process dies, another begins
    before = total(report, before)  # what all so far have counted
    shown = total(report_now, before)

What a process counted after its last report, half a second at most, is lost with it. So a total
never falls, and may lack a few.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TypeVar

from edgeperc.meter import MeterSnapshot
from edgeperc.pairs import PairCounters
from edgeperc.status import PipelineStatus, SensorStatus
from edgeperc.supervise.orders import Report
from edgeperc.validate import Counters

NOTHING = MeterSnapshot(results=0, dropped=0, failed=0, rate_hz=0.0, stages=())
Counts = TypeVar("Counts", Counters, PairCounters)


def total(now: Report, before: Report) -> Report:
    """What a worker says of itself, with the counts of its earlier processes."""
    sensor, pipeline = now.sensor, now.pipeline
    if before.sensor:
        sensor = sensor_total(sensor or SensorStatus(name=before.sensor.name), before.sensor)
    if before.pipeline:
        fresh = replace(before.pipeline, meter=NOTHING, error="", note="", pairs=None)
        pipeline = pipeline_total(pipeline or fresh, before.pipeline)
    return replace(now, sensor=sensor, pipeline=pipeline, lost=now.lost + before.lost)


def sensor_total(now: SensorStatus, before: SensorStatus | None) -> SensorStatus:
    """How a sensor is, and what it counted in all."""
    if before is None:
        return now
    return replace(
        now,
        packets=now.packets + before.packets,
        events=now.events + before.events,
        frames=now.frames + before.frames,
        moves=now.moves + before.moves,
        counters=_sum(now.counters, before.counters),
    )


def pipeline_total(now: PipelineStatus, before: PipelineStatus | None) -> PipelineStatus:
    """How a pipeline is, and what it counted in all."""
    if before is None:
        return now
    pairs = now.pairs or before.pairs
    if now.pairs and before.pairs:
        pairs = _sum(now.pairs, before.pairs)
    meter = replace(
        now.meter,
        results=now.meter.results + before.meter.results,
        dropped=now.meter.dropped + before.meter.dropped,
        failed=now.meter.failed + before.meter.failed,
    )
    return replace(now, meter=meter, pairs=pairs)


def _sum(now: Counts, before: Counts) -> Counts:
    names = [field.name for field in fields(now)]
    return type(now)(**{name: getattr(now, name) + getattr(before, name) for name in names})
