"""Where devices, models and apps are found.

A name is looked up as a path, then in `$EDGEPERC_HOME`, the current directory, the user's data
folder (imported and pulled models) and the share that comes with the package.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgeperc.changes import changed, said
from edgeperc.config import App, FileEntry, ModelCard, Rig, convert, load, read_toml
from edgeperc.errors import ConfigError, ModelError

Shelf = Literal["devices", "models", "apps"]


@dataclass(frozen=True)
class ModelFolder:
    """A model card and the folder in which its files lie."""

    card: ModelCard
    folder: Path

    def file(self, role: str) -> Path | None:
        """The file with this role, checked against the card's sha256; None if the card has none.

        Raises ModelError if the file is missing or is not the one that the card describes.
        """
        for entry in self.card.files:
            if entry.role == role:
                return _checked(self.folder / entry.path, entry)
        return None

    @property
    def complete(self) -> bool:
        """Whether the card names files and all of them are here."""
        return bool(self.card.files) and not self.missing

    @property
    def missing(self) -> tuple[FileEntry, ...]:
        """The files that the card names and this folder lacks."""
        return tuple(e for e in self.card.files if not (self.folder / e.path).is_file())


def data_home() -> Path:
    """Where imported and pulled models go: `$EDGEPERC_HOME`, else the user's data folder."""
    if home := os.environ.get("EDGEPERC_HOME"):
        return Path(home)
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "edgeperc"


def cache_home() -> Path:
    """Where what can be made again is kept: `$XDG_CACHE_HOME/edgeperc`, else in `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "edgeperc"


def share() -> Path:
    """What comes with the package: inside the wheel, or the checkout of an editable install."""
    inside = Path(__file__).parent / "share"
    return inside if inside.is_dir() else Path(__file__).parents[1]


def roots() -> tuple[Path, ...]:
    """The folders that are searched, first to last, each once."""
    home = os.environ.get("EDGEPERC_HOME")
    found = [Path(home)] if home else []
    return tuple(dict.fromkeys([*found, Path.cwd(), data_home(), share()]))


def find_app(name: str, changes: Sequence[str] = ()) -> tuple[App, Path]:
    """Load an app by name or path. changes: see `edgeperc.changes`. Raises ConfigError."""
    path = _find_toml(name, "apps")
    table = changed(read_toml(path), changes)
    return convert(table, App, where=f"{path}{said(changes)}"), path


def find_rig(name: str, *, beside: Path | None = None) -> tuple[Rig, Path]:
    """Load a rig by name or path; `beside` is the app's file, for relative paths."""
    path = _find_toml(name, "devices", beside=beside)
    rig = load(path, Rig)
    for sensor in rig.intrinsics.keys() - rig.sensors.keys():
        known = ", ".join(rig.sensors)
        raise ConfigError(f"{path} [intrinsics.{sensor}]: is no sensor", hint=f"known: {known}")
    return rig, path


def find_model(name: str) -> ModelFolder:
    """Load a model card by name or by the path of its folder; complete folders come first.

    Raises ConfigError for an unknown name, ModelError if no folder has the files yet.
    """
    candidates = [ModelFolder(load(path, ModelCard), path.parent) for path in _model_tomls(name)]
    if not candidates:
        raise _unknown(name, "models")
    for candidate in candidates:
        if candidate.complete:
            return candidate
    raise _files_missing(candidates[0])


def find_card(name: str) -> ModelFolder:
    """Like `find_model`, for those who want the card even before its files are here."""
    try:
        return find_model(name)
    except ModelError:
        path = next(_model_tomls(name))
        return ModelFolder(load(path, ModelCard), path.parent)


def names(shelf: Shelf) -> dict[str, Path]:
    """Every name on a shelf and where it is found first, sorted by name.

    A file with a second ending, such as `rig.calibration.toml`, belongs to another one.
    """
    pattern = "*/model.toml" if shelf == "models" else "*.toml"
    found: dict[str, Path] = {}
    for root in roots():
        for path in sorted((root / shelf).glob(pattern)):
            if shelf != "models" and "." in path.stem:
                continue
            found.setdefault(path.parent.name if shelf == "models" else path.stem, path)
    return dict(sorted(found.items()))


def _model_tomls(name: str) -> Iterator[Path]:
    as_path = Path(name)
    if _is_file(as_path / "model.toml"):
        yield as_path / "model.toml"
    elif as_path.name == "model.toml" and _is_file(as_path):
        yield as_path
    if as_path.name != name:
        return
    for root in roots():
        path = root / "models" / name / "model.toml"
        if _is_file(path):
            yield path


def _find_toml(name: str, shelf: Shelf, *, beside: Path | None = None) -> Path:
    if name.endswith(".toml"):
        for base in (Path(), beside.parent if beside else Path()):
            if _is_file(base / name):
                return base / name
        raise ConfigError(f"{name[:200]}: no such file")
    for root in roots():
        path = root / shelf / f"{name}.toml"
        if _is_file(path):
            return path
    raise _unknown(name, shelf)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # as of a name that is too long
        return False


def _unknown(name: str, shelf: Shelf) -> ConfigError:
    if Path(name).name != name:
        return _not_there(Path(name), shelf)
    known = names(shelf)
    near = difflib.get_close_matches(name, known, n=1)
    what = {"devices": "rig", "models": "model", "apps": "app"}[shelf]
    guess = f"; did you mean '{near[0]}'?" if near else ""
    return ConfigError(
        f"unknown {what} '{name[:200]}'{guess}", hint=f"known are: {', '.join(known) or 'none'}"
    )


def _not_there(path: Path, shelf: Shelf) -> ConfigError:
    """What is said of a path, where a name would be searched for."""
    if shelf == "models":
        if path.exists():
            return ConfigError(f"{path}: is no folder with a model.toml")
        return ConfigError(
            f"{path}: no such folder",
            hint=f"a model's path is seen from the current directory, {Path.cwd()}",
        )
    hint = "a path ends in .toml; else it is a name: see edgeperc apps, edgeperc devices"
    return ConfigError(f"{path}: is no TOML file", hint=hint)


def _files_missing(model: ModelFolder) -> ModelError:
    card = model.card
    if any(entry.url for entry in model.missing) or (card.checkpoint and card.checkpoint.url):
        how = f"edgeperc models pull {card.name}"
    elif card.checkpoint:
        how = f"edgeperc models import {card.name} --checkpoint FILE.pth"
        how += f" (weights: {card.checkpoint.url or card.source})"
    else:
        names_missing = ", ".join(entry.path for entry in model.missing)
        how = f"put {names_missing} into {model.folder}"
    return ModelError(f"model '{card.name}' is known, but its network is not here yet", hint=how)


def _checked(path: Path, entry: FileEntry) -> Path:
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    if entry.sha256 and sha256(path) != entry.sha256:
        raise ModelError(
            f"{path}: sha256 is not the one in its model.toml",
            hint="the file was changed or damaged; import, pull or export it again",
        )
    return path


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
