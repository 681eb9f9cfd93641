"""The operator's files (devices/, models/, apps/): TOML checked to the last key.

The structs below are the schema: their field names are the TOML keys, their bounds stand next to
the fields. A mistake is a ConfigError of one line that names file, table and key.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from edgeperc.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Positive = Annotated[int, msgspec.Meta(gt=0)]
T = TypeVar("T")


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table in which a misspelt key is an error."""


class FileEntry(Strict, frozen=True, kw_only=True):
    """[[files]]: one file of a model, beside its card or in the cache.

    role: "network" is the whole network as ONNX; the others are what an engine wants beside it.
    """

    path: str
    role: str = "network"
    url: str = ""
    sha256: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")] = ""
    bytes: int = 0


class Input(Strict, frozen=True, kw_only=True):
    """[input]: what the network eats.

    represent: name of a packet-to-tensor recipe in `edgeperc.represent`. width_px, height_px: the
    sensor that the network was trained for. Exactly one of window_us and window_events for events.
    """

    kind: Literal["events", "frame"]
    represent: str
    width_px: Positive
    height_px: Positive
    bins: Positive = 5
    window_us: Positive | None = None
    window_events: Positive | None = None


class Checkpoint(Strict, frozen=True, kw_only=True):
    """[checkpoint]: the training weights that `edgeperc models import` converts."""

    architecture: str
    sha256: str = ""
    bytes: int = 0
    url: str = ""
    note: str = ""


class Accuracy(Strict, frozen=True, kw_only=True):
    """[[accuracy]]: one figure and where it comes from."""

    dataset: str
    status: Literal["published", "recorded in checkpoint", "measured here", "not measured"]
    miou_percent: float | None = None
    command: str = ""
    note: str = ""


class ModelCard(Strict, frozen=True, kw_only=True):
    """models/<name>/model.toml: what a network is, where it comes from and what it achieves."""

    name: str
    task: Literal["semantic", "detection"]
    summary: str
    licence: str
    source: str
    classes: tuple[str, ...]
    input: Input
    files: tuple[FileEntry, ...] = ()
    checkpoint: Checkpoint | None = None
    accuracy: tuple[Accuracy, ...] = ()
    training: str = ""


def load(path: Path, kind: type[T]) -> T:
    """Read a TOML file as `kind`. Raises ConfigError naming file, table and key."""
    return convert(read_toml(path), kind, where=str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises ConfigError if it is missing or not TOML."""
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    return table


def convert(table: Any, kind: type[T], *, where: str) -> T:
    """Check a parsed table against `kind`. Raises ConfigError that starts with `where`."""
    try:
        return msgspec.convert(table, kind, strict=True)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        raise ConfigError(f"{where} {_toml_path(path.rstrip('`'))}{message}") from None


def _toml_path(path: str) -> str:
    """`.sensors[...].rate_hz` as msgspec says it -> `[sensors] rate_hz: ` as TOML has it."""
    *tables, key = path.lstrip(".").split(".") if path else [""]
    prefix = f"[{'.'.join(tables)}] " if tables else ""
    return f"{prefix}{key}: " if key else prefix
