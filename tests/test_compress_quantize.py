from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgeperc.errors import ConfigError, ModelError
from edgeperc.offline.compress.adapters.opening import subject_for
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.engine import error_of
from edgeperc.offline.compress.quantize import channel_axis, plan_of, quantize
from edgeperc.offline.compress.simulate import Simulated
from edgeperc.offline.compress.sites import choose, sites_of
from edgeperc.offline.nets.sltnet import SLTNet
from edgeperc.offline.nets.taps import Attention

from .tiny_promptable import tiny_sam, tiny_sam2


def context(net: nn.Module, **options: Any) -> Context:
    subject: Any = subject_for(net)
    for name, value in options.items():
        setattr(subject, name, value)
    sim = Simulated(subject.net)
    return Context(subject, sim, subject.noise(2), subject.noise(2, seed=1))


@pytest.mark.parametrize("make", [tiny_sam2, tiny_sam])
def test_eight_bits_are_near_and_four_are_farther(make: Any) -> None:
    errors = []
    for bits in (8, 4):
        ctx = context(make())
        exact = ctx.outputs(ctx.held_out)
        encoder = choose(ctx.sim.sites, "image_encoder")
        quantize(ctx, encoder, weight=f"uniform{bits}c", act=f"uniform{bits}")
        ctx.sim.fold()
        ctx.sim.check()
        errors.append(error_of(ctx, exact))
    assert errors[0] < 0.05
    assert errors[0] < 0.1 * errors[1]


def test_each_kind_of_site_gets_its_quantizers() -> None:
    ctx = context(tiny_sam2())
    at = choose(ctx.sim.sites, ["*.blocks.0", "sam_mask_decoder.output_upscaling"])
    quantize(ctx, at, softmax="uniform8-minmax", matmul="uniform6")
    block = "image_encoder.trunk.blocks.0.attn"
    keys = set(ctx.sim.quantizers)
    assert {f"{block}.qkv:weight", f"{block}.qkv:input"} <= keys
    for tap, bits in (("tap_q", 6), ("tap_k", 6), ("tap_v", 6), ("tap_softmax", 8)):
        assert ctx.sim.quantizers[f"{block}.{tap}"].bits == bits
    assert not {f"{block}.tap_logits", f"{block}.tap_out"} & keys
    up: Any = ctx.sim.quantizers["sam_mask_decoder.output_upscaling.0:weight"]
    assert up.axis == 1
    assert len(up.scale) == 32


def test_none_leaves_float_and_bits_go_over_names() -> None:
    ctx = context(tiny_sam2())
    at = choose(ctx.sim.sites, "image_encoder.trunk.blocks.0")
    quantize(ctx, at, act="none", bits=3)
    assert {key.rpartition(":")[2] for key in ctx.sim.quantizers} == {"weight"}
    assert {q.bits for q in ctx.sim.quantizers.values()} == {3}


def test_what_no_sample_reaches_stays_float_and_is_named() -> None:
    ctx = context(tiny_sam2())
    result = quantize(ctx, choose(ctx.sim.sites, ["memory_encoder", "*.patch_embed"]))
    assert {key.partition(":")[0] for key in ctx.sim.quantizers} == {
        "image_encoder.trunk.patch_embed.proj"
    }
    (note,) = result.notes
    assert "memory_encoder" in note
    assert list(result.details["sites"]) == ["image_encoder.trunk.patch_embed.proj"]


def test_inputs_are_fitted_to_full_precision_even_when_all_is_quantized_already() -> None:
    scales = []
    for rounds in (1, 2):
        ctx = context(tiny_sam2())
        at = choose(ctx.sim.sites, "*.trunk.blocks.[34]")
        for _ in range(rounds):
            quantize(ctx, at, weight="uniform2c", act="uniform2")
        last: Any = ctx.sim.quantizers["image_encoder.trunk.blocks.4.mlp.layers.1:input"]
        scales.append(float(last.scale))
    assert scales[0] == pytest.approx(scales[1])


class Looker(nn.Module):
    """Attention alone: each place looks mostly at itself, or at many, some of them more."""

    def __init__(self, *, peaked: bool) -> None:
        super().__init__()
        self.attn, self.peaked = Attention(), peaked
        self.q, self.k = torch.randn(1, 2, 49, 16), torch.randn(1, 2, 49, 16)

    def forward(self, x: Tensor) -> Tensor:
        if self.peaked:
            eye = torch.eye(x.shape[-2]).expand(*x.shape[:-2], -1, -1)
            sharp = torch.linspace(4.5, 8, x.shape[-2])[:, None]
            return self.attn.attend(sharp * eye, eye, x, scale=1.0)
        return self.attn.attend(self.q, self.k, x, scale=0.5)


class Looked:
    """Just enough of a subject."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def run(self, net: nn.Module, sample: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"masks": net(sample["x"])}


@pytest.mark.parametrize(("peaked", "chosen"), [(False, "LogSqrt2"), (True, "Uniform")])
@pytest.mark.parametrize("turned", [False, True])
def test_the_grid_of_shares_is_chosen_by_the_error_of_what_they_sum(
    peaked: bool, chosen: str, turned: bool
) -> None:
    torch.manual_seed(0)
    net = Looker(peaked=peaked)
    samples = [{"x": torch.randn(1, 2, 49, 8)} for _ in range(3)]
    subject: Any = Looked(net)
    ctx = Context(subject, Simulated(net), samples, samples)
    at = choose(ctx.sim.sites, "attn.tap_softmax")
    choice = ["uniform", "log_sqrt2"]
    quantize(ctx, at, act="uniform4", softmax=choice[::-1] if turned else choice)
    assert type(ctx.sim.quantizers["attn.tap_softmax"]).__name__ == chosen
    assert ctx.sim.quantizers["attn.tap_softmax"].bits == 4


@pytest.mark.parametrize(
    "options",
    [{"act": "uniform8c"}, {"weight": "unifrom8"}, {"softmax": ["uniform4", "logg"]}],
)
def test_names_that_mean_nothing_there_are_an_error(options: dict[str, Any]) -> None:
    given = {"weight": "uniform8c", "act": "uniform8", "matmul": None, "softmax": "none", **options}
    with pytest.raises(ConfigError):
        plan_of(list(sites_of(tiny_sam2()).values()), **given)


def test_a_network_for_events_is_quantized_but_for_its_neurons() -> None:
    torch.manual_seed(0)
    ctx = context(SLTNet(6, width=4, blocks=(0, 0, 1)).eval(), picture_px=(16, 24))
    quantize(ctx, choose(ctx.sim.sites, ["*", "!stem.0.conv", "!classifier"]))
    ctx.sim.fold()
    ctx.sim.check()
    assert not any("lif" in key for key in ctx.sim.quantizers)
    assert channel_axis(ctx.sim.sites["up1.conv"].module) == 1


def test_samples_that_are_not_finite_name_the_first_site() -> None:
    ctx = context(tiny_sam2())
    ctx.samples[1]["picture"][0, 0, 5, 5] = torch.nan
    with pytest.raises(ModelError, match=r"^image_encoder\.trunk\.patch_embed\.proj"):
        quantize(ctx, choose(ctx.sim.sites, "*"))
