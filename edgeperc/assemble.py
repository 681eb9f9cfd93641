"""From the operator's files to a Run: models loaded, sensors nameable, sinks open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from edgeperc import plugin
from edgeperc.clock import ReplayClock, host_clock
from edgeperc.config import Input, ModelCard, PipelineTable
from edgeperc.control import Daemon
from edgeperc.daemon import LocalDaemon
from edgeperc.errors import ConfigError, blame
from edgeperc.pairs import Rules
from edgeperc.pipeline import Pipeline, Run
from edgeperc.plan import Plan, check_names, open_model, own_time
from edgeperc.sink import Inventory, Sink, SourceInfo, Viewer
from edgeperc.steering.hints import TimedHints
from edgeperc.steering.inline import InlineSearch
from edgeperc.steering.process import ProcessSearch
from edgeperc.validate import Validator
from edgeperc.window import CountWindows, TimeWindows, Windows


def assemble(
    plan: Plan,
    *,
    lossless: bool = False,
    speed: float | None = 1.0,
    viewer: Viewer | None = None,
) -> Run:
    """Load the models and open the sinks of a plan; sensors are opened when the run starts.

    lossless: the readers wait for the pipelines (replay) instead of newest wins (live). speed: of
    sensors that have no time of their own, such as recordings and the twin; None = no pacing.
    viewer: one more sink, which is also shown the frames. Raises ConfigError or ModelError.
    """
    from edgeperc.tracker import Tracker

    check_names(plan)
    clock = ReplayClock(speed)
    steered = plan.app.search.gaze if plan.app.search else None
    tables = [table for table in plan.app.pipelines if table.name != steered]
    sensors = {
        name: plan.sensor(name, {"clock": clock, "now_ns": clock.now_ns})
        for name in plan.rig.sensors
        if any(name in (table.input, table.frames) for table in tables)
    }
    pipelines = [open_pipeline(plan, table.name) for table in tables]
    with ExitStack() as undo:
        search = _search(plan, clock, lossless=lossless)
        if search:
            undo.callback(search.stop)
        refs = (*(p.ref for p in pipelines), *(search.refs if search else ()))
        inventory = Inventory(sources=sources_of(plan), models=refs)
        trackers = [p.model for p in pipelines if isinstance(p.model, Tracker)]
        daemon = LocalDaemon(plan)
        sinks = open_sinks(plan, inventory, trackers, daemon)
        undo.pop_all()
    validate = plan.app.validate
    run = Run(
        sensors=sensors,
        pipelines=pipelines,
        sinks=sinks,
        clock=clock,
        validator=lambda: Validator(policy=validate.policy, max_gap_us=validate.max_gap_us),
        lossless=lossless,
        search=search,
        viewer=viewer,
        hang_s=plan.app.supervise.hang_s,
    )
    daemon.bind(run)
    return run


def _search(
    plan: Plan, clock: ReplayClock, *, lossless: bool
) -> InlineSearch | ProcessSearch | None:
    if plan.app.search is None:
        return None
    names = frozenset(plan.app.search.hints)
    if not lossless:
        anchor = clock.origin if own_time(plan) else host_clock().origin
        return ProcessSearch(plan, hints=names, anchor=anchor)
    from edgeperc.steering.build import build

    delay_ns = round(plan.app.search.hint_delay_ms * 1e6)
    hints = TimedHints(sorted(names), delay_ns=delay_ns)
    parts = partial(build, plan, clock=clock, hints=hints, lossless=True)
    return InlineSearch(lambda emit, see: parts(emit=emit, see=see), hints=hints, names=names)


def open_pipeline(plan: Plan, name: str) -> Pipeline:
    """A pipeline of a plan, its model loaded. Raises ConfigError or ModelError."""
    table, where = plan.pipeline(name)
    model = plan.model(name)
    with blame(f"{where} model"):
        answer = open_model(model, table)
    return Pipeline(
        name=table.name,
        input=table.input,
        model=answer,
        ref=answer.ref,
        windows=None if model.card.frames else _windows(table, model.card.input, where),
        pairs=_pairs(table, model.card, where),
        frames=table.frames,
        period_ns=round(1e9 / table.rate_hz) if table.rate_hz else 0,
    )


def _windows(table: PipelineTable, expected: Input, where: str) -> Windows | None:
    if expected.kind == "frame":
        return None
    window_us, window_events = table.window_us, table.window_events
    if window_us is None and window_events is None:
        window_us, window_events = expected.window_us, expected.window_events
    if (window_us is None) == (window_events is None):
        raise ConfigError(f"{where}: needs window_us or window_events, one of them")
    return TimeWindows(window_us) if window_us else CountWindows(window_events or 0)


def _pairs(table: PipelineTable, card: ModelCard, where: str) -> Rules | None:
    """How frames and events are paired for a model that fuses them."""
    if card.frames is None:
        if table.frames:
            raise ConfigError(
                f"{where} frames: model '{card.name}' does not fuse frames with events",
                hint="leave it out, and name one sensor as input",
            )
        return None
    window_us = table.window_us or card.input.window_us
    if table.window_events or window_us is None:
        raise ConfigError(
            f"{where}: model '{card.name}' pairs frames with events by time, not by their number",
            hint="set window_us",
        )
    after_us = window_us // 2 if card.input.window_at == "centred" else 0
    return Rules(
        before_us=window_us - after_us,
        after_us=after_us,
        silent_us=table.pair.silent_ms * 1000,
        skew_us=table.pair.skew_ms * 1000,
        max_offset_us=table.pair.max_offset_ms * 1000,
        skip_single=table.pair.single == "skip",
    )


def sources_of(plan: Plan) -> tuple[SourceInfo, ...]:
    """A rig's sensors as clients see them."""
    return tuple(
        SourceInfo(name=name, driver=str(table.get("driver")))
        for name, table in plan.rig.sensors.items()
    )


def open_sinks(
    plan: Plan, inventory: Inventory, trackers: Sequence[Any], daemon: Daemon
) -> list[Sink]:
    """The sinks of a plan. Raises ConfigError; then none is left open."""
    injected = {"inventory": inventory, "trackers": trackers, "daemon": daemon, "plan": plan}
    opened: list[Sink] = []
    try:
        for number in range(1, len(plan.app.sinks) + 1):
            opened.append(open_sink(plan, number, injected))
    except BaseException:
        for sink in opened:
            sink.close()
        raise
    return opened


def open_sink(
    plan: Plan, number: int, injected: Mapping[str, Any], table: Mapping[str, Any] | None = None
) -> Sink:
    """One of a plan's sinks, counted from 1; table: instead of its own. Raises ConfigError."""
    sink: Sink = prepare_sink(plan, number, injected, table)()
    return sink


def prepare_sink(
    plan: Plan, number: int, injected: Mapping[str, Any], table: Mapping[str, Any] | None = None
) -> Callable[[], Any]:
    """A constructor of it, its table checked. Raises ConfigError."""
    return plugin.prepare(
        plan.app.sinks[number - 1] if table is None else table,
        kind="sink",
        where=f"{plan.app_where} [[sinks]] #{number}",
        folder=plan.app_path.parent,
        injected=injected,
    )
