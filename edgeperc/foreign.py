"""An app's text that came over the network: it may choose among what is installed, and no more.

    check_foreign(toml, plan)       # raises ConfigError for what it may not name

Code (`package.module:Class`, `./file.py:Class`), rigs by path and models by path are refused,
unless the operator's own file, the one that runs, names the very same. Sinks may be left out and no
more: they say who may listen, and which files are written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeperc.config import parse_toml
from edgeperc.errors import ConfigError
from edgeperc.plan import Plan

LONGEST_TOML = 1 << 20


def check_foreign(toml: str, plan: Plan) -> None:
    """Raise ConfigError for text that names code or files that `plan` does not name."""
    if len(toml) > LONGEST_TOML:
        raise ConfigError(f"an app of {len(toml):,} characters; at most {LONGEST_TOML:,}")
    app = parse_toml(toml, where="the app sent")
    for number, table in enumerate(_tables(app.get("sinks")), start=1):
        if table not in plan.app.sinks:
            raise ConfigError(
                f"[[sinks]] #{number}: is none of those that run, and another is never taken from"
                " the network",
                hint="let the operator write it into the app's file",
            )
    own = {value for _, value in _named(_table_of(plan))}
    for where, value in _named(app):
        if value not in own and not _is_plain(value):
            raise ConfigError(
                f"{where}: '{value}' names code or a file, which is never taken from the network",
                hint="name something installed, or let the operator write it into the app's file",
            )


def _named(app: dict[str, Any]) -> list[tuple[str, str]]:
    """What an app's table names that is looked up: where it stands, and the name."""
    found = [("rig", app.get("rig"))]
    for number, table in enumerate(_tables(app.get("pipelines")), start=1):
        found.append((f"[[pipelines]] #{number} model", table.get("model")))
    search = app.get("search")
    if isinstance(search, dict):
        found.append(("[search] scheduler", search.get("scheduler")))
    return [(where, name) for where, name in found if isinstance(name, str)]


def _tables(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _table_of(plan: Plan) -> dict[str, Any]:
    return {
        "rig": plan.app.rig,
        "pipelines": [{"model": table.model} for table in plan.app.pipelines],
        "search": {"scheduler": plan.app.search.scheduler} if plan.app.search else None,
    }


def _is_plain(name: str) -> bool:
    """Whether a name can only be looked up on the shelves."""
    is_path = any(mark in name for mark in ":/\\") or name.endswith((".toml", ".py"))
    is_folder_here = (Path(name) / "model.toml").is_file()  # which would come before the shelves
    return name not in ("", ".", "..") and not is_path and not is_folder_here
