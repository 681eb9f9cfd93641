"""From the operator's files to a Run: models loaded, sensors nameable, sinks open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edgeperc import places, plugin
from edgeperc.clock import ReplayClock
from edgeperc.config import App, Input, PipelineTable, Rig
from edgeperc.detect import Detector
from edgeperc.errors import ConfigError, blame
from edgeperc.packet import Sensor
from edgeperc.pipeline import Pipeline, Run
from edgeperc.result import Inventory, Sink, SourceInfo
from edgeperc.segment import Segmenter
from edgeperc.validate import Validator
from edgeperc.window import CountWindows, TimeWindows, Windows


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An app and its rig, each with the file it came from."""

    app: App
    app_path: Path
    rig: Rig
    rig_path: Path

    @classmethod
    def load(cls, name: str) -> Plan:
        """Find an app and its rig by the app's name or path. Raises ConfigError."""
        app, app_path = places.find_app(name)
        with blame(f"{app_path} rig"):
            rig, rig_path = places.find_rig(app.rig, beside=app_path)
        return cls(app=app, app_path=app_path, rig=rig, rig_path=rig_path)


def assemble(plan: Plan, *, lossless: bool = False, speed: float | None = 1.0) -> Run:
    """Load the models and open the sinks of a plan; sensors are opened when the run starts.

    lossless: the readers wait for the pipelines (replay) instead of newest wins (live). speed: of
    sensors that have no time of their own, such as recordings and the twin; None = no pacing.
    Raises ConfigError or ModelError.
    """
    clock = ReplayClock(speed)
    _check_names(plan)
    sensors = {
        name: _sensor(plan, name, table, clock)
        for name, table in plan.rig.sensors.items()
        if any(pipeline.input == name for pipeline in plan.app.pipelines)
    }
    pipelines = [
        _pipeline(table, where=f"{plan.app_path} [[pipelines]] #{number}")
        for number, table in enumerate(plan.app.pipelines, start=1)
    ]
    inventory = Inventory(
        sources=tuple(
            SourceInfo(name=name, driver=str(table.get("driver")))
            for name, table in plan.rig.sensors.items()
        ),
        models=tuple(pipeline.ref for pipeline in pipelines),
    )
    validate = plan.app.validate
    return Run(
        sensors=sensors,
        pipelines=pipelines,
        sinks=_sinks(plan, inventory),
        clock=clock,
        validator=lambda: Validator(policy=validate.policy, max_gap_us=validate.max_gap_us),
        lossless=lossless,
    )


def _check_names(plan: Plan) -> None:
    seen: set[str] = set()
    looks: set[tuple[str, str]] = set()
    for number, table in enumerate(plan.app.pipelines, start=1):
        where = f"{plan.app_path} [[pipelines]] #{number}"
        if table.input not in plan.rig.sensors:
            known = ", ".join(plan.rig.sensors)
            raise ConfigError(
                f"{where} input: '{table.input}' is no sensor of {plan.rig_path}",
                hint=f"its sensors are: {known}",
            )
        if table.name in seen:
            raise ConfigError(f"{where} name: '{table.name}' is there twice")
        if (table.input, table.model) in looks:
            # Clients and folders tell results apart by source and model.
            raise ConfigError(f"{where} model: '{table.model}' looks at '{table.input}' already")
        seen.add(table.name)
        looks.add((table.input, table.model))


def _pipeline(table: PipelineTable, *, where: str) -> Pipeline:
    with blame(f"{where} model"):
        model = places.find_model(table.model)
        answer = _open_model(model, table)
    return Pipeline(
        name=table.name,
        input=table.input,
        model=answer,
        ref=answer.ref,
        windows=_windows(table, model.card.input, where),
    )


def _open_model(model: places.ModelFolder, table: PipelineTable) -> Segmenter | Detector:
    if model.card.task == "detection":
        return Detector(model, threads=table.threads, **msgspec.structs.asdict(table.detect))
    return Segmenter(model, engine=table.engine, threads=table.threads)


def _windows(table: PipelineTable, expected: Input, where: str) -> Windows | None:
    if expected.kind == "frame":
        return None
    window_us, window_events = table.window_us, table.window_events
    if window_us is None and window_events is None:
        window_us, window_events = expected.window_us, expected.window_events
    if (window_us is None) == (window_events is None):
        raise ConfigError(f"{where}: needs window_us or window_events, one of them")
    return TimeWindows(window_us) if window_us else CountWindows(window_events or 0)


def _sensor(
    plan: Plan, name: str, table: Mapping[str, Any], clock: ReplayClock
) -> Callable[[], Sensor]:
    return plugin.prepare(
        table,
        kind="driver",
        where=f"{plan.rig_path} [sensors.{name}]",
        folder=plan.rig_path.parent,
        injected={"name": name, "clock": clock},
    )


def _sinks(plan: Plan, inventory: Inventory) -> list[Sink]:
    opened: list[Sink] = []
    try:
        for number, table in enumerate(plan.app.sinks, start=1):
            construct = plugin.prepare(
                table,
                kind="sink",
                where=f"{plan.app_path} [[sinks]] #{number}",
                folder=plan.app_path.parent,
                injected={"inventory": inventory},
            )
            opened.append(construct())
    except BaseException:
        for sink in opened:
            sink.close()
        raise
    return opened
