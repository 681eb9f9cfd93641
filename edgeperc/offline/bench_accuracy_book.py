"""What compressed networks scored on held-out pictures, kept through a kill.

    book = Book(Settings(weights=..., data=..., folder=...))
    book.fill([Cell("w8a8", seed=0), Cell("w8a8", seed=1)], progress)
    book.scores(Cell("w8a8", seed=0))["click_miou"]

All cells are scored on the same pictures, none of which any cell is calibrated with.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from edgeperc.errors import DataError
from edgeperc.offline import compress
from edgeperc.offline.bench_accuracy_cells import (
    FLOAT,
    Cell,
    compressed,
    fingerprint,
    recipe_of,
    shelves,
)
from edgeperc.offline.compress.adapters import Sample, Subject, open_subject

HELD_OUT_SEED = 1_000
"""Draws the objects and prompts that all cells are scored with."""

TOOLBOX = (
    *("adapters/*.py", "calibrate/*.py", "quantizers/*.py", "solve/*.py", "transforms/*.py"),
    *("context.py", "engine.py", "norms.py", "products.py", "quantize.py", "simulate.py"),
)
"""What decides what a recipe makes of a network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """weights: what `edgeperc train promptable` wrote. data: a folder with bsds500 and davis in it.
    folder: where cells are kept. only: keys, all of them if empty. pictures: to score on.
    """

    weights: Path
    data: Path
    folder: Path
    only: tuple[str, ...] = ()
    seeds: int = 3
    pictures: int = 200
    threads: int = 1


class Book:
    """A folder with a JSON file for each cell. One of another network, recipe or other pictures is
    filled anew.
    """

    def __init__(self, settings: Settings) -> None:
        """Raises DataError where pictures are missing, ModelError or ConfigError for weights."""
        self._settings = settings
        self._train = shelves(settings.data, "train")
        half = max(1, settings.pictures // 2)
        self._test = [shelf.thinned(half) for shelf in shelves(settings.data, "test")]
        self._weights = _digest(self._open())
        self._work = settings.folder / "unfinished" / self._weights[:12]

    def fill(self, cells: Sequence[Cell], progress: Progress | None = None) -> None:
        """Do the cells that are not there yet."""
        torch.set_num_threads(self._settings.threads)
        self._settings.folder.mkdir(parents=True, exist_ok=True)
        progress = progress or Progress(disable=True)
        missing = [cell for cell in cells if self._read(cell) is None]
        done = len(cells) - len(missing)
        task = progress.add_task("cells", total=len(cells), completed=done, note="")
        for cell in missing:
            progress.update(task, note=cell.name)
            self._write(cell, self._measured(cell, progress))
            shutil.rmtree(self._work / cell.name, ignore_errors=True)
            progress.advance(task)

    def scores(self, cell: Cell) -> dict[str, float]:
        """mIoU, 0 to 1: `click_miou`, `click_best`, `box_miou`, `box_best` as `score_masks` has."""
        return dict(self.page(cell)["scores"])

    def page(self, cell: Cell) -> dict[str, Any]:
        """All that is kept of a cell. Raises DataError if it was not filled."""
        found = self._read(cell)
        if found is None:
            raise DataError(f"{self._path(cell)}: not there, or of other weights or pictures")
        return found

    @cached_property
    def held_out(self) -> list[Sample]:
        """Samples that all cells are scored on."""
        pictures = [example for shelf in self._test for example in shelf]
        return self._open().samples(pictures, seed=HELD_OUT_SEED)

    def _measured(self, cell: Cell, progress: Progress) -> dict[str, Any]:
        held_out = self.held_out
        started_s, started_cpu_s = time.monotonic(), time.process_time()
        subject = self._open()
        passes = compressed(subject, cell, self._train, work=self._work, progress=progress)
        made_s = time.monotonic() - started_s
        scores = subject.score(subject.net, held_out)
        return {
            "scores": scores,
            "objects": sum(len(each["truth"]) // 2 for each in held_out if "truth" in each),
            "toolbox": toolbox_hash(),
            "passes": passes,
            "seconds_to_compress": made_s,
            "seconds": time.monotonic() - started_s,
            "cpu_seconds": time.process_time() - started_cpu_s,
        }

    def _read(self, cell: Cell) -> dict[str, Any] | None:
        """None where there is no file, or it is of something else."""
        try:
            page: dict[str, Any] = json.loads(self._path(cell).read_bytes())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return page if page.get("of") == self._identity(cell) else None

    def _write(self, cell: Cell, page: dict[str, Any]) -> None:
        """A kill at any moment leaves the old or the new file."""
        part = self._path(cell).with_suffix(".part")
        part.write_text(json.dumps({"of": self._identity(cell), **page}, indent=1))
        part.replace(self._path(cell))

    def _path(self, cell: Cell) -> Path:
        return self._settings.folder / f"{cell.name}.json"

    def _identity(self, cell: Cell) -> dict[str, Any]:
        recipe = "" if cell.recipe == FLOAT else fingerprint(recipe_of(cell))
        names = [name for shelf in self._test for name in shelf.names]
        return {"cell": cell.name, "recipe": recipe, "weights": self._weights, "pictures": names}

    def _open(self) -> Subject:
        return open_subject(str(self._settings.weights))


@cache
def toolbox_hash() -> str:
    """Of TOOLBOX, 12 hex digits."""
    total = hashlib.sha256()
    for part in TOOLBOX:
        for path in sorted(Path(compress.__file__).parent.glob(part)):
            total.update(path.read_bytes())
    return total.hexdigest()[:12]


def _digest(subject: Subject) -> str:
    total = hashlib.sha256()
    for values in subject.net.state_dict().values():
        total.update(values.contiguous().numpy().tobytes())
    return total.hexdigest()
