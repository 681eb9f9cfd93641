from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from edgeperc.errors import ConfigError
from edgeperc.offline.compress.adapters.opening import subject_for
from edgeperc.offline.compress.allocate import cheapest
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.engine import run_recipe
from edgeperc.offline.compress.recipe import Recipe, Step
from edgeperc.offline.compress.simulate import Simulated

from .tiny_promptable import tiny_sam2

AT = ("*.blocks.[01].mlp",)
QUANTIZE = Step(kind="quantize", at=AT, role="quantize", options={"weight": "uniform4c"})


@pytest.mark.parametrize("seed", range(8))
def test_six_layers_are_given_what_trying_all_ways_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bits = (4, 6, 8)
    sizes = {f"layer{i}": int(rng.integers(1, 50)) for i in range(6)}
    costs = {n: dict(zip(bits, sorted(rng.exponential(size=3))[::-1], strict=True)) for n in sizes}
    budget = float(rng.uniform(4, 8)) * sum(sizes.values())

    def cost(way: tuple[int, ...]) -> float:
        return sum(costs[n][b] for n, b in zip(sizes, way, strict=True))

    fitting = [
        way
        for way in product(bits, repeat=6)
        if sum(s * b for s, b in zip(sizes.values(), way, strict=True)) <= budget
    ]
    best = min(fitting, key=cost)
    found = cheapest(costs, sizes, budget=budget)
    assert sum(sizes[n] * b for n, b in found.items()) <= budget
    assert cost(tuple(found.values())) == pytest.approx(cost(best))


def test_a_pass_gives_bits_and_grids_are_fitted_anew() -> None:
    subject = subject_for(tiny_sam2())
    sim = Simulated(subject.net)
    ctx = Context(subject, sim, subject.noise(2), subject.noise(1, seed=1))
    step = Step(
        kind="allocate", at=("*",), role="allocate", options={"bits": [3, 8], "mean_bits": 5.5}
    )
    ledger = run_recipe(ctx, Recipe(name="mine", passes=(QUANTIZE, step)))
    given = ledger.rows[1].details["bits"]
    assert set(given.values()) == {3, 8}
    assert {n: sim.quantizers[f"{n}:weight"].bits for n in given} == given
    assert {n: sim.quantizers[f"{n}:input"].bits for n in given} == given
    costs = ledger.rows[1].details["costs"]
    assert all(each["3"] > each["8"] > 0 for each in costs.values())
    size = {name: sim.original(name).numel() for name in given}
    assert sum(size[n] * b for n, b in given.items()) <= 5.5 * sum(size.values())


def test_budgets_that_cannot_be_met_are_an_error() -> None:
    with pytest.raises(ConfigError, match="so few bits"):
        cheapest({"a": {4: 1.0}}, {"a": 10}, budget=39)
    subject = subject_for(tiny_sam2())
    ctx = Context(subject, Simulated(subject.net), subject.noise(1), subject.noise(1))
    for options in ({"bits": [4, 8], "mean_bits": 3.0}, {"bits": [1], "mean_bits": 3.0}):
        step = Step(kind="allocate", at=("*",), role="allocate", options=options)
        with pytest.raises(ConfigError, match="allocate: "):
            run_recipe(ctx, Recipe(name="mine", passes=(QUANTIZE, step)))
