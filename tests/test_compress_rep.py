"""Rescaled norms: answers stay what they were, and one grid does what a grid for each did."""

import pytest
import torch
from torch import nn

from edgeperc.errors import ConfigError, ModelError
from edgeperc.offline.compress.adapters.sam import SamSubject
from edgeperc.offline.compress.adapters.sam2 import Sam2Subject
from edgeperc.offline.compress.adapters.sltnet import SltnetSubject
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.engine import run_recipe
from edgeperc.offline.compress.norms import norms_of
from edgeperc.offline.compress.quantize import quantize
from edgeperc.offline.compress.quantizers.given import Given, GivenGrid
from edgeperc.offline.compress.recipe import load_recipe
from edgeperc.offline.compress.simulate import Simulated
from edgeperc.offline.compress.sites import choose
from edgeperc.offline.compress.transforms.channel_grids import (
    Grid,
    channel_grids,
    common_grid,
    on_grid,
    scales_alone,
)
from edgeperc.offline.compress.transforms.rep import importance, move, rep
from edgeperc.offline.nets.prompt_encoder import LayerNorm2d
from edgeperc.offline.nets.sltnet import SLTNet

from .tiny_promptable import tiny_sam, tiny_sam2

CHANNELS, BITS = 12, 4
EPS = 1e-12


def random_norm(kind, seed):
    """A norm with outlier channels, one that is 0 and one that is constant."""
    torch.manual_seed(seed)
    norm = kind(CHANNELS).double()
    with torch.no_grad():
        norm.weight.copy_(torch.randn(CHANNELS))
        norm.bias.copy_(0.5 * torch.randn(CHANNELS))
        norm.weight[::5] *= 30
        norm.weight[1:3] = 0
        norm.bias[1], norm.bias[2] = 0, -0.7
    return norm


def linears(seed, count, *, bias=True):
    torch.manual_seed(100 + seed)
    return [nn.Linear(CHANNELS, 7, bias=bias).double() for _ in range(count)]


def convolutions(seed, groups=1, **options):
    torch.manual_seed(100 + seed)
    return [nn.Conv2d(CHANNELS, 2 * CHANNELS, 1, groups=groups, **options).double()]


CASES = {
    "fan-out": lambda seed: (nn.LayerNorm, linears(seed, 3)),
    "no bias": lambda seed: (nn.LayerNorm, linears(seed, 1, bias=False)),
    "some without bias": lambda seed: (
        nn.LayerNorm,
        [*linears(seed, 1), *linears(seed + 1, 1, bias=False)],
    ),
    "1x1": lambda seed: (LayerNorm2d, convolutions(seed)),
    "1x1 without bias": lambda seed: (LayerNorm2d, convolutions(seed, bias=False)),
    "depthwise": lambda seed: (LayerNorm2d, convolutions(seed, groups=CHANNELS)),
    "groups": lambda seed: (LayerNorm2d, convolutions(seed, groups=3)),
}


def inputs(kind, seed):
    torch.manual_seed(200 + seed)
    shape = (2, CHANNELS, 9, 9) if kind is LayerNorm2d else (2, 81, CHANNELS)
    return 3 * torch.randn(shape, dtype=torch.float64)


def rows_of(normed, kind):
    return (normed.movedim(1, -1) if kind is LayerNorm2d else normed).flatten(0, -2)


def by_channel(normed, kind, grid, bits=BITS):
    """Each channel on its own grid."""
    last = normed.movedim(1, -1) if kind is LayerNorm2d else normed
    near = on_grid(last, grid, bits)
    return near.movedim(-1, 1) if kind is LayerNorm2d else near


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_the_products_stay_what_they_were(case, seed):
    kind, readers = CASES[case](seed)
    norm, x = random_norm(kind, seed), inputs(kind, seed)
    exact = [reader(norm(x)) for reader in readers]
    grids = channel_grids(rows_of(norm(x), kind), BITS)
    move(norm, readers, grids, common_grid(grids, BITS))
    for reader, expected in zip(readers, exact, strict=True):
        torch.testing.assert_close(reader(norm(x)), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("target", [None, 0.003, 0.25, 1.0, 17.0])
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_one_grid_does_what_the_channels_grids_did(case, target):
    """For any target scale, and an integer zero point: equal codes, and equal products."""
    kind, readers = CASES[case](0)
    norm, x = random_norm(kind, 0), inputs(kind, 0)
    grids = channel_grids(rows_of(norm(x), kind), BITS)
    codes_of_channels = codes(rows_of(norm(x), kind), grids)
    wanted = [reader(by_channel(norm(x), kind, grids)) for reader in readers]
    common = common_grid(grids, BITS)
    if target is not None:
        common = Grid(torch.tensor(target, dtype=torch.float64), common.zero)
    move(norm, readers, grids, common)
    one = Given(GivenGrid(common.scale, common.zero, BITS))
    assert torch.equal(one.quantize(rows_of(norm(x), kind)), codes_of_channels)
    for reader, expected in zip(readers, wanted, strict=True):
        got = reader(one.dequantize(one.quantize(norm(x))))
        torch.testing.assert_close(
            got, expected, rtol=1e-12, atol=1e-12 * float(expected.abs().max())
        )


def codes(rows, grids):
    """Codes of each channel on its own grid; a channel of zeros has the common zero point."""
    zero = torch.where(grids.scale > 0, grids.zero, common_grid(grids, BITS).zero)
    scale = torch.where(grids.scale > 0, grids.scale, 1.0)
    return (torch.round(rows / scale) + zero).clamp(0, 2**BITS - 1)


@torch.no_grad()
def test_a_zero_point_that_is_no_integer_is_another_grid():
    """What the published code does; the check above can fail."""
    kind, readers = CASES["fan-out"](0)
    norm, x = random_norm(kind, 0), inputs(kind, 0)
    grids = channel_grids(rows_of(norm(x), kind), BITS)
    expected = readers[0](by_channel(norm(x), kind, grids))
    common = common_grid(grids, BITS)
    common = common._replace(zero=common.zero + 0.4)
    move(norm, readers, grids, common)
    rounded = Given(GivenGrid(common.scale, common.zero.round(), BITS))
    got = readers[0](rounded.dequantize(rounded.quantize(norm(x))))
    assert (got - expected).abs().max() > 0.01 * expected.abs().max()


@pytest.mark.parametrize("kind", [nn.LayerNorm, LayerNorm2d])
@torch.no_grad()
def test_without_a_shift_zeros_stay_zeros_and_codes_are_equal(kind):
    """Zeros beside the norm's output: a 3 x 3 convolution's edge, a padded window."""
    norm, x = random_norm(kind, 0), inputs(kind, 0)
    torch.manual_seed(3)
    readers = [
        nn.Conv2d(CHANNELS, 5, 3, padding=1, bias=False).double()
        if kind is LayerNorm2d
        else nn.Linear(CHANNELS, 5).double()
    ]
    padded = torch.cat([norm(x), torch.zeros_like(x[:1])])
    grids = scales_alone(rows_of(padded, kind), BITS, importance(readers))
    common = common_grid(grids, BITS)
    exact = readers[0](padded)
    wanted = readers[0](by_channel(padded, kind, grids))
    move(norm, readers, grids, common)
    again = torch.cat([norm(x), torch.zeros_like(x[:1])])
    torch.testing.assert_close(readers[0](again), exact, rtol=1e-10, atol=1e-10)
    one = Given(GivenGrid(common.scale, common.zero, BITS))
    got = readers[0](one.dequantize(one.quantize(again)))
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10 * float(wanted.abs().max()))
    assert readers[0].bias is None or kind is nn.LayerNorm


@torch.no_grad()
def test_a_convolution_that_pads_is_not_shifted():
    norm = random_norm(LayerNorm2d, 0)
    grids = channel_grids(rows_of(norm(inputs(LayerNorm2d, 0)), LayerNorm2d), BITS)
    before = norm.weight.clone()
    with pytest.raises(ModelError, match="pads"):
        move(norm, [nn.Conv2d(CHANNELS, 3, 3, padding=1)], grids, common_grid(grids, BITS))
    assert torch.equal(norm.weight, before)


def test_readers_that_are_quantized_or_no_layers_are_refused():
    norm, (reader,) = random_norm(nn.LayerNorm, 0), linears(0, 1)
    grids = Grid(torch.ones(CHANNELS).double(), torch.zeros(CHANNELS).double())
    with pytest.raises(ModelError, match="GELU"):
        move(norm, [nn.GELU()], grids, common_grid(grids, BITS))
    with pytest.raises(ModelError, match="without a weight"):
        move(nn.LayerNorm(CHANNELS, elementwise_affine=False), [reader], grids, grids)
    nn.utils.parametrize.register_parametrization(reader, "weight", nn.Identity())
    with pytest.raises(ModelError, match="quantized"):
        move(norm, [reader], grids, common_grid(grids, BITS))


@torch.no_grad()
def test_a_single_channel_moves():
    norm, reader = nn.LayerNorm(1), nn.Linear(1, 3)
    norm.bias.fill_(0.4)
    x = torch.randn(50, 1)
    exact = reader(norm(x))
    grids = channel_grids(norm(x), BITS)
    common = common_grid(grids, BITS)
    move(norm, [reader], grids, common)
    torch.testing.assert_close(reader(norm(x)), exact, rtol=1e-5, atol=1e-6)


def test_importance_is_of_what_a_channel_is_read_with():
    linear = linears(0, 1)[0]
    torch.testing.assert_close(importance([linear]), linear.weight.square().sum(0))
    (plain,), (grouped,) = convolutions(0), convolutions(0, groups=3)
    torch.testing.assert_close(
        importance([linear, plain]),
        linear.weight.square().sum(0) + plain.weight.square().sum((0, 2, 3)),
    )
    by_hand = torch.zeros(CHANNELS).double()
    for output in range(2 * CHANNELS):
        group = output // 8
        by_hand[4 * group : 4 * group + 4] += grouped.weight[output, :, 0, 0].square()
    torch.testing.assert_close(importance([grouped]), by_hand)


# ---- the pass on networks


def context(net, subject, samples=2, seed=0):
    torch.manual_seed(seed)
    side = net.config.picture_px
    given = [
        {
            "picture": torch.randn(1, 3, side, side),
            "points": side * torch.rand(3, 2, 2),
            "labels": torch.tensor([[1.0, -1.0]]).repeat(3, 1),
        }
        for _ in range(samples)
    ]
    kind = next(net.parameters()).dtype
    given = [{name: values.to(kind) for name, values in each.items()} for each in given]
    return Context(subject=subject, sim=Simulated(net), samples=given, held_out=[])


def lively_norms(net, seed, spread=1.0):
    """Norms as in trained networks: some channels are large, one is nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for norm in norms_of(net).values():
            size = norm.module.weight.shape
            norm.module.weight.copy_(torch.exp(spread * torch.randn(size, generator=generator)))
            norm.module.bias.copy_(torch.randn(size, generator=generator))
            norm.module.weight[0] = norm.module.bias[0] = 0
    return net


def subjects(seed, **options):
    sam, sam2 = tiny_sam(seed), tiny_sam2(seed, **options)
    return {"sam": (sam, SamSubject(sam)), "sam2": (sam2, Sam2Subject(sam2))}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("which", ["sam", "sam2"])
def test_a_network_answers_as_before(which, seed):
    """In double precision, in which nothing but the transform could make a difference."""
    net, subject = subjects(seed)[which]
    ctx = context(lively_norms(net, seed).double(), subject, seed=seed)
    exact = ctx.outputs(ctx.samples)
    result = rep(ctx, choose(ctx.sim.sites, "*"), bits=4)
    assert len(result.details["norms"]) >= 5
    for found, expected in zip(ctx.outputs(ctx.samples), exact, strict=True):
        for name, values in expected.items():
            away = (found[name] - values).abs().max() / values.abs().max()
            assert away < 1e-11, (name, float(away))


@pytest.mark.parametrize("which", ["sam", "sam2"])
def test_a_network_answers_as_before_in_single_precision(which):
    net, subject = subjects(1)[which]
    ctx = context(lively_norms(net, 1), subject)
    exact = ctx.outputs(ctx.samples)
    rep(ctx, choose(ctx.sim.sites, "*"), bits=4)
    for found, expected in zip(ctx.outputs(ctx.samples), exact, strict=True):
        away = (found["masks"] - expected["masks"]).abs().max() / expected["masks"].abs().max()
        assert away < 1e-5


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("which", ["sam", "sam2"])
def test_readers_get_the_common_grid_from_quantize(which, bits):
    net, subject = subjects(0)[which]
    ctx = context(lively_norms(net, 0), subject)
    chosen = choose(ctx.sim.sites, "image_encoder.*")
    details = rep(ctx, chosen, bits=4).details["norms"]
    assert not ctx.sim.quantizers
    quantize(ctx, chosen, weight=f"uniform{bits}c", act=f"uniform{bits}")
    for told in details.values():
        for reader in told["readers"]:
            q = ctx.sim.quantizers[f"{reader}:input"]
            assert q.enabled
            assert q.bits == bits
            given = (float(q.scale), int(q.zero)) == (told["scale"], told["zero"])
            # A grid of four bits is no good one for eight.
            assert given == isinstance(q, Given) == (bits == 4)
    ctx.sim.fold()
    ctx.sim.check()


@pytest.mark.parametrize("which", ["sam", "sam2"])
def test_networks_with_large_channels_err_less(which):
    """Norms' channels differ tenfold and more here; weights stay float, to see the inputs alone."""
    errors = []
    for rescale in (False, True):
        net, subject = subjects(0)[which]
        ctx = context(lively_norms(net, 0, spread=2.0), subject)
        exact = ctx.outputs(ctx.samples)[0]["masks"]
        chosen = choose(ctx.sim.sites, ["image_encoder.*.qkv", "image_encoder.*.mlp"])
        if rescale:
            rep(ctx, chosen, bits=4)
        readers = {reader for norm in norms_of(net).values() for reader in norm.consumers}
        at = [site for site in chosen if site.name in readers]
        quantize(ctx, at, weight="none", act="uniform4")
        errors.append(float((ctx.outputs(ctx.samples)[0]["masks"] - exact).square().mean()))
    assert errors[1] < 0.5 * errors[0]


def test_a_norm_with_padded_windows_is_not_shifted_and_others_are():
    net, subject = subjects(0)["sam2"]
    ctx = context(lively_norms(net, 0), subject)
    details = rep(ctx, choose(ctx.sim.sites, "image_encoder.*"), bits=4).details["norms"]
    shifted = {name: told["shifted"] for name, told in details.items()}
    norms = norms_of(net)
    assert shifted == {name: not norms[name].padded for name in shifted}
    assert set(shifted.values()) == {True, False}
    biases = [net.get_submodule(n.consumers[0]).bias for n in norms.values() if n.padded]
    assert len(biases) == 1


def test_a_shift_under_padding_would_be_seen():
    """The equality above guards the rule: without it the padded windows answer otherwise."""
    net, subject = subjects(0)["sam2"]
    ctx = context(lively_norms(net, 0), subject)
    exact = ctx.outputs(ctx.samples)[0]["masks"]
    padded = {name: norm for name, norm in norms_of(net).items() if norm.padded}
    for norm in padded.values():
        readers = [net.get_submodule(name) for name in norm.consumers]
        rows = ctx.capture([norm.consumers[0]])[norm.consumers[0]][0].flatten(0, -2)
        grids = channel_grids(rows, 4)
        move(norm.module, readers, grids, common_grid(grids, 4))
    away = (ctx.outputs(ctx.samples)[0]["masks"] - exact).abs().max() / exact.abs().max()
    assert away > 1e-4


def test_what_no_sample_reaches_is_left_and_named():
    net, subject = subjects(0)["sam2"]
    ctx = context(net, subject)
    before = net.memory_attention.layers[0].norm1.weight.clone()
    result = rep(ctx, choose(ctx.sim.sites, "*"), bits=4)
    assert "memory_attention.layers.0.norm1" not in result.details["norms"]
    assert "no sample comes by there: memory_attention.layers.0.norm1" in result.notes[1]
    assert torch.equal(net.memory_attention.layers[0].norm1.weight, before)


def test_a_selection_without_readers_of_a_norm_is_refused():
    net, subject = subjects(0)["sam"]
    ctx = context(net, subject)
    with pytest.raises(ConfigError, match="rep"):
        rep(ctx, choose(ctx.sim.sites, "*.mlp.lin2"), bits=4)


def test_readers_that_are_not_chosen_are_rescaled_too_and_get_no_quantizer():
    net, subject = subjects(0)["sam2"]
    ctx = context(net, subject)
    exact = ctx.outputs(ctx.samples)[0]["masks"]
    rep(ctx, choose(ctx.sim.sites, "image_encoder.trunk.blocks.1.proj"), bits=4)
    for name, given in (("proj", True), ("attn.qkv", False)):
        layer = net.get_submodule(f"image_encoder.trunk.blocks.1.{name}")
        assert hasattr(layer, "given_grid") == given
    torch.testing.assert_close(ctx.outputs(ctx.samples)[0]["masks"], exact, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_batch_norm_before_a_depthwise_convolution_moves():
    torch.manual_seed(0)
    net = SLTNet(4, width=8, blocks=(1, 1, 1)).eval().double()
    x = torch.randn(1, 5, 32, 32).double()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.copy_(torch.exp(torch.randn(module.weight.shape)))
            module.bias.copy_(torch.randn(module.bias.shape))
    exact, norms = net(x), norms_of(net)
    assert norms
    for norm in norms.values():
        readers = [net.get_submodule(name) for name in norm.consumers]
        channels = len(norm.module.weight)
        rows = torch.randn(500, channels).double() * norm.module.weight + norm.module.bias
        grids = channel_grids(rows, BITS)
        move(norm.module, readers, grids, common_grid(grids, BITS))
    torch.testing.assert_close(net(x), exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("which", ["sam", "sam2"])
def test_the_preset_runs_and_its_rescaling_is_kept(which):
    """Of seed 1's small object logits, rounding alone moves more than a transform may."""
    net, subject = subjects(1)[which]
    ctx = context(lively_norms(net, 1), subject, samples=4, seed=1)
    ctx.held_out, ctx.samples, ctx.keep_fp = ctx.samples[2:], ctx.samples[:2], subject.keep_fp
    first, second = run_recipe(ctx, load_recipe("w4a4-rep")).rows
    assert (first.kind, first.kept, second.kind) == ("rep", True, "quantize")
    assert any(isinstance(q, Given) for q in ctx.sim.quantizers.values())
    assert {values.dtype for values in net.parameters()} == {torch.float32}


def test_a_spiking_network_answers_as_before():
    """Its norms before depthwise convolutions move; those before neurons do not."""
    torch.manual_seed(0)
    net = SLTNet(4, width=8, blocks=(1, 1, 1)).double()
    subject = SltnetSubject(net, picture_px=(32, 32))
    given = [{"voxel": sample["voxel"].double()} for sample in subject.noise(2)]
    ctx = Context(subject=subject, sim=Simulated(net), samples=given, held_out=[])
    exact = ctx.outputs(given)
    details = rep(ctx, choose(ctx.sim.sites, "*"), bits=4).details["norms"]
    assert len(details) == 8
    assert {name.rpartition(".")[2] for name in details} == {"2"}
    for found, expected in zip(ctx.outputs(given), exact, strict=True):
        torch.testing.assert_close(found["masks"], expected["masks"], rtol=1e-9, atol=1e-9)
