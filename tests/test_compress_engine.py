"""What the engine lets passes do, and what it undoes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from edgeperc.errors import ModelError
from edgeperc.offline.compress import passes
from edgeperc.offline.compress.adapters.opening import subject_for
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.engine import run_recipe
from edgeperc.offline.compress.passes import PassResult
from edgeperc.offline.compress.recipe import Recipe, Step
from edgeperc.offline.compress.simulate import Simulated
from edgeperc.offline.compress.sites import Site

from .tiny_promptable import tiny_sam2

FC1, FC2 = (f"image_encoder.trunk.blocks.0.mlp.layers.{i}" for i in (0, 1))
QUANTIZE = Step(
    kind="quantize",
    at=("image_encoder.trunk.blocks.0", "!*.tap_*"),
    role="quantize",
    options={"weight": "uniform6c", "act": "uniform6"},
)


def context() -> Context:
    subject = subject_for(tiny_sam2())
    sim = Simulated(subject.net)
    return Context(subject, sim, subject.noise(2), subject.noise(2, seed=1))


def recipe(*steps: Step) -> Recipe:
    return Recipe(name="mine", passes=steps)


@pytest.fixture
def a_pass(monkeypatch: pytest.MonkeyPatch) -> Any:
    def register(role: str, work: Any) -> Step:
        kind = f"my_{role}"
        monkeypatch.setitem(passes.PASSES, kind, (role, "unused:unused"))
        before = passes.function_of

        def function_of(name: str) -> Any:
            return work if name == kind else before(name)

        monkeypatch.setattr("edgeperc.offline.compress.engine.function_of", function_of)
        monkeypatch.setattr(passes, "function_of", function_of)
        return Step(kind=kind, at=("*",), role=role, options={})

    return register


def weight_of(ctx: Context, name: str) -> torch.Tensor:
    return ctx.sim.original(name)


def test_a_run_leaves_a_checked_network_and_a_ledger() -> None:
    ctx = context()
    ledger = run_recipe(ctx, recipe(QUANTIZE))
    ctx.sim.check()
    (row,) = ledger.rows
    assert (row.kind, row.kept, row.error_before) == ("quantize", True, 0)
    assert 0 < row.error_after < 0.1
    assert row.seconds > 0
    assert row.sites == len(row.details["sites"]) == 4
    assert ledger.as_json()["rows"][0]["details"]["options"] == QUANTIZE.options
    assert set(ledger.scores) == {"full precision", "compressed"}
    assert ledger.recipe_sha256 == recipe(QUANTIZE).sha256


def test_the_same_seed_gives_the_same_network_and_another_may_not() -> None:
    states = []
    for _ in range(2):
        ctx = context()
        run_recipe(ctx, recipe(QUANTIZE))
        states.append(ctx.net.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_transform_that_keeps_the_answers_stays(a_pass: Any) -> None:
    def turn(ctx: Context, at: list[Site]) -> PassResult:
        order = torch.randperm(weight_of(ctx, FC1).shape[0])
        with torch.no_grad():
            fc1: Any = ctx.sim.sites[FC1].module
            for values in (fc1.weight, fc1.bias):
                values.copy_(values[order])
            weight_of(ctx, FC2).copy_(weight_of(ctx, FC2)[:, order])
        return PassResult(notes=["turned"])

    ctx = context()
    before = weight_of(ctx, FC1).clone()
    ledger = run_recipe(ctx, recipe(a_pass("transform", turn), QUANTIZE))
    assert ledger.rows[0].kept
    assert ledger.rows[0].notes == ("turned",)
    assert not torch.equal(weight_of(ctx, FC1), before)


def test_a_transform_that_changes_the_answers_is_undone_and_named(a_pass: Any) -> None:
    def spoil(ctx: Context, at: list[Site]) -> PassResult:
        layer: Any = ctx.sim.sites[FC2].module
        with torch.no_grad():
            layer.weight.mul_(1.001)
        layer.bias = nn.Parameter(layer.bias + 0.001)
        return PassResult()

    ctx = context()
    before = {key: value.clone() for key, value in ctx.net.state_dict().items()}
    exact = ctx.outputs(ctx.held_out)
    step = a_pass("transform", spoil)
    ledger = run_recipe(ctx, recipe(step, QUANTIZE))
    row = ledger.rows[0]
    assert not row.kept
    assert "in full precision moved by" in row.notes[0]
    assert row.error_after > 0
    other = context()
    run_recipe(other, recipe(QUANTIZE))
    state = other.net.state_dict()
    assert all(torch.equal(state[key], value) for key, value in ctx.net.state_dict().items())
    assert ledger.rows[1].error_before == 0
    assert before.keys() <= {
        key.replace(".parametrizations.weight.original", ".weight") for key in state
    }
    assert exact


@pytest.mark.parametrize(("factor", "kept"), [(20.0, False), (1.0, True)])
def test_a_solver_stays_only_if_the_held_out_error_does_not_rise(
    a_pass: Any, factor: float, kept: bool
) -> None:
    def solve(ctx: Context, at: list[Site]) -> PassResult:
        q: Any = ctx.sim.quantizers[f"{FC2}:input"]
        q.scale.mul_(factor)
        return PassResult()

    ctx = context()
    ledger = run_recipe(ctx, recipe(QUANTIZE, a_pass("solve", solve)))
    row = ledger.rows[1]
    assert row.kept is kept
    assert any("held-out error rose" in note for note in row.notes) is not kept
    other = context()
    run_recipe(other, recipe(QUANTIZE))
    scale = ctx.sim.quantizers[f"{FC2}:input"].scale
    assert torch.equal(scale, other.sim.quantizers[f"{FC2}:input"].scale)  # type: ignore[arg-type]


def test_a_solver_that_leaves_a_soft_weight_is_refused(a_pass: Any) -> None:
    class Soft(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight * 1.001

    def solve(ctx: Context, at: list[Site]) -> PassResult:
        ctx.sim.quantizers[f"{FC1}:input"].enabled = False
        return PassResult()

    with pytest.raises(ModelError, match="quantizer is off"):
        run_recipe(context(), recipe(QUANTIZE, a_pass("clip", solve)))


def test_sites_whose_bits_change_are_fitted_again(a_pass: Any) -> None:
    def spend(ctx: Context, at: list[Site]) -> PassResult:
        return PassResult(details={"bits": {FC1: 3, FC2: 8}})

    ctx = context()
    ledger = run_recipe(ctx, recipe(QUANTIZE, a_pass("allocate", spend)))
    assert [row.kind for row in ledger.rows] == ["quantize", "my_allocate", "quantize"]
    for name, bits in ((FC1, 3), (FC2, 8)):
        for part in ("weight", "input"):
            assert ctx.sim.quantizers[f"{name}:{part}"].bits == bits
    qkv = FC1.replace("mlp.layers.0", "attn.qkv")
    assert ctx.sim.quantizers[f"{qkv}:weight"].bits == 6
    assert ledger.rows[2].error_after != ledger.rows[2].error_before


def test_a_broken_network_names_its_first_broken_site() -> None:
    ctx = context()
    with torch.no_grad():
        weight_of(ctx, FC2)[0, 0] = torch.inf
    with pytest.raises(ModelError, match=rf"^{FC2.replace('.', '[.]')}: what it gives"):
        run_recipe(ctx, recipe(QUANTIZE))


def test_one_sample_is_calibrated_with_and_warned_of() -> None:
    ctx = context()
    ctx.samples = ctx.samples[:1]
    ledger = run_recipe(ctx, recipe(QUANTIZE))
    assert any("one sample alone" in warning for warning in ledger.warnings)
    assert any("one sample alone" in line for line in ledger.lines())
