"""Runs a recipe on a network, and keeps only what each pass was allowed to do.

A transform that changes what the network answers in full precision is undone, and so is a solver
that makes the network err more on held-out samples; both say so in the ledger. When all is done,
weights go onto their grids for good and `Simulated.check` has to agree.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from edgeperc.errors import ModelError
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.doubles import Doubles
from edgeperc.offline.compress.ledger import Ledger, Row
from edgeperc.offline.compress.passes import PassResult, function_of
from edgeperc.offline.compress.recipe import Recipe, Step, chosen_sites
from edgeperc.offline.compress.sites import Site
from edgeperc.offline.compress.snapshot import Snapshot

EQUAL = 1e-5
"""How far answers may move by a transform, as a share of the largest."""
EQUAL_SAMPLES = 4
FEW_SAMPLES = 2

Outputs = list[dict[str, Tensor]]


def run_recipe(ctx: Context, recipe: Recipe, *, where: str = "") -> Ledger:
    """Do all passes of a recipe. The network is left quantized, folded and checked.

    Raises ConfigError where globs fit nothing, before anything is done; ModelError for a network
    with answers that are not finite, or if the checks at the end fail.
    """
    plan = chosen_sites(recipe, ctx.sim.sites, ctx.keep_fp, where=where)
    torch.manual_seed(ctx.seed)
    exact = ctx.outputs(ctx.held_out, exact=True)
    _refuse_broken(ctx, exact)
    ledger = Ledger(
        model=ctx.subject.name,
        recipe=recipe.name,
        recipe_sha256=recipe.sha256,
        seed=ctx.seed,
        source=recipe.calibration.source,
        samples=len(ctx.samples),
        held_out=len(ctx.held_out),
        warnings=ctx.warnings,
    )
    if len(ctx.samples) < FEW_SAMPLES:
        ctx.warnings.append(
            "one sample alone was calibrated with, and judged with: take 16 or more"
        )
    with ctx.sim.off():
        ledger.scores["full precision"] = ctx.subject.score(ctx.net, ctx.held_out)
    for step, sites in zip(recipe.passes, plan, strict=True):
        ledger.rows += _run(ctx, step, sites, exact, ledger)
    finish(ctx)
    with Doubles():
        ledger.scores["compressed"] = ctx.subject.score(ctx.net, ctx.held_out)
    return ledger


def finish(ctx: Context) -> None:
    """Weights onto their grids for good, and the check before any evaluation."""
    ctx.sim.fold()
    ctx.sim.check()


def error_of(ctx: Context, exact: Outputs, samples: Sequence[Any] | None = None) -> float:
    """Squared error of the first output as the network is now, as a share of the exact one's.

    exact: of the same samples, the held-out ones if None.
    """
    now = ctx.outputs(ctx.held_out if samples is None else samples)
    name = next(iter(exact[0]))
    error = sum(float((a[name] - b[name]).square().sum()) for a, b in zip(now, exact, strict=True))
    power = sum(float(b[name].square().sum()) for b in exact)
    return error / max(power, 1e-30)


def _run(ctx: Context, step: Step, sites: list[Site], exact: Outputs, ledger: Ledger) -> list[Row]:
    """One pass and what follows from it; the ledger has what came before."""
    guarded = step.role in ("transform", "solve")
    before_error = error_of(ctx, exact)
    before = Snapshot(ctx.sim) if guarded else None
    reference = _answers(ctx) if step.role == "transform" else []
    sites = [ctx.sim.sites[site.name] for site in sites]
    started_s = time.monotonic()
    result: PassResult = function_of(step.kind)(ctx, sites, **step.options)
    seconds = time.monotonic() - started_s
    row = Row(
        kind=step.kind,
        role=step.role,
        at=step.at,
        sites=len(sites),
        error_before=before_error,
        error_after=error_of(ctx, exact),
        seconds=seconds,
        kept=True,
        notes=tuple(result.notes),
        details={"options": step.options, "sites": [s.name for s in sites], **result.details},
    )
    complaint = _complaint(ctx, row, reference)
    if complaint and before is not None:
        before.restore()
        row = replace(row, kept=False, notes=(*row.notes, f"reverted: {complaint}"))
    if step.role == "allocate":
        return [row, *_refit(ctx, result, exact, ledger)]
    return [row]


def _complaint(ctx: Context, row: Row, reference: Outputs) -> str:
    """Why a pass has to be undone; nothing if it may stay."""
    if row.role == "transform":
        name, moved = _moved(reference, _answers(ctx))
        if not moved <= EQUAL:
            return f"'{name}' in full precision moved by {moved:.2g} of its largest value"
    if row.role == "solve" and not row.error_after <= row.error_before:
        return f"the held-out error rose from {row.error_before:.3g} to {row.error_after:.3g}"
    return ""


def _refit(ctx: Context, result: PassResult, exact: Outputs, ledger: Ledger) -> list[Row]:
    """Quantizers of the sites whose bits changed, fitted anew; then the clip passes on them."""
    bits: dict[str, int] = result.details.get("bits", {})
    rows = []
    for done in [row for row in ledger.rows if row.role in ("quantize", "clip")]:
        held = [ctx.sim.sites[name] for name in done.details.get("sites", {}) if name in bits]
        if held:
            rows.append(_again(ctx, done, held, bits, exact))
    return rows


def _again(ctx: Context, done: Row, held: list[Site], bits: dict[str, int], exact: Outputs) -> Row:
    """One pass once more, on some of its sites with other bits."""
    before_error, started_s = error_of(ctx, exact), time.monotonic()
    options = dict(done.details.get("options", {}))
    for count in sorted({bits[site.name] for site in held}):
        some = [site for site in held if bits[site.name] == count]
        more = {"bits": count} if done.role == "quantize" else {}
        function_of(done.kind)(ctx, some, **options, **more)
    return replace(
        done,
        sites=len(held),
        error_before=before_error,
        error_after=error_of(ctx, exact),
        seconds=time.monotonic() - started_s,
        notes=("again, as bits were allocated anew",),
        details={},
    )


def _answers(ctx: Context) -> Outputs:
    """In double precision: what single precision merely rounds otherwise did not move."""
    samples = [
        {name: x.double() if x.is_floating_point() else x for name, x in sample.items()}
        for sample in ctx.samples[:EQUAL_SAMPLES]
    ]
    kind = next(ctx.net.parameters()).dtype
    ctx.net.double()
    try:
        return ctx.outputs(samples, exact=True)
    finally:
        ctx.net.to(kind)


def _moved(before: Outputs, after: Outputs) -> tuple[str, float]:
    """The output that moved most, and how far, as a share of its largest value."""
    far = {
        name: max(
            float((b[name] - a[name]).abs().max() / a[name].abs().max().clamp(min=1e-12))
            for a, b in zip(before, after, strict=True)
        )
        for name in before[0]
    }
    worst = max(far, key=lambda name: far[name] if far[name] == far[name] else torch.inf)
    return worst, far[worst]


def _refuse_broken(ctx: Context, exact: Outputs) -> None:
    """Raises ModelError naming the first site with values that are not finite, if there is any."""
    if all(bool(torch.isfinite(each).all()) for out in exact for each in out.values()):
        return
    with ctx.sim.off():
        ctx.stream(ctx.sim.sites, lambda name, values: None, ctx.held_out, inputs=False)
    raise ModelError(f"{ctx.subject.name}: its answers are NaN or infinite")
