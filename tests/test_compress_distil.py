"""A whole network that learns to answer as it did before it was rounded."""

from __future__ import annotations

import pytest
import torch

from edgeperc.errors import ConfigError, ModelError
from edgeperc.offline.compress.adapters.opening import subject_for
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.engine import error_of, finish
from edgeperc.offline.compress.passes import PassResult
from edgeperc.offline.compress.quantize import quantize
from edgeperc.offline.compress.quantizers.uniform import Uniform
from edgeperc.offline.compress.simulate import Simulated
from edgeperc.offline.compress.sites import choose
from edgeperc.offline.compress.solve.adaround import Rounded
from edgeperc.offline.compress.solve.distil import distance, distil, floats_of, mirrored
from edgeperc.offline.compress.solve.learned_codes import LearnedCodes
from edgeperc.offline.drawn_prompts import ABSENT, CORNERS, FOREGROUND, PADDING

from .tiny_promptable import tiny_sam2

AT = ["image_encoder.trunk.blocks.1", "sam_mask_decoder.transformer.layers.0"]


def quantized() -> Context:
    subject = subject_for(tiny_sam2())
    ctx = Context(
        subject, Simulated(subject.net), subject.noise(4), subject.noise(2, seed=1), seed=3
    )
    quantize(ctx, choose(ctx.sim.sites, AT), weight="uniform3c", act="uniform4", softmax="agq")
    return ctx


@pytest.fixture(scope="module")
def done() -> tuple[Context, PassResult, float, float]:
    """A network that has learnt, and its held-out error before and after."""
    ctx = quantized()
    exact = ctx.outputs(ctx.held_out, exact=True)
    before = error_of(ctx, exact)
    result = distil(
        ctx, choose(ctx.sim.sites, AT), iters=60, code_rate=1e-2, step_rate=2e-3, float_rate=5e-4
    )
    return ctx, result, before, error_of(ctx, exact)


def test_it_errs_less_on_what_it_did_not_learn_from(
    done: tuple[Context, PassResult, float, float],
) -> None:
    _, result, before, after = done
    assert after < 0.8 * before
    losses = result.details["losses"]
    assert len(losses) == 60
    assert sum(losses[-10:]) < sum(losses[:10])


def test_in_the_end_all_is_hard_whole_and_on(
    done: tuple[Context, PassResult, float, float],
) -> None:
    ctx, _, _, after = done
    fresh = quantized()
    weights = {key: q for key, q in ctx.sim.quantizers.items() if key.endswith(":weight")}
    assert weights
    assert all(isinstance(q, Rounded) for q in weights.values())
    moved = 0
    for key, q in weights.items():
        other = fresh.sim.quantizers[key]
        moved += int((q.codes != other.quantize(fresh.sim.original(key[:-7]))).sum())
        assert not torch.equal(q.grid.scale, other.scale), f"{key}: its scale learnt nothing"
    assert moved, "no weight has another code"
    finish(ctx)  # refuses whatever is soft, off or no integer
    with fresh.sim.off():
        exact = fresh.outputs(fresh.held_out)
    assert error_of(ctx, exact) == pytest.approx(after, rel=1e-3), "folding changes answers"


def test_biases_and_norms_learn_and_nothing_else_in_full_precision(
    done: tuple[Context, PassResult, float, float],
) -> None:
    ctx, before = done[0], dict(tiny_sam2().named_parameters())
    learnt = {id(p) for p in floats_of(ctx.net)}
    moved = {
        name
        for name, p in ctx.net.named_parameters()
        if name in before and not torch.equal(p, before[name])
    }
    assert moved
    assert all(id(p) in learnt for n, p in ctx.net.named_parameters() if n in moved)
    assert any(name.endswith("norm1.weight") for name in moved)
    assert all(p.requires_grad for p in ctx.net.parameters()), "parameters are left frozen"


def test_the_same_answers_are_no_distance_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = 4 * torch.randn(3, 4, 8, 8, generator=generator)
    exact = {"masks": masks, "ious": torch.rand(3, 4, generator=generator)}
    assert float(distance(exact, exact)) == pytest.approx(0, abs=1e-6)
    assert float(distance({**exact, "masks": masks + 0.3}, exact)) > 1e-3
    assert float(distance({**exact, "ious": exact["ious"] + 0.1}, exact)) > 1e-3


def test_a_small_mask_counts_as_much_as_a_large_one() -> None:
    def square(side: int, sign: float) -> torch.Tensor:
        logits = torch.full((1, 1, 32, 32), -8.0)
        logits[..., :side, :side] = 8.0 * sign
        return logits

    ious = torch.zeros(1, 1)
    lost = [
        float(
            distance(
                {"masks": square(side, -1), "ious": ious}, {"masks": square(side, 1), "ious": ious}
            )
        )
        for side in (8, 16)
    ]
    assert lost[0] == pytest.approx(lost[1], rel=0.3), "of 4 times the area"


def test_a_mirrored_sample_points_at_the_same_place() -> None:
    picture = torch.zeros(1, 3, 16, 16)
    picture[0, :, 5, 2] = 1
    points = torch.tensor([[[2.0, 5.0], [0, 0], [0, 0]], [[1.0, 4.0], [3.0, 6.0], [0, 0]]])
    labels = torch.tensor([[FOREGROUND, PADDING, ABSENT], [*CORNERS, PADDING]])
    other = mirrored({"picture": picture, "points": points, "labels": labels})
    x, y = (int(v) for v in other["points"][0, 0])
    assert float(other["picture"][0, 0, y, x]) == 1
    assert other["points"][1, :2].tolist() == [[12, 4], [14, 6]]
    assert torch.equal(other["points"][:, 2], points[:, 2])
    twice = mirrored({**other})
    assert torch.equal(twice["points"], points)
    assert torch.equal(twice["picture"], picture)
    assert float(points[0, 0, 0]) == 2, "the sample itself was changed"


def test_a_weight_starts_with_the_codes_it_has_and_crosses_over_when_moved() -> None:
    weight = torch.randn(6, 20, generator=torch.Generator().manual_seed(2))
    grid = Uniform(4, symmetric=True, axis=0)
    grid.fit(weight)
    grid.enabled = True
    other = grid.quantize(weight)
    other[0, 0] += 1  # as reconstruction may round it
    rounded = Rounded(grid, other)
    rounded.enabled = True
    learned = LearnedCodes(rounded, weight)
    assert torch.equal(learned.quantize(weight), other)
    torch.testing.assert_close(learned(weight).detach(), grid.dequantize(other))
    learned(weight).sum().backward()  # type: ignore[no-untyped-call]
    assert learned.place.grad is not None
    assert bool((learned.place.grad != 0).any())
    with torch.no_grad():
        learned.place[1, 1] += 1 if other[1, 1] < 7 else -1
    assert not torch.equal(learned.settled().codes.float(), other)


def test_a_network_that_is_not_asked_by_prompts_is_refused() -> None:
    ctx = quantized()
    ctx.samples = [{"voxel": torch.zeros(1, 2, 8, 8)}]
    with pytest.raises(ConfigError, match="asked by prompts"):
        distil(ctx, choose(ctx.sim.sites, AT), iters=1)


def test_an_error_that_is_no_number_ends_it() -> None:
    ctx = quantized()
    ctx.samples = [{**ctx.samples[0], "picture": ctx.samples[0]["picture"] * torch.inf}]
    with pytest.raises(ModelError, match="at step 0"):
        distil(ctx, choose(ctx.sim.sites, AT), iters=2)
