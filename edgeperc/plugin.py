"""From a name in an operator's file to a constructor, whose signature is the table's schema.

A name is a built-in (`twin`), an entry point of another package, `package.module:Attr`, or
`./file.py:Attr` beside the TOML file. Built-ins are imported on use and listed without importing.
Code named here runs with the operator's rights; such a name never comes from the network.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from edgeperc.config import convert
from edgeperc.errors import ConfigError, blame

Kind = Literal["driver", "mirror", "scheduler", "sink"]


@dataclass(frozen=True)
class Builtin:
    """A built-in: where its class is and which extra its library comes with."""

    target: str
    summary: str
    extra: str = ""


DRIVERS = {
    "twin": Builtin("edgeperc.drivers.twin:Twin", "digital twin as an event camera; no hardware"),
    "twin-wide": Builtin(
        "edgeperc.drivers.twin_wide:TwinWide", "digital twin as the search rig's wide camera"
    ),
    "twin-search": Builtin(
        "edgeperc.drivers.twin_search:TwinSearch", "digital twin as the camera behind the mirror"
    ),
    "replay": Builtin("edgeperc.drivers.replay:Replay", "a recorded file", "recordings"),
    "video": Builtin("edgeperc.drivers.opencv:Video", "video file, V4L2 camera or RTSP stream"),
    "basler": Builtin("edgeperc.drivers.basler:Basler", "Basler cameras by pypylon", "basler"),
    "gige": Builtin("edgeperc.drivers.gige:Gige", "GigE Vision cameras by Aravis"),
    "argus": Builtin("edgeperc.drivers.argus:Argus", "CSI cameras of a Jetson by GStreamer"),
    "event-camera": Builtin(
        "edgeperc.drivers.event_camera:EventCamera",
        "DAVIS346, DVXplorer, EVK3 HD, EVK4 by neuromorphic-drivers",
        "cameras",
    ),
    "dv-camera": Builtin(
        "edgeperc.drivers.event_camera:DvCamera", "iniVation cameras by dv-processing", "cameras"
    ),
}
MIRRORS = {
    "twin-mirror": Builtin(
        "edgeperc.drivers.galvo.twin:TwinMirror", "second-order mirror of the twin; no hardware"
    ),
    "optotune": Builtin(
        "edgeperc.drivers.galvo.optotune:optotune", "Optotune MR-E-2 in simple mode, over USB"
    ),
    "sigma": Builtin(
        "edgeperc.drivers.galvo.sigma:sigma", "the published rig's D/A board, 10-byte frames"
    ),
    "mirrorcle": Builtin(
        "edgeperc.drivers.galvo.mirrorcle:mirrorcle", "Mirrorcle MTI controllers of MEMS mirrors"
    ),
}
SCHEDULERS = {
    "bayes": Builtin("edgeperc.search.bayes:Bayes", "looks where it most expects to find"),
    "paper": Builtin("edgeperc.search.paper:Paper", "samples the prior, then around detections"),
    "raster": Builtin("edgeperc.search.schedulers:raster", "sweeps the whole field"),
    "raster_region": Builtin("edgeperc.search.schedulers:raster_region", "sweeps likely regions"),
    "uniform": Builtin("edgeperc.search.schedulers:uniform", "looks anywhere"),
    "ppm_iid": Builtin("edgeperc.search.schedulers:ppm_iid", "samples the prior"),
}
SINKS = {
    "grpc": Builtin("edgeperc.sinks.grpc:Grpc", "edgeperc.v1 over gRPC"),
    "file": Builtin("edgeperc.sinks.file:File", "results.jsonl and label PNGs in a folder"),
    "metrics": Builtin("edgeperc.sinks.metrics:Metrics", "figures for Prometheus"),
    "web": Builtin("edgeperc.sinks.web:Web", "a page for a browser: pictures, overlay, health"),
    "record": Builtin("edgeperc.sinks.record:Record", "all packets and results in MCAP files"),
    "ros2": Builtin("edgeperc.sinks.ros2:Ros2", "ROS 2 messages, with a sourced ROS or without"),
    "fleet": Builtin("edgeperc.sinks.fleet:Fleet", "a device of a fleet, by Zenoh", "fleet"),
    "null": Builtin("edgeperc.sinks.null:Null", "counts and forgets"),
}
_KEYS: dict[Kind, str] = {
    "driver": "driver",
    "mirror": "driver",
    "scheduler": "scheduler",
    "sink": "kind",
}
TABLES: dict[Kind, dict[str, Builtin]] = {
    "driver": DRIVERS,
    "mirror": MIRRORS,
    "scheduler": SCHEDULERS,
    "sink": SINKS,
}


def prepare(
    table: Mapping[str, Any],
    *,
    kind: Kind,
    where: str,
    folder: Path,
    injected: Mapping[str, Any],
) -> Callable[[], Any]:
    """Check the table of a plug-in; the answer constructs it, as often as called.

    table: the TOML table; its `driver`, `kind` or `scheduler` key names the class, the others are
    its keyword arguments. where: file and table, for error messages. folder: what `./file.py` is
    relative to. injected: what the runtime adds (name, clock, inventory) where the constructor
    asks for it; an operator cannot set these. Raises ConfigError for a name, key or value that does
    not fit.
    """
    key = _KEYS[kind]
    options = dict(table)
    name = options.pop(key, None)
    if not isinstance(name, str):
        raise ConfigError(f"{where} {key}: must name one of {', '.join(sorted(TABLES[kind]))}")
    constructor = resolve(name, kind=kind, where=f"{where} {key}", folder=folder)
    schema = _schema(constructor, without=injected)
    checked = msgspec.structs.asdict(convert(options, schema, where=where))
    wanted = inspect.signature(constructor).parameters
    extras = {name: value for name, value in injected.items() if name in wanted}

    def construct() -> Any:
        try:
            with blame(where):
                return constructor(**checked, **extras)
        except ModuleNotFoundError as error:
            raise _missing_library(name, kind, error) from error

    return construct


def parameters(table: Mapping[str, Any], *, kind: Kind, folder: Path) -> frozenset[str]:
    """Names of what a plug-in's constructor takes. Raises ConfigError if there is none."""
    name = str(table.get(_KEYS[kind]))
    return frozenset(
        inspect.signature(resolve(name, kind=kind, where="", folder=folder)).parameters
    )


def resolve(name: str, *, kind: Kind, where: str, folder: Path) -> Callable[..., Any]:
    """Find the constructor that a name in a table stands for. Raises ConfigError."""
    builtin = TABLES[kind].get(name)
    try:
        if builtin:
            return _attribute(builtin.target, folder)
        for entry in importlib.metadata.entry_points(group=f"edgeperc.{kind}s", name=name):
            found: Callable[..., Any] = entry.load()
            return found
        if ":" in name:
            return _attribute(name, folder)
    except ModuleNotFoundError as error:
        raise _missing_library(name, kind, error) from error
    except (AttributeError, OSError, SyntaxError) as error:
        raise ConfigError(f"{where}: cannot load '{name}': {error}") from error
    raise _unknown(name, kind, where)


def check_name(name: str, kind: Kind, where: str) -> None:
    """Raise ConfigError for a name that stands for nothing, without importing what it names."""
    key = _KEYS[kind]
    is_theirs = importlib.metadata.entry_points(group=f"edgeperc.{kind}s", name=name)
    if not (name in TABLES[kind] or ":" in name or is_theirs):
        raise _unknown(name, kind, f"{where} {key}")


def _unknown(name: str, kind: Kind, where: str) -> ConfigError:
    known = ", ".join(sorted(TABLES[kind]))
    return ConfigError(
        f"{where}: unknown {kind} '{name}'",
        hint=f"built in are {known}; your own is 'package.module:Class' or './file.py:Class'",
    )


def _attribute(target: str, folder: Path) -> Callable[..., Any]:
    module_name, _, attribute = target.rpartition(":")
    if module_name.endswith(".py"):
        path = (folder / module_name).resolve()
        spec = importlib.util.spec_from_file_location(f"edgeperc_plugin_{path.stem}", path)
        if spec is None or spec.loader is None or not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(module_name)
    found: Callable[..., Any] = getattr(module, attribute)
    return found


def _schema(constructor: Callable[..., Any], *, without: Mapping[str, Any]) -> type[msgspec.Struct]:
    """The constructor's keyword arguments as a msgspec struct: the schema of its TOML table."""
    call = constructor.__init__ if inspect.isclass(constructor) else constructor
    hints = typing.get_type_hints(call, include_extras=True)
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for parameter in inspect.signature(constructor).parameters.values():
        if parameter.name in without:
            continue
        hint = hints.get(parameter.name, Any)
        if parameter.default is parameter.empty:
            fields.append((parameter.name, hint))
        else:
            fields.append((parameter.name, hint, parameter.default))
    name = getattr(constructor, "__name__", "Options")
    return msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=True)


def _missing_library(name: str, kind: Kind, error: ModuleNotFoundError) -> ConfigError:
    builtin = TABLES[kind].get(name)
    if builtin and builtin.extra:
        hint = f"pip install 'edgeperc[{builtin.extra}]'"
    else:
        hint = f"pip install whatever brings the module '{error.name}'"
    return ConfigError(f"{kind} '{name}' needs {error.name}, which is not installed", hint=hint)
