"""Play a recording, or a rig that has a time of its own, to its end: the same results each time."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from edgeperc import __version__
from edgeperc.assemble import assemble
from edgeperc.config import App, PipelineTable, Rig, ValidateTable
from edgeperc.errors import ConfigError, DataError, EdgepercError, StoppedError
from edgeperc.pipeline import Run
from edgeperc.plan import Plan
from edgeperc.serve import watch_run
from edgeperc.table import run_report


def replay_plan(
    recording: Path,
    *,
    model: str | None,
    app: str | None,
    out: Path | None,
    listen: str | None,
    max_gap_s: float | None,
    sensor: dict[str, Any],
) -> Plan:
    """A plan that plays a recording through a model or through an app's pipelines.

    The recording stands in for every sensor of the app's rig, and results go to `out` and
    `listen` instead of the app's sinks. max_gap_s: a longer pause is a fault; by default the app's
    own limit. sensor: further keys of the replay driver.
    """
    if not recording.exists():
        raise ConfigError(f"{recording}: no such file")
    if (model is None) == (app is None):
        raise ConfigError("name either a model or an app", hint="--model NAME or --app NAME")
    name = recording.stem
    pipelines: tuple[PipelineTable, ...]
    validate = ValidateTable()
    if app is None:
        pipelines = (PipelineTable(name="replay", input=name, model=model or ""),)
    else:
        named = Plan.load(app).app
        pipelines = tuple(msgspec.structs.replace(table, input=name) for table in named.pipelines)
        validate = named.validate
    max_gap_us = validate.max_gap_us if max_gap_s is None else max(1, round(max_gap_s * 1e6))
    sinks: list[dict[str, Any]] = []
    if out:
        sinks.append({"kind": "file", "folder": str(out)})
    if listen:
        sinks.append({"kind": "grpc", "listen": listen})
    here = Path("(replay)")
    return Plan(
        app=App(
            rig=name,
            pipelines=pipelines,
            sinks=tuple(sinks),
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


def replay(plan: Plan, *, speed: float | None, out: Path | None, console: Console) -> Replayed:
    """Play a plan's recording to its end, lossless, and write `summary.json` into `out`.

    speed: 1.0 is real time, None as fast as possible. What came before an error is delivered and
    written. Raises ConfigError or ModelError before anything starts.
    """
    with console.status("loading models ..."):
        run = assemble(plan, lossless=True, speed=speed)
    started_s = time.monotonic()
    path = plan.rig.sensors[plan.app.rig]["path"]
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
