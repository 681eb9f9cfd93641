"""Play a recording of several sensors through the app that it was made by, or another one.

    plan = recorded_plan(Path("drive.mcap"))    # everything that is needed lies in the file
    replay(plan, speed=None, out=Path("out"), console=Console())

Every sensor of the rig that was recorded plays what was recorded, the camera behind the mirror,
too: the search is shown what it saw, and the mirror goes where it went, see
`edgeperc.steering.recorded`. If such pictures were not recorded, the twin's are simulated anew, and
a real rig has no search.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from edgeperc import plugin
from edgeperc.calibration.file import identify, load_calibration, save_calibration
from edgeperc.changes import changed, said
from edgeperc.config import App, Rig, convert
from edgeperc.drivers.formats.recording import end_of, sensors_in
from edgeperc.errors import ConfigError
from edgeperc.plan import Plan
from edgeperc.recording.head import app_of, models_of, path_of, rig_of
from edgeperc.recording.looks import has_looks
from edgeperc.recording.reader import head
from edgeperc.result import ModelRef

_OWN_TIME = frozenset({"clock", "duration_s"})


def recorded_plan(
    recording: Path,
    *,
    app: str | None = None,
    changes: Sequence[str] = (),
    sinks: Sequence[dict[str, Any]] = (),
    max_gap_s: float | None = None,
    options: Mapping[str, Any] | None = None,
) -> Plan:
    """A plan that plays a recording through the app inside it, or through `app` by name.

    changes: of the app. sinks: instead of the app's. options: further keys of the replay driver,
    for each sensor. Raises DataError if the recording's beginning cannot be read, ConfigError if
    its sensors are not those that the app looks at, or the app inside names code of its own.
    """
    of_file = head(recording)
    if app is None:
        app_table = changed(msgspec.json.decode(msgspec.json.encode(app_of(of_file))), changes)
        named = convert(app_table, App, where=f"{recording}{said(changes)}")
        rig = rig_of(of_file)
        app_path, rig_path = path_of(of_file, "app_path"), path_of(of_file, "rig_path")
        _refuse_code(named, rig, recording)
    else:
        loaded = Plan.load(app, changes)
        named, rig = loaded.app, loaded.rig
        app_path, rig_path = loaded.app_path, loaded.rig_path
    max_gap_us = named.validate.max_gap_us
    if max_gap_s is not None:
        max_gap_us = max(1, round(max_gap_s * 1e6))
    validate = msgspec.structs.replace(named.validate, max_gap_us=max_gap_us)
    named = msgspec.structs.replace(named, sinks=tuple(sinks), validate=validate)
    recorded = sensors_in(recording)
    if app is not None:
        named = _on_recorded(named, rig, recorded)
    played = {
        name: {
            **(options or {}),
            "driver": "replay",
            "path": str(recording.resolve()),
            "sensor": name,
            "max_gap_us": max_gap_us,
        }
        for name in recorded
    }
    named, simulated = _search_of(named, rig, recording, rig_path.parent)
    sensors = {
        name: table
        for name, table in (rig.sensors | played).items()
        if name in played or _is_simulated(table, rig_path.parent)
    }
    if simulated:  # it would go on for ever
        table = {"duration_s": end_of(recording) * 1e-9, **rig.sensors[simulated]}
        if "duration_s" in (options or {}):
            table["duration_s"] = (options or {})["duration_s"]
        sensors[simulated] = table
    for pipeline in named.pipelines:
        for name in filter(None, (pipeline.input, pipeline.frames)):
            if name not in sensors:
                raise ConfigError(
                    f"{recording}: sensor '{name}', which '{pipeline.name}' looks at, was not"
                    " recorded",
                    hint=f"recorded are: {', '.join(recorded) or 'none'}",
                )
    plan = Plan(
        app=named,
        app_path=app_path,
        rig=msgspec.structs.replace(rig, sensors=sensors),
        rig_path=rig_path,
        changes=tuple(changes),
    )
    if not named.search or not rig.calibration:
        return plan
    if app is None:
        return _calibrated(plan, of_file.files.get("calibration.toml"))
    return _calibrated(plan, (rig_path.parent / rig.calibration).read_bytes())


def search_note(recording: Path, plan: Plan) -> str:
    """What a person should know of how a recording's search is played by a plan of it; or ""."""
    of_file = head(recording)
    before = app_of(of_file).search if "app.json" in of_file.files else None
    if before is None and plan.app.search is None:
        return ""
    if plan.app.search is None:
        return (
            "no pictures through the mirror were recorded: the search is left out, and the gaze's"
            " model sees what there is"
        )
    camera = plan.rig.sensors[plan.pipeline(plan.app.search.gaze)[0].input]
    if camera["driver"] != "replay":
        return (
            "no pictures through the mirror were recorded: they are simulated anew, and what is"
            " found in them is not what was found"
        )
    if plan.changes or plan.app.search != before:
        return "the search is another one, but the mirror goes where it went"
    if of_file.values.get("lossless") != "true":
        return (
            "this was recorded live: detections are those of then, but the search hears of hints"
            f" {plan.app.search.hint_delay_ms:g} ms after their pictures and not when it heard of"
            " them, so its map may differ"
        )
    return ""


def other_models(recording: Path, loaded: Sequence[ModelRef]) -> tuple[str, ...]:
    """Names of models that are not those of the recording any more: results may differ."""
    before = {ref.name: ref.sha256 for ref in models_of(head(recording)) if ref.sha256}
    return tuple(ref.name for ref in loaded if before.get(ref.name, ref.sha256) != ref.sha256)


def _on_recorded(app: App, rig: Rig, recorded: Sequence[str]) -> App:
    """Another app's pipelines: one recorded sensor stands in for every one that is missing."""
    if len(recorded) != 1:
        return app
    pipelines = tuple(
        table
        if table.input in recorded
        else msgspec.structs.replace(table, input=recorded[0], frames="")
        for table in app.pipelines
    )
    return msgspec.structs.replace(app, pipelines=pipelines)


def _search_of(app: App, rig: Rig, recording: Path, folder: Path) -> tuple[App, str]:
    """The app with its search, if what it sees was recorded or can be simulated, or without it.

    And the camera that has to be simulated, or "". Without its search the pipeline of the gaze is
    one as any other, over the pictures that were recorded.
    """
    if app.search is None:
        return app, ""
    gaze = next(table for table in app.pipelines if table.name == app.search.gaze)
    if has_looks(recording, gaze.input):
        return app, ""
    camera = rig.sensors.get(gaze.input)
    mirror = str((rig.mirror or {}).get("driver"))
    if camera and _is_simulated(camera, folder) and mirror.startswith("twin"):
        return app, gaze.input
    return msgspec.structs.replace(app, search=None), ""


def _is_simulated(table: dict[str, Any], folder: Path) -> bool:
    """Whether a sensor is one of the twin's: it has a time of its own."""
    name = str(table.get("driver"))
    if name == "replay" or name not in plugin.DRIVERS:
        return False
    return set(plugin.parameters(table, kind="driver", folder=folder)) >= _OWN_TIME


def _refuse_code(app: App, rig: Rig, recording: Path) -> None:
    """A recording is data: nothing that it names may be code beyond what is built in."""
    names = [str(table.get("driver")) for table in rig.sensors.values()]
    if rig.mirror:
        names.append(str(rig.mirror.get("driver")))
    if app.search:
        names.append(app.search.scheduler)
    for name in names:
        if ":" in name:
            raise ConfigError(
                f"{recording}: its rig or app names code of its own, '{name}', which is not run",
                hint="name an app of yours: --app NAME",
            )


def _calibrated(plan: Plan, text: bytes | None) -> Plan:
    """The plan with its calibration, said to be of the sensors as they are played."""
    if text is None:
        return plan
    folder = Path(tempfile.mkdtemp(prefix="edgeperc-replay-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "calibration.toml"
    path.write_bytes(text)
    stored = load_calibration(path)
    size_px = (stored.rig.width_px, stored.rig.height_px)
    field = plan.rig.field
    identity = identify(plan.rig, field.wide, field.search, size_px)
    save_calibration(replace(stored, rig=identity), path)
    rig = msgspec.structs.replace(plan.rig, calibration=path.name)
    return replace(plan, rig=rig, rig_path=folder / "rig.toml")
