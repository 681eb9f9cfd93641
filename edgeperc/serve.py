"""The daemon and the other ways to watch a run: serve, check and replay."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
from rich.console import Console
from rich.live import Live
from rich.markup import escape

from edgeperc import __version__
from edgeperc.assemble import assemble
from edgeperc.config import App, PipelineTable, Rig, ValidateTable
from edgeperc.errors import ConfigError, DataError, EdgepercError, StoppedError
from edgeperc.pipeline import Run
from edgeperc.plan import Plan
from edgeperc.table import run_report, run_table

_PLAIN_EVERY_S = 10.0


def serve(app: str, *, duration_s: float | None = None, console: Console | None = None) -> Run:
    """Run an app until Ctrl-C, SIGTERM, the end of its sensors or `duration_s`.

    Shows a live table in a terminal, prints it every ten seconds elsewhere. Returns the ended run.
    Raises ConfigError or ModelError before anything starts.
    """
    console = console or Console()
    plan = Plan.load(app)
    with console.status("loading models ..."):
        run = assemble(plan)
    _announce(console, plan, run)
    watch_run(run, console, duration_s=duration_s)
    return run


def check(app: str, *, seconds: float = 2.0, patience_s: float = 10.0) -> Run:
    """Open everything that an app names and run it for a moment. Returns the ended run.

    patience_s: how long it may take until every part has said something. Raises ConfigError,
    ModelError or DeviceError for what does not open.
    """
    run = assemble(Plan.load(app))
    run.start()
    try:
        ended = run.wait(seconds)
        deadline_s = time.monotonic() + patience_s - seconds
        while not ended and trouble(run) and time.monotonic() < deadline_s:
            ended = run.wait(0.2)
    finally:
        run.stop()
    return run


def trouble(run: Run) -> list[str]:
    """What a checked run did not do, one sentence each; empty if all is well."""
    found = list(run.errors)
    for sensor in run.sensors():
        if not sensor.packets:
            found.append(f"sensor '{sensor.name}' sent nothing")
    for pipeline in run.pipelines():
        if not pipeline.meter.results:
            found.append(f"pipeline '{pipeline.name}' gave no result")
    return found


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


def watch_run(run: Run, console: Console, *, duration_s: float | None = None) -> bool:
    """Start a run, show it until it ends, stop it; True if a signal or `duration_s` ended it."""
    ended = False
    limit_s = float("inf") if duration_s is None else duration_s
    deadline_s = time.monotonic() + limit_s
    with _stop_signals() as stopping:
        run.start()
        try:
            with _display(run, console) as show:
                while not (ended or stopping.is_set() or time.monotonic() > deadline_s):
                    ended = run.wait(0.2)
                    show()
        finally:
            run.stop()
    console.print(run_table(run))
    return not ended


def _announce(console: Console, plan: Plan, run: Run) -> None:
    console.print(
        escape(f"edgeperc {__version__} · app {plan.app_path} · rig {plan.rig_path}"),
        soft_wrap=True,
    )
    for pipeline in run.pipelines():
        ref = pipeline.model
        console.print(escape(f"  {pipeline.name}: {ref.name} on {ref.engine} ({ref.provider})"))
    for where in run.where:
        console.print(escape(f"  look: {where}"))
    console.print("  stop: Ctrl-C")


@contextmanager
def _display(run: Run, console: Console) -> Iterator[Any]:
    """Yield a function to call often: it draws the table, or prints a line now and then."""
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4, transient=True) as live:
            yield lambda: live.update(run_table(run))
        return
    next_s = time.monotonic() + _PLAIN_EVERY_S

    def line() -> None:
        nonlocal next_s
        if time.monotonic() >= next_s:
            next_s += _PLAIN_EVERY_S
            console.print(run_table(run))

    yield line


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set; a second Ctrl-C ends the process as usual."""
    stopping = threading.Event()

    def stop(number: int, _: FrameType | None) -> None:
        stopping.set()
        signal.signal(
            number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        )

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
