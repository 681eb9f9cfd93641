"""One unit learns: its rounding and steps, from cached inputs, against the exact unit's output."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgeperc.errors import ModelError
from edgeperc.offline.compress.adapters import Sample
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.solve.adaround import steepness
from edgeperc.offline.compress.solve.calls import Call, mixed
from edgeperc.offline.compress.solve.learning import Learning, State
from edgeperc.offline.compress.solve.units import Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a unit learns.

    iters: steps, each on `batch` calls of the unit. rounding_rate, step_rate: Adam's, for v and for
    the steps' ratios; the latter falls by half a cosine to 0. drop: share of values taken from the
    exact network, in a unit's input and in its quantizers. decide: weight of the rounding cost.
    """

    iters: int = 500
    batch: int = 1
    rounding_rate: float = 3e-2
    step_rate: float = 2e-3
    drop: float = 0.5
    decide: float = 10.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a unit. before, after: its error on the samples kept aside, as a share of what
    should come out; decided: share of weights whose rounding was decided before all were rounded.
    """

    unit: str
    kind: str
    quantizers: int
    before: float
    after: float
    kept: bool
    decided: float
    decide_cost: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Case:
    """A call of a unit: with exact inputs, with those of the quantized network, and the target."""

    exact: Call
    given: Call
    beside: Any
    target: list[Tensor]


def learn_unit(
    ctx: Context,
    unit: Unit,
    keys: Sequence[str],
    learn: Sequence[Sample],
    aside: Sequence[Sample],
    pace: Pace,
    seed: int,
) -> tuple[State, Outcome]:
    """Learn the quantizers `keys` on samples `learn`, judge on `aside`, and put back what is worse.

    Returns what was learned, empty if it was put back. Raises ModelError where the error is not
    finite.
    """
    started_s = time.monotonic()
    sim, generator = ctx.sim, torch.Generator().manual_seed(seed)
    cases, judged = _cases(ctx, unit, learn), _cases(ctx, unit, aside)
    mine = set(keys)
    with sim.off(lambda key: key not in mine), frozen(sim.net):
        first, before = _error(unit, cases), _error(unit, judged)
        if not (math.isfinite(first) and math.isfinite(before)):
            raise ModelError(f"{unit.name}: its error is {first}, not a number")
        learning = Learning(sim, keys, drop=pace.drop, generator=generator)
        cost = _fit(unit, learning, cases, pace, first, generator)
        decided = learning.decided()
        learned = learning.settle()
        after = _error(unit, judged)
        kept = after <= before
        if not kept:
            learning.revert()
    power = sum(_distance(case.target, [0 * t for t in case.target], unit) for case in judged)
    scale = len(judged) / max(float(power), 1e-30)
    outcome = Outcome(
        unit=unit.name,
        kind=unit.kind,
        quantizers=len(keys),
        before=before * scale,
        after=after * scale,
        kept=kept,
        decided=decided,
        decide_cost=cost,
        seconds=time.monotonic() - started_s,
    )
    return learned if kept else {}, outcome


@contextmanager
def frozen(net: nn.Module) -> Iterator[None]:
    """The network's own parameters learn nothing, for a while."""
    learnt = [p for p in net.parameters() if p.requires_grad]
    for p in learnt:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in learnt:
            p.requires_grad_(True)


def _fit(
    unit: Unit,
    learning: Learning,
    cases: Sequence[Case],
    pace: Pace,
    first: float,
    generator: torch.Generator,
) -> float:
    """Do the steps. Returns the rounding cost of the last one, 0 to 1."""
    roundings, steps = learning.parameters()
    groups = [
        {"params": roundings, "lr": pace.rounding_rate},
        {"params": steps, "lr": pace.step_rate},
    ]
    if not roundings and not steps:
        return 0.0
    optimiser = torch.optim.Adam([group for group in groups if group["params"]])
    cost = torch.zeros(())
    for step in range(pace.iters):
        if steps:
            falling = 0.5 * (1 + math.cos(math.pi * step / pace.iters))
            optimiser.param_groups[-1]["lr"] = pace.step_rate * falling
        optimiser.zero_grad()
        drawn = torch.randint(len(cases), (pace.batch,), generator=generator).tolist()
        for index in drawn:
            case = cases[index]
            call = mixed(case.given, case.exact, pace.drop, generator)
            out = unit.look(unit.run(call), call, case.beside)
            loss = _distance(out, case.target, unit) / max(first, 1e-30)
            (loss / pace.batch).backward()  # type: ignore[no-untyped-call]
        exponent = steepness(step, pace.iters)
        if exponent is not None and roundings:
            cost = learning.cost(exponent)
            (pace.decide * cost).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return float(cost.detach())


@torch.no_grad()
def _cases(ctx: Context, unit: Unit, samples: Sequence[Sample]) -> list[Case]:
    cases = []
    for sample in samples:
        with ctx.sim.off():
            beside = unit.beside(sample)
            exact = unit.calls(sample)
            targets = [unit.look(unit.run(call), call, beside) for call in exact]
        given = unit.calls(sample)
        for calls in zip(exact, given, targets, strict=True):
            cases.append(Case(calls[0], calls[1], beside, calls[2]))
    return cases


@torch.no_grad()
def _error(unit: Unit, cases: Sequence[Case]) -> float:
    """Mean distance from the targets, of the unit as it is on the inputs it is given."""
    errors = [
        _distance(unit.look(unit.run(case.given), case.given, case.beside), case.target, unit)
        for case in cases
    ]
    return float(torch.stack(errors).mean())


def _distance(outputs: Sequence[Tensor], target: Sequence[Tensor], unit: Unit) -> Tensor:
    """Squared distance, summed over the last axis, mean over all others, a scalar."""
    shares = unit.shares or [1.0] * len(target)
    parts = [
        share * ((out - exact) ** 2).sum(-1).mean()
        for share, out, exact in zip(shares, outputs, target, strict=True)
    ]
    return torch.stack(parts).sum()
