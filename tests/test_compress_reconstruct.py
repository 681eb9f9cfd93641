"""Reconstruction errs less on what it was not given, or is put back; in the end all is hard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from edgeperc.errors import ConfigError, ModelError
from edgeperc.offline.compress.adapters.opening import subject_for
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.engine import error_of, finish, run_recipe
from edgeperc.offline.compress.passes import PassResult, function_of, role_of
from edgeperc.offline.compress.quantize import quantize
from edgeperc.offline.compress.quantizers.uniform import Uniform
from edgeperc.offline.compress.recipe import load_recipe
from edgeperc.offline.compress.simulate import Simulated
from edgeperc.offline.compress.sites import choose
from edgeperc.offline.compress.solve import learn_unit as learning_module
from edgeperc.offline.compress.solve import reconstruct as module
from edgeperc.offline.compress.solve.adaround import Rounded
from edgeperc.offline.compress.solve.learning import Learning, put
from edgeperc.offline.compress.solve.reconstruct import reconstruct, units_of
from edgeperc.offline.nets.sltnet import SLTNet

from .tiny_promptable import tiny_sam2

BLOCK = "image_encoder.trunk.blocks.1"
LAYER = "sam_mask_decoder.transformer.layers.0"


def quantized(at: str = BLOCK, work: Path | None = None) -> tuple[Context, list[Any]]:
    """A small network with some sites in four bits."""
    subject = subject_for(tiny_sam2())
    sim = Simulated(subject.net)
    ctx = Context(subject, sim, subject.noise(4), subject.noise(2, seed=1), work=work)
    sites = choose(sim.sites, at)
    quantize(ctx, sites, weight="uniform4c", act="uniform4", softmax="agq")
    return ctx, sites


@pytest.fixture(scope="module")
def done() -> tuple[Context, PassResult, float]:
    """A block and a decoder layer, reconstructed by blocks; and the error before."""
    ctx, sites = quantized()
    both = [*sites, *choose(ctx.sim.sites, LAYER)]
    quantize(ctx, choose(ctx.sim.sites, LAYER), weight="uniform4c", act="uniform4", softmax="agq")
    exact = ctx.outputs(ctx.held_out, exact=True)
    before = error_of(ctx, exact)
    return ctx, reconstruct(ctx, both, iters=60), before


def test_the_held_out_error_falls(done: Any) -> None:
    ctx, result, before = done
    after = error_of(ctx, ctx.outputs(ctx.held_out, exact=True))
    assert after < 0.9 * before
    units = result.details["units"]
    assert [unit["unit"] for unit in units] == [BLOCK, LAYER]
    assert all(unit["after"] < unit["before"] and unit["kept"] for unit in units)


def test_every_weight_of_a_block_is_whole_and_every_quantizer_hard_and_on(done: Any) -> None:
    ctx, _, _ = done
    weights = [key for key in ctx.sim.quantizers if key.endswith(":weight") and BLOCK in key]
    assert len(weights) >= 3
    for key in weights:
        q = ctx.sim.quantizers[key]
        assert isinstance(q, Rounded)
        name = key.removesuffix(":weight")
        scale, zero = q.grid._along(ctx.sim.original(name))
        codes = ctx.net.get_submodule(name).weight / scale + zero
        assert float((codes - codes.round()).abs().max()) < 1e-4
        assert not torch.equal(q.codes, q.grid.quantize(ctx.sim.original(name)).short())
    assert all(q.hard and q.enabled for q in ctx.sim.quantizers.values())
    ctx.sim.check()
    first, second = (ctx.outputs(ctx.held_out)[0]["masks"] for _ in range(2))
    assert torch.equal(first, second)


def test_one_quantizer_off_or_soft_is_refused(done: Any) -> None:
    ctx, _, _ = done
    for key in (f"{BLOCK}.mlp.layers.1:weight", f"{LAYER}.self_attn.tap_k"):
        ctx.sim.quantizers[key].enabled = False
        with pytest.raises(ModelError, match="is off"):
            ctx.sim.check()
        ctx.sim.quantizers[key].enabled = True
    ctx.sim.check()
    learning = Learning(
        ctx.sim, [f"{LAYER}.self_attn.tap_k"], drop=0.5, generator=torch.Generator()
    )
    with pytest.raises(ModelError, match="soft"):
        ctx.sim.check()
    learning.settle()
    ctx.sim.check()


def test_rounding_costs_something_to_the_end_and_its_share_is_told(done: Any) -> None:
    _, result, _ = done
    for unit in result.details["units"]:
        assert 0 < unit["decide_cost"] < 1
        assert 0 < unit["decided"] < 1
    assert any("were decided" in note for note in result.notes)


def test_the_cost_decides_more_than_no_cost() -> None:
    shares = []
    for decide in (0.0, 10.0):
        ctx, sites = quantized()
        (unit,) = reconstruct(ctx, sites, iters=60, decide=decide).details["units"]
        shares.append(unit["decided"])
    assert shares[1] > 1.5 * shares[0]


def test_a_unit_that_errs_more_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    ctx, sites = quantized()
    before = ctx.outputs(ctx.held_out)
    held = dict(ctx.sim.quantizers)

    def spoil(_: Any, learning: Learning, *rest: Any) -> float:
        for each in learning.roundings.values():
            each.v.data.neg_().mul_(50)
        for step in learning.steps.values():
            for p in step.parameters():
                p.data.mul_(3)
        return 0.5

    monkeypatch.setattr(learning_module, "_fit", spoil)
    result = reconstruct(ctx, sites)
    (unit,) = result.details["units"]
    assert not unit["kept"]
    assert unit["after"] > unit["before"]
    assert any("put back" in note for note in result.notes)
    assert {key: id(q) for key, q in held.items()} == {
        key: id(q) for key, q in ctx.sim.quantizers.items()
    }
    for a, b in zip(before, ctx.outputs(ctx.held_out), strict=True):
        assert torch.equal(a["masks"], b["masks"])


def test_a_run_that_was_stopped_goes_on_to_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = "image_encoder.trunk.blocks"
    whole, sites = quantized(at)
    reconstruct(whole, sites, iters=3)
    stopped, sites = quantized(at, tmp_path)
    real, count = module.learn_unit, 0

    def two(*args: Any) -> Any:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(module, "learn_unit", two)
    with pytest.raises(KeyboardInterrupt):
        reconstruct(stopped, sites, iters=3)
    again, sites = quantized(at, tmp_path)
    result = reconstruct(again, sites, iters=3)
    assert count == 3 + 5 - 2  # of five blocks two were kept
    assert any("behind 2 units" in note for note in result.notes)
    for a, b in zip(whole.outputs(whole.held_out), again.outputs(again.held_out), strict=True):
        assert torch.equal(a["masks"], b["masks"])
    other, sites = quantized(at, tmp_path)
    assert not any("went on" in note for note in reconstruct(other, sites, iters=2).notes)


def test_the_network_learns_nothing_itself() -> None:
    ctx, sites = quantized()
    weights = {name: p.clone() for name, p in ctx.net.named_parameters()}
    reconstruct(ctx, sites, iters=4)
    for name, p in ctx.net.named_parameters():
        assert p.requires_grad
        assert p.grad is None
        assert torch.equal(p, weights[name])


def test_granularity_says_what_learns_together() -> None:
    ctx, _ = quantized([BLOCK, "image_encoder.neck"])  # type: ignore[arg-type]
    keys = list(ctx.sim.quantizers)
    layers = units_of(ctx, "layer", keys)
    assert {unit.kind for unit in layers} == {"layer"}
    assert f"{BLOCK}.attn.qkv" in [unit.name for unit in layers]
    blocks = units_of(ctx, "block", keys)
    assert blocks[0].name == BLOCK
    assert sum(unit.kind == "layer" for unit in blocks) == 4  # the neck's
    with pytest.raises(ConfigError, match="unknown granularity 'blocks'"):
        units_of(ctx, "blocks", keys)


def test_layers_of_other_networks_learn_too() -> None:
    torch.manual_seed(0)
    subject = subject_for(SLTNet(3, bins=2, width=8, blocks=(1, 1, 1)).eval())
    subject.picture_px = (32, 32)
    sim = Simulated(subject.net)
    ctx = Context(subject, sim, subject.noise(2), subject.noise(1, seed=1))
    sites = choose(sim.sites, ["stage1", "transformers.0"])
    quantize(ctx, sites, weight="uniform4c", act="uniform4")
    result = reconstruct(ctx, sites, iters=4)
    assert "transformers.0" in [unit["unit"] for unit in result.details["units"]]
    finish(ctx)


def test_one_sample_is_told() -> None:
    ctx, sites = quantized()
    ctx.samples = ctx.samples[:1]
    notes = reconstruct(ctx, sites, iters=2).notes
    assert any("one sample" in note for note in notes)


def test_folded_weights_are_what_was_learned() -> None:
    ctx, sites = quantized()
    reconstruct(ctx, sites, iters=10)
    before = ctx.outputs(ctx.held_out)
    finish(ctx)
    for a, b in zip(before, ctx.outputs(ctx.held_out), strict=True):
        torch.testing.assert_close(a["masks"], b["masks"], rtol=1e-4, atol=1e-4)


def test_put_replaces_and_the_passes_are_known() -> None:
    ctx, _ = quantized()
    key = f"{BLOCK}.attn.qkv:input"
    other = Uniform(8, symmetric=False)
    put(ctx.sim, key, other)
    assert ctx.sim.quantizers[key] is other
    assert (role_of("reconstruct"), role_of("clip.pcc")) == ("solve", "clip")
    assert function_of("reconstruct") is reconstruct


@pytest.mark.parametrize("preset", ["w4a4-prompt", "w4a4-ptq4sam", "w4a4-qdrop"])
def test_presets_load(preset: str) -> None:
    kinds = [each.kind for each in load_recipe(preset).passes if each.role == "solve"]
    assert kinds == ["reconstruct", *(["distil"] if preset == "w4a4-prompt" else [])]


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["w4a4-prompt", "w4a4-ptq4sam", "w4a4-qdrop"])
def test_presets_run_on_a_small_network(preset: str) -> None:
    subject = subject_for(tiny_sam2())
    ctx = Context(
        subject,
        Simulated(subject.net),
        subject.noise(4),
        subject.noise(2, seed=1),
        keep_fp=subject.keep_fp,
    )
    recipe = load_recipe(preset)
    passes = [
        msgspec.structs.replace(each, options={**each.options, "iters": 20})
        if each.role == "solve"
        else each
        for each in recipe.passes
    ]
    ledger = run_recipe(ctx, msgspec.structs.replace(recipe, passes=tuple(passes)))
    rows = [row for row in ledger.rows if row.role == "solve"]
    assert rows[0].kind == "reconstruct"
    for row in rows:
        assert row.kept == (row.error_after <= row.error_before)
