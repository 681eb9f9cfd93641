"""Changes of an operator's file for one run: `--set pipelines.0.model=./small`.

table = changed(read_toml(path), ["pipelines.0.model=./small", "sinks.0.port=0"])

A path's parts are keys of tables and indexes of arrays, from 0; `sinks.+={kind = "null"}` adds one
more. A value is read as TOML; what is none is text, so that names and paths need no quotes.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from typing import Any

from edgeperc.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def changed(table: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """A copy of a TOML file's table with each `PATH=VALUE` put in, one after the other.

    Keys that are not there are added, and tables on the way to them: whether they may be there is
    for the check of the whole. Raises ConfigError for a path that leads nowhere.
    """
    result = copy.deepcopy(table)
    for change in changes:
        _put(result, change)
    return result


def said(changes: Sequence[str]) -> str:
    """The changes as they were written on the command line; empty if there are none."""
    return "".join(f" --set {change}" for change in changes)


def _put(table: dict[str, Any], change: str) -> None:
    path, equals, text = change.partition("=")
    parts = [part.strip() for part in path.split(".")]
    if not equals or not all(parts):
        raise ConfigError(
            f"--set {change}: must be PATH=VALUE", hint="such as pipelines.0.model=./small"
        )
    at: Any = table
    if parts[-1] == "+" and len(parts) > 1:
        _add(table, parts[:-1], _value(text.strip()), change)
        return
    for depth, part in enumerate(parts[:-1]):
        key = _key(at, parts[:depth], part, change)
        if isinstance(at, dict):
            at.setdefault(key, {})
        at = at[key]
    at[_key(at, parts[:-1], parts[-1], change)] = _value(text.strip())


def _add(table: dict[str, Any], path: list[str], value: Any, change: str) -> None:
    """Put a value at the end of the array that a path leads to; one that is not there is begun."""
    at: Any = table
    for depth, part in enumerate(path):
        key = _key(at, path[:depth], part, change)
        if isinstance(at, dict):
            at.setdefault(key, [] if depth == len(path) - 1 else {})
        at = at[key]
    if not isinstance(at, list):
        raise ConfigError(f"--set {change}: {'.'.join(path)} is no array")
    at.append(value)


def _key(at: Any, above: list[str], part: str, change: str) -> Any:
    """The key or index that a part of a path is. above: the parts before it, which lead to `at`."""
    here = ".".join(above) or "the file"
    if isinstance(at, dict):
        return part
    if not isinstance(at, list):
        raise ConfigError(f"--set {change}: {here} is {at!r}, there is no '{part}' in it")
    if not (part.isascii() and part.isdigit() and int(part) < len(at)):
        indexes = f"0 to {len(at) - 1}" if len(at) > 1 else "0" if at else "none: it is empty"
        raise ConfigError(
            f"--set {change}: {here} has no '{part}'", hint=f"its indexes are {indexes}"
        )
    return int(part)


def _value(text: str) -> Any:
    """What TOML makes of a value, else the text itself."""
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return table["value"] if len(table) == 1 else text
