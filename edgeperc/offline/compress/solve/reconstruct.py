"""Reconstruction: unit by unit, rounding and steps learn to bring the unit's output back.

    reconstruct(ctx, at, granularity="block")

The units run in the network's order. Each is given what the network before it, already quantized,
makes of the samples, mixed with what the exact one makes (QDrop), and is compared with the exact
unit on exact inputs. What is compared is the granularity's: `layer`, `block` or `prompt`. In the
end all is rounded, no drop is left anywhere, and a unit that errs more than before on samples kept
aside is put back. Sources: Li et al. 2021 (BRECQ, arXiv 2102.05426) for blocks; Nagel et al. 2020
(AdaRound); Esser et al. 2020 (LSQ); Wei et al. 2022 (QDrop). Ours: the error counts in units of
what it is at first and the rounding cost is a mean, so that one weight serves units of all sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib import import_module
from typing import Any

from edgeperc.errors import ConfigError
from edgeperc.offline.compress.adapters import Sample
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.passes import PassResult
from edgeperc.offline.compress.sites import Site
from edgeperc.offline.compress.solve.finished import Finished
from edgeperc.offline.compress.solve.learn_unit import Outcome, Pace, learn_unit
from edgeperc.offline.compress.solve.learning import restore
from edgeperc.offline.compress.solve.units import Unit

GRANULARITIES = {
    "layer": "edgeperc.offline.compress.solve.units:layer_units",
    "block": "edgeperc.offline.compress.solve.units:block_units",
    "prompt": "edgeperc.offline.compress.solve.prompt_aware:prompt_units",
}
"""Name -> module:function that lists units; a recipe may also give `pkg.mod:function` itself."""


def reconstruct(
    ctx: Context,
    at: Sequence[Site],
    *,
    granularity: str = "block",
    iters: int = 500,
    batch: int = 1,
    rounding_rate: float = 3e-2,
    step_rate: float = 2e-3,
    drop: float = 0.5,
    decide: float = 10.0,
    hold_out: float = 0.25,
) -> PassResult:
    """Learn rounding and steps of the quantizers at these sites. iters to decide: see `Pace`.

    hold_out: share of the samples that only judge. A run that was killed goes on behind the last
    unit it kept in the context's `work`. Raises ConfigError for an unknown granularity.
    """
    how = Pace(
        iters=iters,
        batch=batch,
        rounding_rate=rounding_rate,
        step_rate=step_rate,
        drop=drop,
        decide=decide,
    )
    names = {site.name for site in at}
    keys = [key for key in ctx.sim.quantizers if key.partition(":")[0] in names]
    units = units_of(ctx, granularity, keys)
    settings = {"granularity": granularity, "hold_out": hold_out, "seed": ctx.seed, **asdict(how)}
    finished = Finished.load(ctx, keys, settings)
    learn, aside, notes = _split(ctx, hold_out)
    if finished.units:
        notes.append(f"a run that was stopped went on behind {len(finished.units)} units")
    outcomes = []
    for index, unit in enumerate(ctx.track(units, "reconstruct")):
        if unit.name not in finished.units:
            mine = [key for key in keys if unit.holds(key.partition(":")[0])]
            seed = ctx.seed * 100_003 + index
            finished.add(unit.name, *learn_unit(ctx, unit, mine, learn, aside, how, seed))
        learned, outcome = finished.units[unit.name]
        restore(ctx.sim, learned)
        outcomes.append(outcome)
    return PassResult(
        notes=[*notes, *_notes(units, outcomes, keys)],
        details={"units": [asdict(outcome) for outcome in outcomes], **settings},
    )


def units_of(ctx: Context, granularity: str, keys: Iterable[str]) -> list[Unit]:
    """Units that hold at least one of the quantizers, in the network's order."""
    where = GRANULARITIES.get(granularity, granularity)
    module, _, name = where.partition(":")
    try:
        list_units: Any = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        raise ConfigError(
            f"reconstruct: unknown granularity '{granularity}'",
            hint=f"one of {', '.join(GRANULARITIES)}, or a function, pkg.module:name",
        ) from None
    sites = list(dict.fromkeys(key.partition(":")[0] for key in keys))
    with ctx.sim.off():
        units: list[Unit] = list_units(ctx.subject, sites, ctx.samples[0])
    return [unit for unit in units if any(unit.holds(site) for site in sites)]


def _split(ctx: Context, hold_out: float) -> tuple[list[Sample], list[Sample], list[str]]:
    """Samples that are learned from, those that judge, and a note where they are the same."""
    if len(ctx.samples) < 2:
        note = "one sample alone: units are judged on what they learned from"
        return ctx.samples, ctx.samples, [note]
    aside = min(max(1, round(hold_out * len(ctx.samples))), len(ctx.samples) - 1)
    return ctx.samples[:-aside], ctx.samples[-aside:], []


def _notes(units: Sequence[Unit], outcomes: Sequence[Outcome], keys: Sequence[str]) -> list[str]:
    kept = [outcome for outcome in outcomes if outcome.kept]
    notes = [f"{len(kept)} of {len(outcomes)} units err less than before; the others are put back"]
    notes += [
        f"{each.unit} put back: its error went from {each.before:.3g} to {each.after:.3g}"
        for each in outcomes
        if not each.kept
    ]
    decided = [outcome.decided for outcome in outcomes]
    if decided:
        notes.append(
            f"before all were rounded, {min(decided):.0%} to {max(decided):.0%} of a unit's "
            "weights were decided"
        )
    if any(unit.kind == "prompt" for unit in units):
        plain = [unit.name for unit in units if unit.kind != "prompt"]
        notes.append(f"no prompt sees these directly, they are judged by their own output: {plain}")
    left = [k for k in keys if not any(unit.holds(k.partition(":")[0]) for unit in units)]
    if left:
        notes.append(f"{len(left)} quantizers are in no unit that runs and stay: {left[0]}, ...")
    return notes
