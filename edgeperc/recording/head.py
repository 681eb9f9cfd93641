"""What a recording says of its run at its beginning, so that it can be played without more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

from edgeperc import __version__
from edgeperc.calibration.intrinsics import Intrinsics, intrinsics_of
from edgeperc.config import App, Rig, convert
from edgeperc.errors import ConfigError, DataError
from edgeperc.plan import Plan
from edgeperc.recording.clocks import recorded_clocks
from edgeperc.recording.reader import Head
from edgeperc.result import ModelRef

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class About:
    """An app and its rig as they run, the files that they come from, and the models' hashes.

    values: for the file's metadata. files: name -> media type and bytes. intrinsics: of cameras
    whose lens is known. clocks: of sensors that are played from a recording, see `Wall`.
    """

    values: dict[str, str]
    files: dict[str, tuple[str, bytes]]
    intrinsics: Mapping[str, Intrinsics] = field(default_factory=dict)
    clocks: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: Plan, models: Sequence[ModelRef]) -> About:
        """That of a plan and what it loaded. Raises ConfigError for a lens that is none."""
        intrinsics = intrinsics_of(plan.rig, plan.rig_path)
        tables = {name: lens.table for name, lens in intrinsics.items()}
        rig = msgspec.structs.replace(plan.rig, intrinsics=tables)
        values = {
            "edgeperc": __version__,
            "app": plan.app_path.stem,
            "app_path": str(plan.app_path),
            "rig_path": str(plan.rig_path),
            "changes": msgspec.json.encode(plan.changes).decode(),
            "models": msgspec.json.encode([asdict(model) for model in models]).decode(),
        }
        files = {
            "app.json": ("application/json", msgspec.json.encode(plan.app)),
            "rig.json": ("application/json", msgspec.json.encode(rig)),
        }
        calibration = plan.rig_path.parent / plan.rig.calibration
        texts = {"app.toml": plan.app_path, "rig.toml": plan.rig_path}
        if plan.rig.calibration:
            texts["calibration.toml"] = calibration
        for name, path in texts.items():
            if path.is_file():
                files[name] = ("application/toml", path.read_bytes())
        clocks = recorded_clocks(plan.rig)
        return cls(values=values, files=files, intrinsics=intrinsics, clocks=clocks)


def app_of(head: Head) -> App:
    """The app that a recording was made by. Raises DataError."""
    return _json(head, "app.json", App)


def rig_of(head: Head) -> Rig:
    """The rig that a recording was made on. Raises DataError."""
    return _json(head, "rig.json", Rig)


def models_of(head: Head) -> tuple[ModelRef, ...]:
    """The models that ran. Raises DataError."""
    try:
        return msgspec.json.decode(head.values.get("models", "[]"), type=tuple[ModelRef, ...])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"the recording's list of models is damaged: {error}") from error


def path_of(head: Head, key: str) -> Path:
    """Where the app's or rig's file was: "app_path" or "rig_path"."""
    return Path(head.values.get(key, "(recording)"))


def _json(head: Head, name: str, kind: type[T]) -> T:
    try:
        return convert(
            msgspec.json.decode(head.files[name]), kind, where=f"{name} of the recording"
        )
    except KeyError:
        raise DataError(f"the recording does not hold {name}") from None
    except ConfigError as error:
        raise DataError(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{name} of the recording: {error}") from error
