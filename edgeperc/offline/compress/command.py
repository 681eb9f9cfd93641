"""From a file of weights and a recipe to an artifact: what `edgeperc compress` does."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from edgeperc.errors import ModelError
from edgeperc.offline.compress import artifact
from edgeperc.offline.compress.adapters import Subject
from edgeperc.offline.compress.calibrate.sources import draw
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.engine import run_recipe
from edgeperc.offline.compress.kinds import kind_of
from edgeperc.offline.compress.ledger import Ledger
from edgeperc.offline.compress.passes import function_of
from edgeperc.offline.compress.quantize import plan_of
from edgeperc.offline.compress.quantize import quantize as quantize_pass
from edgeperc.offline.compress.recipe import Recipe, chosen_sites
from edgeperc.offline.compress.simulate import Simulated
from edgeperc.offline.compress.sites import Site, fits, sites_of
from edgeperc.offline.nets.sam import Sam
from edgeperc.offline.nets.sam2 import Sam2
from edgeperc.offline.training_run import progress_bar


def compress(
    subject: Subject,
    recipe: Recipe,
    folder: Path,
    *,
    data: str | None = None,
    source: str | None = None,
    seed: int | None = None,
    where: str = "",
    threads: int = 2,
    console: Console | None = None,
) -> Ledger:
    """Run a recipe and write the artifact into `folder`, which is whole or not there.

    What long passes learned is kept beside it until then, and the same command goes on after a
    kill. data, source, seed: in place of the recipe's. where: its file, for errors. Raises
    ConfigError, DataError, ModelError; nothing is written then.
    """
    torch.set_num_threads(threads)
    chosen_sites(recipe, sites_of(subject.net), keep_fp(subject, recipe), where=where)
    kind_of(subject)  # refused before anything runs
    refuse_target(subject, recipe)
    with progress_bar(console or Console(stderr=True)) as progress:
        work = folder.with_name(f"{folder.name}.unfinished")
        ctx = prepare(
            subject, recipe, data=data, source=source, seed=seed, progress=progress, work=work
        )
        exact = copy.deepcopy(subject.net)  # weights go onto their grids for good
        ledger = run_recipe(ctx, recipe, where=where)
        ledger.source = source or recipe.calibration.source
        refuse_bad(ledger, recipe)
        lowered = recipe.accept.min_agreement
        asked: dict[str, Any] = {} if lowered is None else {"min_agreement": lowered}
        artifact.write(ctx, ledger, folder, exact=exact, opset=recipe.export.opset, **asked)
        shutil.rmtree(work, ignore_errors=True)
    return ledger


def refuse_target(subject: Subject, recipe: Recipe) -> None:
    """Raises ModelError if the network cannot be laid out for what the recipe says."""
    if recipe.export.target != "onnxruntime" and not isinstance(subject.net, Sam | Sam2):
        raise ModelError(
            f"{subject.name}: for {recipe.export.target} only promptable networks are written",
            hint='[export] target = "onnxruntime"',
        )


def prepare(
    subject: Subject,
    recipe: Recipe,
    *,
    data: str | None = None,
    source: str | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
    work: Path | None = None,
) -> Context:
    """What the passes of a recipe are given: the network in full precision, and samples."""
    table = recipe.calibration
    seed = recipe.seed if seed is None else seed
    torch.manual_seed(seed)
    samples, held_out = draw(
        source or table.source,
        subject,
        data=data or table.path or None,
        count=table.take,
        held_out=table.held_out,
        seed=seed,
        progress=progress,
        work=work,
    )
    return Context(
        subject=subject,
        sim=Simulated(subject.net),
        samples=samples,
        held_out=held_out,
        seed=seed,
        progress=progress,
        keep_fp=keep_fp(subject, recipe),
        work=work,
        target=recipe.export.target,
    )


def keep_fp(subject: Subject, recipe: Recipe) -> tuple[str, ...]:
    """The recipe's word, else the network's own."""
    return subject.keep_fp if recipe.keep_fp is None else recipe.keep_fp


def refuse_bad(ledger: Ledger, recipe: Recipe) -> None:
    """Raises ModelError if [accept] of the recipe is not met."""
    before = ledger.scores.get("full precision", {})
    after = ledger.scores.get("compressed", {})
    most = recipe.accept.max_miou_drop
    for name in after:
        drop = before[name] - after[name]
        if most is not None and name.endswith("miou") and drop > most:
            raise ModelError(
                f"{name} fell by {100 * drop:.2f} points, the recipe accepts {100 * most:g}",
                hint="more bits, more pictures, or max_miou_drop in [accept]",
            )
    error = ledger.rows[-1].error
    if recipe.accept.max_error is not None and not error <= recipe.accept.max_error:
        raise ModelError(f"the error is {error:.3g}, the recipe accepts {recipe.accept.max_error}")


def resolved(subject: Subject, recipe: Recipe, *, where: str = "") -> Table:
    """What each site gets, for --dry-run. Raises ConfigError as a run would."""
    sites = sites_of(subject.net)
    kept = keep_fp(subject, recipe)
    chosen = chosen_sites(recipe, sites, kept, where=where)
    cells: dict[str, dict[str, str]] = {name: {} for name in sites}
    for step, found in zip(recipe.passes, chosen, strict=True):
        for name, words in _words(step.kind, step.options, found).items():
            for column, text in words.items():
                before = cells[name].get(column) if column == "passes" else None
                cells[name][column] = f"{before}, {text}" if before else text
    table = Table(box=None, pad_edge=False, title=escape(f"{subject.name}, recipe {recipe.name}"))
    table.title_justify = "left"
    for column in ("site", "weight", "input", "passes"):
        table.add_column(column, overflow="fold")
    for name, words in cells.items():
        if sites[name].kind == "tap" and not words:
            continue
        row = [words.get(column, "") for column in ("weight", "input", "passes")]
        if not words:
            row = ["float", "float", "kept" if _is_kept(name, kept) else ""]
        table.add_row(escape(name), *(escape(cell) for cell in row))
    return table


def _words(kind: str, options: Mapping[str, Any], found: list[Site]) -> dict[str, dict[str, str]]:
    """What a pass does at its sites, in words."""
    if function_of(kind) is not quantize_pass:
        return {site.name: {"passes": kind} for site in found}
    defaults: dict[str, Any] = dict(quantize_pass.__kwdefaults__ or {})
    taken = {**defaults, **options}
    taken.pop("bits", None)
    return {
        name: {"weight": plan.weight, "input": " | ".join(plan.value)}
        for name, plan in plan_of(found, **taken).items()
    }


def _is_kept(name: str, patterns: tuple[str, ...]) -> bool:
    kept = False
    for pattern in patterns:
        if fits(name, pattern.removeprefix("!")):
            kept = not pattern.startswith("!")
    return kept
