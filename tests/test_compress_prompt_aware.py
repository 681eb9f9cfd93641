"""What the prompts get to see of a stage is what the network itself would show them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from edgeperc.offline.compress.adapters.opening import subject_for
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.quantize import quantize
from edgeperc.offline.compress.simulate import Simulated
from edgeperc.offline.compress.sites import choose
from edgeperc.offline.compress.solve.calls import calls_of, mixed, tensors_of
from edgeperc.offline.compress.solve.prompt_aware import groups, prompt_units
from edgeperc.offline.compress.solve.reconstruct import reconstruct
from edgeperc.offline.compress.solve.units import Unit

from .tiny_promptable import tiny_sam, tiny_sam2

HIERA, VIT = "image_encoder.trunk.blocks", "image_encoder.blocks"


def context(net: Any) -> Context:
    subject = subject_for(net)
    return Context(subject, Simulated(subject.net), subject.noise(4), subject.noise(2, seed=1))


def units_by_name(ctx: Context) -> dict[str, Unit]:
    with torch.no_grad():
        units = prompt_units(ctx.subject, ctx.sim.sites, ctx.samples[0])
    return {unit.name: unit for unit in units}


@torch.no_grad()
def picture_tokens(ctx: Context, transformer: str) -> Any:
    """What the two-way transformer answers on the first sample: tokens and picture."""
    seen: list[Any] = []
    module = ctx.net.get_submodule(transformer)
    hook = module.register_forward_hook(lambda _, args, out: seen.append(out))
    ctx.subject.run(ctx.net, ctx.samples[0])
    hook.remove()
    return seen[0]


def test_groups_end_with_a_look_at_the_whole() -> None:
    assert groups(0, 12, {2, 5, 8, 11}.__contains__) == [
        range(3),
        range(3, 6),
        range(6, 9),
        range(9, 12),
    ]
    assert groups(3, 10, {5, 7}.__contains__) == [range(3, 6), range(6, 8), range(8, 10)]


def test_hieras_first_stages_are_blocks_and_the_others_are_seen_by_prompts() -> None:
    ctx = context(tiny_sam2(stages=(1, 2, 4, 2), global_blocks=(4, 6)))
    units = units_by_name(ctx)
    stages = [name for name, unit in units.items() if "trunk" in name and unit.kind == "prompt"]
    assert stages == [f"{HIERA}.3-4", f"{HIERA}.5-6", f"{HIERA}.7-8"]
    assert [units[f"{HIERA}.{index}"].kind for index in range(3)] == ["block"] * 3
    for name in ctx.sim.sites:
        assert sum(unit.holds(name) for unit in units.values()) <= 1
    order = [name for name in units if "neck" in name or "trunk.blocks" in name]
    assert order[-1] == "image_encoder.neck.convs.3.conv"
    assert order.index(f"{HIERA}.7-8") < order.index("image_encoder.neck.convs.0.conv")


@pytest.mark.parametrize(
    ("make", "name", "transformer"),
    [
        (tiny_sam, f"{VIT}.0-1", "mask_decoder.transformer"),
        (tiny_sam2, f"{HIERA}.4-4", "sam_mask_decoder.transformer"),
    ],
)
@torch.no_grad()
def test_a_last_stage_shows_what_the_network_shows(make: Any, name: str, transformer: str) -> None:
    ctx = context(make())
    unit, sample = units_by_name(ctx)[name], ctx.samples[0]
    beside, (call,) = unit.beside(sample), unit.calls(sample)
    (same,) = unit.look(unit.run(call), call, beside)
    torch.testing.assert_close(same, picture_tokens(ctx, transformer)[1], rtol=1e-4, atol=1e-4)
    ctx.net.get_submodule(unit.roots[-1]).mlp.get_parameter(
        "lin2.weight" if make is tiny_sam else "layers.1.weight"
    ).mul_(3)
    (changed,) = unit.look(unit.run(call), call, beside)
    torch.testing.assert_close(changed, picture_tokens(ctx, transformer)[1], rtol=1e-4, atol=1e-4)
    assert float((changed - same).abs().max()) > 0.01


@torch.no_grad()
def test_a_layer_shows_its_tokens_and_those_behind_the_last() -> None:
    ctx = context(tiny_sam2())
    transformer = "sam_mask_decoder.transformer"
    final, picture = picture_tokens(ctx, transformer)
    for index in range(2):
        unit = units_by_name(ctx)[f"{transformer}.layers.{index}"]
        (call,) = unit.calls(ctx.samples[0])
        tokens, seen, last = unit.look(unit.run(call), call, None)
        torch.testing.assert_close(last, final)
        assert tokens.shape == last.shape
        assert unit.shares == (0.01, 1.0, 1.0)
    torch.testing.assert_close(seen, picture)


def test_the_loss_of_what_prompts_see_falls() -> None:
    ctx = context(tiny_sam2())
    ctx.samples = ctx.subject.noise(12)
    at = choose(ctx.sim.sites, [f"{HIERA}.2", f"{HIERA}.3", "*transformer.layers.1"])
    quantize(ctx, at, weight="uniform4c", act="uniform4", softmax="agq")
    result = reconstruct(ctx, at, granularity="prompt", iters=40)
    units = result.details["units"]
    assert [unit["kind"] for unit in units] == ["prompt", "prompt"]
    assert all(unit["after"] < 0.95 * unit["before"] for unit in units)
    ctx.sim.check()


def test_what_no_prompt_sees_is_named() -> None:
    ctx = context(tiny_sam2())
    at = choose(ctx.sim.sites, [f"{HIERA}.0", f"{HIERA}.4"])
    quantize(ctx, at, weight="uniform4c", act="uniform4")
    notes = reconstruct(ctx, at, granularity="prompt", iters=1).notes
    assert any("their own output" in note and f"{HIERA}.0" in note for note in notes)


def test_calls_are_kept_as_they_were_before_the_quantizer() -> None:
    ctx = context(tiny_sam2())
    name, sample = f"{HIERA}.1.attn.qkv", ctx.samples[0]

    def call() -> torch.Tensor:
        run = lambda: ctx.subject.run(ctx.net, sample)  # noqa: E731
        return calls_of(ctx.net, name, run)[0].args[0]  # type: ignore[no-any-return]

    exact = call()
    quantize(ctx, choose(ctx.sim.sites, name), act="uniform2", weight="none")
    assert torch.equal(call(), exact)
    generator = torch.Generator().manual_seed(0)
    given, other = (exact, [2 * exact, None], {"n": 3}), (3 * exact, [4 * exact, None], {"n": 3})
    some = mixed(given, other, 0.5, generator)
    assert some[1][1] is None
    assert some[2] == {"n": 3}
    for a, b, c in zip(*(tensors_of(each) for each in (some, given, other)), strict=True):
        assert bool(((a == b) | (a == c)).all())
        assert 0.4 < float((a == b).float().mean()) < 0.6
