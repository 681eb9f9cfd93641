"""One network of `edgeperc bench compress-accuracy`: compressed by a recipe, and scored.

    cell = Cell("w8a8", seed=1)
    compressed(subject, cell, pictures, work=...)      # in place
    subject.score(subject.net, held_out)

A cell is a recipe, what it is calibrated with, and a seed, which draws the calibration pictures,
their prompts, and whatever the passes draw.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from msgspec.structs import replace
from rich.progress import Progress

from edgeperc.errors import DataError
from edgeperc.offline.compress.adapters import Subject
from edgeperc.offline.compress.calibrate.sources import draw
from edgeperc.offline.compress.command import keep_fp
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.engine import run_recipe
from edgeperc.offline.compress.recipe import Recipe, Step, load_recipe
from edgeperc.offline.compress.simulate import Simulated
from edgeperc.offline.compress.solve.outliers import inject_outliers
from edgeperc.offline.examples import OPENERS, Example, Split
from edgeperc.offline.shelf import Shelf

FLOAT = "float"
"""In place of a recipe: the network as it is."""
SETS = {"bsds500": "bsds500", "davis-frames": "davis"}
"""Kind of data -> its folder. Half of all pictures come from each."""
OUTLIERS = 100.0
DECODER = ("*mask_decoder.transformer.*",)
FOCUS = Step(kind="clip.pcc", at=("*mask_decoder.transformer.*attn*",), role="clip", options={})


@dataclass(frozen=True, slots=True)
class Cell:
    """take: samples to calibrate with, and a third as many to judge with; 0 for as many as the
    recipe says. decoder: bits of the two-way transformer, with limits of least squared error; 0 for
    what the recipe says. outliers: whether the decoder is given some first. focus: whether grids
    are clipped by focus behind the recipe.
    """

    recipe: str
    source: str = "real"
    seed: int = 0
    take: int = 0
    decoder: int = 0
    outliers: bool = False
    focus: bool = False

    def with_seed(self, seed: int) -> Cell:
        """The same of another seed."""
        return dataclasses.replace(self, seed=seed)

    @property
    def what(self) -> str:
        """All but the seed, in words."""
        parts = [self.recipe, "" if self.recipe == FLOAT else self.source]
        parts += [str(self.take) if self.take else ""]
        parts += [f"decoder{self.decoder}" if self.decoder else "", "outliers" * self.outliers]
        return " ".join(part for part in [*parts, "focus" * self.focus] if part)

    @property
    def name(self) -> str:
        """Of its file."""
        return "-".join([*self.what.split(), str(self.seed)])


def recipe_of(cell: Cell) -> Recipe:
    """The preset, with what the cell changes."""
    recipe = load_recipe(cell.recipe)
    calibration = replace(recipe.calibration, source=cell.source)
    if cell.take:
        calibration = replace(calibration, take=cell.take, held_out=max(1, cell.take // 3))
    passes = recipe.passes
    if cell.decoder:
        passes = (*passes, _grids(cell.decoder))
    if cell.focus:
        passes = (*passes, FOCUS)
    return replace(recipe, calibration=calibration, passes=passes)


def fingerprint(recipe: Recipe) -> str:
    """Of all that decides what the network becomes, not how it is written; 64 hex digits."""
    parts = (recipe.calibration, recipe.passes, recipe.keep_fp)
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()


def _grids(bits: int) -> Step:
    """Uniform grids of least squared error for the decoder."""
    names = {"weight": f"uniform{bits}c", "act": f"uniform{bits}", "softmax": f"uniform{bits}"}
    return Step(kind="quantize", at=DECODER, role="quantize", options=names)


def compressed(
    subject: Subject,
    cell: Cell,
    pictures: Sequence[Shelf[Example]],
    *,
    work: Path,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Compress the subject's network in place; what each pass did, as plain values.

    pictures: of each set, what source `real` draws from. work: where long passes, and sources that
    cells share, keep how far they are. Raises as `run_recipe` does.
    """
    if cell.outliers:
        inject_outliers(subject.net, factor=OUTLIERS, seed=cell.seed)
    if cell.recipe == FLOAT:
        return []
    recipe = recipe_of(cell)
    take, judges = recipe.calibration.take, recipe.calibration.held_out
    torch.manual_seed(cell.seed)
    if cell.source == "real":
        drawn = subject.samples(some(pictures, take + judges, cell.seed), seed=cell.seed)
        samples, held_out = drawn[judges:], drawn[:judges]
    else:
        samples, held_out = draw(
            cell.source,
            subject,
            count=take,
            held_out=judges,
            seed=cell.seed,
            progress=progress,
            work=work / f"{cell.source}-{take + judges}-{cell.seed}",
        )
    ctx = Context(
        subject=subject,
        sim=Simulated(subject.net),
        samples=samples,
        held_out=held_out,
        seed=cell.seed,
        progress=progress,
        keep_fp=keep_fp(subject, recipe),
        work=work / cell.name,
    )
    ledger = run_recipe(ctx, recipe, where=cell.recipe)
    return [
        {
            "kind": row.kind,
            "error": row.error_after,
            "seconds": row.seconds,
            "kept": row.kept,
            "notes": list(row.notes),
        }
        for row in ledger.rows
    ]


def some(shelves: Sequence[Shelf[Example]], count: int, seed: int) -> list[Example]:
    """As many pictures of each shelf, in random order."""
    rng = np.random.default_rng(seed)
    share = -(-count // len(shelves))
    drawn = [shelf[int(i)] for shelf in shelves for i in rng.permutation(len(shelf))[:share]]
    return [drawn[int(i)] for i in rng.permutation(len(drawn))[:count]]


def shelves(data: Path, split: Split) -> list[Shelf[Example]]:
    """Pictures of each of SETS below a folder. Raises DataError."""
    for folder in SETS.values():
        if not (data / folder).is_dir():
            raise DataError(
                f"{data / folder}: no such folder",
                hint=f"--data FOLDER with {' and '.join(SETS.values())} in it",
            )
    return [OPENERS[kind](data / folder, split) for kind, folder in SETS.items()]
