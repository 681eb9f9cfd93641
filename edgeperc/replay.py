"""Play a recording, or a rig that has a time of its own, to its end: the same results each time."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from edgeperc import __version__, places, plugin
from edgeperc.assemble import assemble
from edgeperc.config import App, PipelineTable, Rig, ValidateTable
from edgeperc.drivers import formats
from edgeperc.errors import ConfigError, DataError, EdgepercError, StoppedError
from edgeperc.pipeline import Run
from edgeperc.plan import Plan
from edgeperc.render.frames import RenderFrames
from edgeperc.render.pairs import RenderPairs
from edgeperc.render.search import Overlay, Render
from edgeperc.serve import watch_run
from edgeperc.steering.calibrated import calibrations
from edgeperc.table import run_report

TWIN_S = 10.0
"""How long a rig is played that has no end."""


def rig_plan(
    app: str | None,
    *,
    changes: Sequence[str] = (),
    duration_s: float | None,
    out: Path | None,
    listen: str | None,
) -> Plan:
    """A plan that plays an app on its own rig, by default for `TWIN_S`.

    Every sensor must have a time of its own, as those of the twin. changes: of the app's file, see
    `edgeperc.changes`. Raises ConfigError.
    """
    if app is None:
        raise ConfigError(
            "name a recording, or an app to be played on its twin",
            hint="edgeperc replay RECORDING --model NAME, or edgeperc replay --app search",
        )
    plan = Plan.load(app, changes)
    sensors = {}
    named = {name for table in plan.app.pipelines for name in (table.input, table.frames)}
    for name in named & plan.rig.sensors.keys():
        table = plan.rig.sensors[name]
        accepts = plugin.parameters(table, kind="driver", folder=plan.rig_path.parent)
        if not set(accepts) >= {"clock", "duration_s"}:
            raise ConfigError(
                f"{plan.rig_path} [sensors.{name}]: driver '{table.get('driver')}' is live and"
                " cannot be replayed",
                hint="name a recording: edgeperc replay RECORDING --app NAME",
            )
        sensors[name] = {**table, "duration_s": TWIN_S if duration_s is None else duration_s}
    rig = msgspec.structs.replace(plan.rig, sensors=sensors)
    app_table = msgspec.structs.replace(plan.app, sinks=_sinks(out, listen))
    return replace(plan, app=app_table, rig=rig)


def _sinks(out: Path | None, listen: str | None) -> tuple[dict[str, Any], ...]:
    file = [{"kind": "file", "folder": str(out)}] if out else []
    grpc = [{"kind": "grpc", "listen": listen}] if listen else []
    return (*file, *grpc)


def replay_plan(
    recording: Path,
    *,
    model: str | None,
    app: str | None,
    changes: Sequence[str] = (),
    out: Path | None,
    listen: str | None,
    max_gap_s: float | None,
    sensor: dict[str, Any],
) -> Plan:
    """A plan that plays a recording through a model or through an app's pipelines.

    The recording stands in for every sensor of the app's rig, and results go to `out` and
    `listen` instead of the app's sinks. max_gap_s: a longer pause is a fault; by default the app's
    own limit. changes: of the app's file. sensor: further keys of the replay driver. A recording of
    edgeperc brings its app along, and plays sensor by sensor: see `edgeperc.recording.plan`.
    """
    if not recording.exists():
        raise ConfigError(f"{recording}: no such file")
    if model is None and formats.sniff(recording) is formats.OURS:
        from edgeperc.recording.plan import recorded_plan

        return recorded_plan(
            recording,
            app=app,
            changes=changes,
            sinks=_sinks(out, listen),
            max_gap_s=max_gap_s,
            options=sensor,
        )
    if (model is None) == (app is None):
        raise ConfigError("name either a model or an app", hint="--model NAME or --app NAME")
    if changes and app is None:
        raise ConfigError("--set changes an app's file", hint="name the app: --app NAME")
    name = recording.stem
    pipelines: tuple[PipelineTable, ...]
    validate = ValidateTable()
    if app is None:
        pipelines = (PipelineTable(name="replay", input=name, model=model or ""),)
    else:
        named = Plan.load(app, changes).app
        pipelines = tuple(
            msgspec.structs.replace(table, input=name, frames="") for table in named.pipelines
        )
        validate = named.validate
    max_gap_us = validate.max_gap_us if max_gap_s is None else max(1, round(max_gap_s * 1e6))
    here = Path("(replay)")
    return Plan(
        app=App(
            rig=name,
            pipelines=pipelines,
            sinks=_sinks(out, listen),
            validate=ValidateTable(policy="raise", max_gap_us=max_gap_us),
        ),
        app_path=here,
        rig=Rig(
            sensors={
                name: {
                    "driver": "replay",
                    "path": str(recording),
                    "max_gap_us": max_gap_us,
                    **sensor,
                }
            }
        ),
        rig_path=here,
    )


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """How a replay ended. summary: what summary.json holds. error: None if it was complete."""

    summary: dict[str, Any]
    error: EdgepercError | None


def replay(
    plan: Plan,
    *,
    speed: float | None,
    out: Path | None,
    console: Console,
    render: Path | None = None,
) -> Replayed:
    """Play a plan to its end, lossless, and write `summary.json` into `out`.

    speed: 1.0 is real time, None as fast as possible. render: a video to draw the search into, or
    what was found in frames. What came before an error is delivered and written. Raises ConfigError
    or ModelError before anything starts.
    """
    viewer = _renderer(plan, render) if render else None
    with console.status("loading models ..."):
        run = assemble(plan, lossless=True, speed=speed, viewer=viewer)
    started_s = time.monotonic()
    paths = [table["path"] for table in plan.rig.sensors.values() if table["driver"] == "replay"]
    path = str(paths[0] if paths else plan.app.rig)
    if paths:
        _tell_differences(run, plan, Path(path), console)
    interrupted = watch_run(run, console)
    error = StoppedError(f"{path}: stopped before its end") if interrupted else _fault(run, path)
    summary = {
        "edgeperc": __version__,
        "recording": path,
        "speed": speed or "max",
        "wall_s": round(time.monotonic() - started_s, 3),
        "complete": error is None,
        **run_report(run),
    }
    if out:
        try:
            (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
        except OSError as failure:
            error = error or EdgepercError(f"{out}/summary.json: {failure.strerror}")
    return Replayed(summary=summary, error=error)


def _tell_differences(run: Run, plan: Plan, path: Path, console: Console) -> None:
    """Say why results may be others than those that are in a recording of ours."""
    if formats.sniff(path) is not formats.OURS:
        return
    from edgeperc.recording.plan import other_models, search_note

    for name in other_models(path, [pipeline.model for pipeline in run.pipelines()]):
        console.print(f"note: '{name}' is another network now than when this was recorded")
    if note := search_note(path, plan):
        console.print(f"note: {note}", soft_wrap=True)


def _renderer(plan: Plan, path: Path) -> Render | RenderFrames | RenderPairs:
    if plan.app.search is None:
        cards = {table.name: places.find_card(table.model).card for table in plan.app.pipelines}
        for table in plan.app.pipelines:
            if cards[table.name].frames:
                return RenderPairs(path, source=table.frames or table.input)
        looked_at = [t.input for t in plan.app.pipelines if cards[t.name].input.kind == "frame"]
        if not looked_at:
            raise ConfigError(
                f"--render draws a search or frames, and {plan.app_where} has no [search] and no"
                " pipeline that takes frames"
            )
        return RenderFrames(path, source=looked_at[0], pipelines=looked_at.count(looked_at[0]))
    field = plan.rig.field
    overlay = Overlay(calibrations(plan), search_rad=math.radians(field.search_deg))
    return Render(path, overlay, wide=field.wide, search=field.search)


def _fault(run: Run, path: str) -> EdgepercError | None:
    """What kept a recording from being played whole, or None."""
    for sensor in run.sensors():
        if sensor.error:
            known = "" if path in sensor.error else f"{path}: "
            return DataError(f"{known}{sensor.error}", hint=sensor.hint)
        if not any(pipeline.meter.results for pipeline in run.pipelines()) and not run.errors:
            return DataError(
                f"{path}: not one full window in {sensor.events:,} events and"
                f" {sensor.frames:,} frames",
                hint="a model of events needs events for at least one window",
            )
    return EdgepercError(run.errors[0]) if run.errors else None
