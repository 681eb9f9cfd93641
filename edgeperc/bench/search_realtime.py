"""The search in real time on the twin: gazes a second, missed slots and lateness, here and now."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeperc import places
from edgeperc.assemble import assemble
from edgeperc.bench.figures import Figures
from edgeperc.clock import ReplayClock, host_clock
from edgeperc.config import PipelineTable
from edgeperc.drivers.galvo.twin import TwinMirror
from edgeperc.errors import EdgepercError
from edgeperc.meter import Meter
from edgeperc.packet import Frame, Stamp
from edgeperc.plan import Plan
from edgeperc.result import ModelRef, Result
from edgeperc.steering.__main__ import take_priority
from edgeperc.steering.build import panorama_of, scheduler_of
from edgeperc.steering.device import Device
from edgeperc.steering.loop import STAGES, SearchLoop
from edgeperc.steering.process import ProcessSearch
from edgeperc.steering.shutter import Shutter
from edgeperc.steering.slots import Slots

SEGMENTER = PipelineTable(name="events", input="dvs", model="sltnet-twin", threads=1)
"""What runs beside the search, in the daemon's own process."""
DECISIONS_HZ = 1000.0


def measure(figures: Figures, *, seconds: float) -> None:
    """Run the app `search` on the twin for so long in each way, and time its slots."""
    plan = Plan.load("search")
    detectors = [_gaze_model(plan), "fastestdet"]
    for number, detector in enumerate(detectors):
        suffix = f"_{detector}" if number else ""
        if not _is_here(detector):
            figures.note(f"{detector} is not installed: edgeperc models pull {detector}")
            continue
        _measure_app(figures, _with_model(plan, detector, [SEGMENTER]), seconds, suffix, "SLTNet")
        _measure_app(
            figures, _with_model(plan, detector, []), seconds, f"{suffix}_alone", "nothing"
        )
    _measure_decisions(figures, seconds)


def _measure_app(figures: Figures, plan: Plan, seconds: float, suffix: str, beside: str) -> None:
    figures.progress(f"the search with {_gaze_model(plan)}, {beside} beside it, {seconds:g} s")
    run = assemble(plan)
    search = run.search
    assert isinstance(search, ProcessSearch)
    run.start()
    try:
        run.wait(seconds)
    finally:
        run.stop()
        run.wait(5)
    status = search.pipelines()[0]
    what = f"{_gaze_model(plan)}, {beside} beside it"
    due_s, late_ms = _slots(search.met)
    figures.add(f"gazes_per_s{suffix}", _rate_hz(due_s), f"gazes a second, {what}", aim=120)
    figures.add(f"missed_slots{suffix}", status.meter.dropped, f"slots missed, {what}")
    p99_ms = float(np.percentile(late_ms, 99)) if len(late_ms) else float("nan")
    figures.add(f"lateness_ms_p99{suffix}", p99_ms, f"exposure after its slot began, {what}", aim=1)
    late = ", ".join(f"{due:.2f}" for due in due_s[1:][np.diff(due_s) > 0.0125][:8])
    figures.note(f"{what}: after a missed slot, it went on at {late or 'none'} s")
    for pipeline in run.pipelines():
        if pipeline.name == SEGMENTER.name:
            figures.add(
                f"sltnet_results_per_s{suffix}",
                pipeline.meter.results / seconds,
                f"label maps a second beside the search, {pipeline.meter.dropped} windows dropped",
                aim=20,
            )
    figures.note(f"{what}: {status.note}")


class Blank:
    """A camera that takes no time, so that nothing but the decisions is measured."""

    def __init__(self, clock: ReplayClock) -> None:
        self._clock = clock
        self._seq = 0
        self._image = np.zeros((8, 8), np.uint8)

    def expose(self) -> Frame:
        """The same picture again."""
        now_ns = self._clock.now_ns()
        self._seq += 1
        stamp = Stamp(source="search", seq=self._seq - 1, start_ns=now_ns, end_ns=now_ns)
        return Frame(stamp=stamp, image=self._image)

    def close(self) -> None:
        """There is nothing to close."""


class Silence:
    """No hints."""

    def take(self, now_ns: int) -> Iterable[Result]:
        """Nothing."""
        return ()


def _measure_decisions(figures: Figures, seconds: float) -> None:
    """Decide and aim a thousand times a second, without pictures and detector."""
    figures.progress(f"{DECISIONS_HZ:g} decisions a second, {seconds:g} s")
    plan = Plan.load("search")
    assert plan.app.search
    clock = host_clock()
    period_ns = round(1e9 / DECISIONS_HZ)
    meter = Meter(STAGES)
    panorama = panorama_of(plan)
    shutter = Shutter(
        camera=Device("search", lambda: Blank(clock)),
        mirror=Device("mirror", lambda: TwinMirror(now_ns=clock.now_ns, natural_hz=20_000.0)),
        slots=Slots(period_ns, clock, end_ns=clock.now_ns() + round(seconds * 1e9)),
        clock=clock,
        ahead=False,
    )
    loop = SearchLoop(
        shutter=shutter,
        detector=None,
        scheduler=scheduler_of(plan, panorama, period_ns),
        scheduler_ref=ModelRef(name=plan.app.search.scheduler),
        panorama=panorama,
        hints=Silence(),
        meter=meter,
        emit=lambda _result: None,
    )
    figures.note(f"{DECISIONS_HZ:g} Hz: {take_priority(plan.app.search.priority)}")
    try:
        loop.run()
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    due_s, late_ms = _slots(loop.met)
    figures.add(
        "decisions_per_s_1000hz", _rate_hz(due_s), "decided and aimed, no detector", aim=1000
    )
    figures.add("missed_slots_1000hz", meter.snapshot().dropped, "slots missed, no detector")
    figures.add("lateness_ms_p99_1000hz", float(np.percentile(late_ms, 99)), "no detector")


def _slots(met: Iterable[tuple[int, int]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """When slots were due, in s, and how late each was, in ms."""
    table = np.array(list(met), np.float64).reshape(-1, 2)
    return table[:, 0] * 1e-9, table[:, 1] * 1e-6


def _rate_hz(due_s: NDArray[np.float64]) -> float:
    """Slots a second, from the first one that was met to the last."""
    return (len(due_s) - 1) / (due_s[-1] - due_s[0]) if len(due_s) > 1 else 0.0


def _gaze_model(plan: Plan) -> str:
    assert plan.app.search
    return plan.pipeline(plan.app.search.gaze)[0].model


def _with_model(plan: Plan, detector: str, beside: list[PipelineTable]) -> Plan:
    """The plan with another gaze model, more pipelines and no sinks."""
    assert plan.app.search
    gaze, _ = plan.pipeline(plan.app.search.gaze)
    pipelines = [
        msgspec.structs.replace(table, model=detector) if table is gaze else table
        for table in plan.app.pipelines
    ]
    app = msgspec.structs.replace(plan.app, pipelines=(*pipelines, *beside), sinks=())
    return replace(plan, app=app)


def _is_here(model: str) -> bool:
    try:
        places.find_model(model)
    except EdgepercError:
        return False
    return True
