"""What a model folder that `edgeperc compress` wrote says of itself, in its quant.json."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeperc.errors import ModelError

FILE = "quant.json"
INT8 = "int8"
"""Label of grids whose codes are multiplied as integers."""


@dataclass(frozen=True, slots=True)
class Compressed:
    """recipe: its name. bits: of grids, with how many have so many, fewest bits first. labels: what
    becomes of them where the model runs, such as "int8" and "accuracy only".
    """

    recipe: str
    bits: dict[int, int]
    labels: tuple[str, ...]

    def __str__(self) -> str:
        grids = ", ".join(f"{bits} bits × {count}" for bits, count in self.bits.items())
        return "; ".join(filter(None, (self.recipe, grids, *map(said, self.labels))))


def compressed(folder: Path) -> Compressed | None:
    """What quant.json in a folder says; None where there is none. Raises ModelError if it is bad.

    Every `bits`, and every `export`, `label` or `labels` counts, wherever it stands.
    """
    path = folder / FILE
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    if not isinstance(told, dict):
        raise ModelError(f"{path}: is not a table")
    recipe = told.get("recipe", "")
    name = recipe.get("name", "") if isinstance(recipe, dict) else recipe
    bits, labels = Counter[int](), dict[str, None]()
    for key, value in _entries(told):
        if key == "bits" and isinstance(value, int):
            bits[value] += 1
        elif key in ("export", "label", "labels"):
            said_here = value if isinstance(value, list) else [value]
            labels.update(dict.fromkeys(text for text in said_here if isinstance(text, str)))
    return Compressed(str(name), dict(sorted(bits.items())), tuple(labels))


def computed_in(folder: Path, floats: str) -> str:
    """What a model computes in: "int8+fp32" where integers do part of it, else only `floats`.

    Raises ModelError if quant.json is bad.
    """
    found = compressed(folder)
    return f"{INT8}+{floats}" if found and INT8 in found.labels else floats


def said(label: str) -> str:
    """A label so that nobody hopes for what it does not give."""
    return "accuracy only, no speed" if label == "accuracy only" else label


def _entries(table: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value, at any depth."""
    if isinstance(table, dict):
        for key, value in table.items():
            yield key, value
            yield from _entries(value)
    elif isinstance(table, list):
        for value in table:
            yield from _entries(value)
