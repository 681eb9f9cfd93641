"""An app and its rig as the operator wrote them, and constructors of what they name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgeperc import places, plugin
from edgeperc.calibration.intrinsics import intrinsics_of
from edgeperc.changes import changed, said
from edgeperc.config import App, PipelineTable, Rig, convert, parse_toml
from edgeperc.errors import ConfigError, blame

if TYPE_CHECKING:
    from edgeperc.detect import Detector
    from edgeperc.fusion import FusionSegmenter
    from edgeperc.segment import Segmenter
    from edgeperc.tracker import Tracker


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An app and its rig, each with the file it came from. changes: of the app's file."""

    app: App
    app_path: Path
    rig: Rig
    rig_path: Path
    changes: tuple[str, ...] = ()

    @classmethod
    def load(cls, name: str, changes: Sequence[str] = ()) -> Plan:
        """Find an app and its rig by the app's name or path. Raises ConfigError.

        changes: `PATH=VALUE` in place of what the app's file says, see `edgeperc.changes`.
        """
        app, app_path = places.find_app(name, changes)
        with blame(f"{app_path}{said(changes)} rig"):
            rig, rig_path = places.find_rig(app.rig, beside=app_path)
        return cls(app=app, app_path=app_path, rig=rig, rig_path=rig_path, changes=tuple(changes))

    @classmethod
    def of_text(cls, toml: str, path: Path, changes: Sequence[str] = ()) -> Plan:
        """The plan that an app's file at `path` would give if it held `toml`. Raises ConfigError.

        changes: as of `load`; they are put into the new text, too.
        """
        where = f"{path}{said(changes)}"
        app = convert(changed(parse_toml(toml, where=str(path)), changes), App, where=where)
        with blame(f"{where} rig"):
            rig, rig_path = places.find_rig(app.rig, beside=path)
        return cls(app=app, app_path=path, rig=rig, rig_path=rig_path, changes=tuple(changes))

    @property
    def app_where(self) -> str:
        """The app's file and how it was changed, for messages."""
        return f"{self.app_path}{said(self.changes)}"

    def sensor(self, name: str, injected: Mapping[str, Any]) -> Callable[[], Any]:
        """A constructor of one of the rig's sensors. Raises ConfigError."""
        return plugin.prepare(
            self.rig.sensors[name],
            kind="driver",
            where=f"{self.rig_path} [sensors.{name}]",
            folder=self.rig_path.parent,
            injected={"name": name, **injected},
        )

    def driver(self, name: str) -> Callable[..., Any]:
        """What constructs one of the rig's sensors, as it is written. Raises ConfigError."""
        return plugin.resolve(
            str(self.rig.sensors[name].get("driver")),
            kind="driver",
            where=f"{self.rig_path} [sensors.{name}] driver",
            folder=self.rig_path.parent,
        )

    def mirror(self, injected: Mapping[str, Any]) -> Callable[[], Any]:
        """A constructor of the rig's mirror. Raises ConfigError."""
        return plugin.prepare(
            self.rig.mirror or {},
            kind="mirror",
            where=f"{self.rig_path} [mirror]",
            folder=self.rig_path.parent,
            injected={"name": "mirror", **injected},
        )

    def pipeline(self, name: str) -> tuple[PipelineTable, str]:
        """A pipeline's table, and where it stands."""
        for number, table in enumerate(self.app.pipelines, start=1):
            if table.name == name:
                return table, f"{self.app_where} [[pipelines]] #{number}"
        raise KeyError(name)

    def model(self, name: str) -> places.ModelFolder:
        """A pipeline's model, its files here. Raises ConfigError or ModelError."""
        table, where = self.pipeline(name)
        with blame(f"{where} model"):
            return places.find_model(table.model)


def open_model(
    model: places.ModelFolder, table: PipelineTable
) -> Segmenter | FusionSegmenter | Detector | Tracker:
    """The model of a pipeline, loaded. Raises ModelError.

    What runs networks is imported here: who only reads plans, as a daemon's front, does without.
    """
    from edgeperc.detect import Detector
    from edgeperc.inference.providers import asked
    from edgeperc.segment import Segmenter
    from edgeperc.tracker import open_tracker

    if model.card.task == "promptable":
        return open_tracker(model, table)
    providers = asked(table)
    if model.card.frames is not None:
        from edgeperc.fusion import FusionSegmenter  # reads the network's graph

        return FusionSegmenter(
            model,
            threads=table.threads,
            providers=providers,
            whole=table.engine == "onnx",
        )
    if model.card.task == "detection":
        options = msgspec.structs.asdict(table.detect)
        return Detector(model, threads=table.threads, providers=providers, **options)
    return Segmenter(model, engine=table.engine, threads=table.threads, providers=providers)


def own_time(plan: Plan) -> bool:
    """Whether the search camera's time is not the host's, as that of the twin."""
    assert plan.app.search
    camera = plan.driver(plan.pipeline(plan.app.search.gaze)[0].input)
    clock = signature(camera).parameters.get("clock")
    return clock is not None and clock.default is Parameter.empty


def check_names(plan: Plan) -> None:
    """Raise ConfigError for a name that stands twice or for nothing, or a lens that is none."""
    seen: set[str] = set()
    looks: set[tuple[str, str]] = set()
    for number, table in enumerate(plan.app.pipelines, start=1):
        where = f"{plan.app_where} [[pipelines]] #{number}"
        if table.input not in plan.rig.sensors:
            known = ", ".join(plan.rig.sensors)
            raise ConfigError(
                f"{where} input: '{table.input}' is no sensor of {plan.rig_path}",
                hint=f"its sensors are: {known}",
            )
        if table.frames and table.frames not in plan.rig.sensors:
            known = ", ".join(plan.rig.sensors)
            raise ConfigError(
                f"{where} frames: '{table.frames}' is no sensor of {plan.rig_path}",
                hint=f"its sensors are: {known}",
            )
        if table.name in seen:
            raise ConfigError(f"{where} name: '{table.name}' is there twice")
        if (table.input, table.model) in looks:
            # Clients and folders tell results apart by source and model.
            raise ConfigError(f"{where} model: '{table.model}' looks at '{table.input}' already")
        seen.add(table.name)
        looks.add((table.input, table.model))
    intrinsics_of(plan.rig, plan.rig_path)
    _check_search(plan)


def _check_search(plan: Plan) -> None:
    search, where = plan.app.search, f"{plan.app_where} [search]"
    if search is None:
        return
    inputs = {table.name: table.input for table in plan.app.pipelines}
    for key, name in (("gaze", search.gaze), *(("hints", name) for name in search.hints)):
        if name not in inputs:
            known = ", ".join(inputs)
            raise ConfigError(f"{where} {key}: '{name}' is no pipeline", hint=f"there are: {known}")
    steered = inputs[search.gaze]
    if plan.rig.mirror is None:
        raise ConfigError(
            f"{where}: {plan.rig_path} has no mirror to steer", hint="a rig needs [mirror]"
        )
    if list(inputs.values()).count(steered) > 1:
        raise ConfigError(
            f"{where} gaze: sensor '{steered}' looks through the mirror and is the search's alone",
            hint="let other pipelines take another sensor as their input",
        )
