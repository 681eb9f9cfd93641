from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgeperc.errors import ModelError
from edgeperc.offline.compress.adapters.opening import subject_for
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.quantizers import make
from edgeperc.offline.compress.simulate import Simulated

from .tiny_promptable import tiny_sam2

QKV = "image_encoder.trunk.blocks.0.attn.qkv"
SOFTMAX = "image_encoder.trunk.blocks.0.attn.tap_softmax"


def context(count: int = 2) -> Context:
    subject = subject_for(tiny_sam2())
    sim = Simulated(subject.net)
    return Context(subject, sim, subject.noise(count), subject.noise(1, seed=1))


def test_capture_has_what_layers_take_and_give_and_what_taps_hand_on() -> None:
    ctx = context()
    layer = ctx.sim.sites[QKV].module
    taken, given = ctx.capture([QKV, SOFTMAX]), ctx.capture([QKV, SOFTMAX], inputs=False)
    assert [len(v) for v in taken.values()] == [2, 2]
    for x, y in zip(taken[QKV], given[QKV], strict=True):
        torch.testing.assert_close(layer(x), y)
    for x, y in zip(taken[SOFTMAX], given[SOFTMAX], strict=True):
        assert torch.equal(x, y)
        torch.testing.assert_close(x.sum(-1), torch.ones_like(x.sum(-1)))
    assert not any(m.written_out for m in ctx.net.modules() if hasattr(m, "written_out"))
    assert not ctx.sim.sites[QKV].module._forward_pre_hooks


def test_capture_is_before_the_sites_own_quantizer_and_after_those_of_others() -> None:
    ctx = context()
    exact = ctx.capture([QKV])[QKV]
    q = make("uniform2", use="act")
    q.fit(torch.cat([x.flatten() for x in exact]))
    q.enabled = True
    ctx.sim.input(QKV, q)
    torch.testing.assert_close(ctx.capture([QKV])[QKV][0], exact[0])
    later = "image_encoder.trunk.blocks.1.attn.qkv"
    now = ctx.capture([later])[later][0]
    with ctx.sim.off():
        assert not torch.allclose(ctx.capture([later])[later][0], now, atol=1e-3)
    assert not torch.equal(ctx.capture([QKV], inputs=False)[QKV][0], exact[0])


def test_streamed_values_come_one_by_one_in_the_order_in_which_sites_run() -> None:
    ctx = context(3)
    order: list[str] = []
    ctx.stream([SOFTMAX, QKV], lambda name, values: order.append(name))
    assert order == [QKV, SOFTMAX] * 3


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_the_first_site_with_values_that_are_not_finite_is_named(bad: float) -> None:
    ctx = context()
    broken = "image_encoder.trunk.blocks.1.mlp.layers.0"
    with torch.no_grad():
        ctx.sim.original(broken)[0, 0] = bad
    names = [name for name, site in ctx.sim.sites.items() if site.kind == "layer"]
    with pytest.raises(ModelError, match=r"blocks\.1\.mlp\.layers\.0: what it gives is NaN"):
        ctx.stream(names, lambda name, values: None, inputs=False)
    with pytest.raises(ModelError, match=r"blocks\.1\.mlp\.layers\.1: what it takes is NaN"):
        ctx.stream(names, lambda name, values: None)
    assert not any(s.module._forward_hooks for s in ctx.sim.sites.values())


def test_outputs_are_exact_on_request_and_an_unknown_site_is_named() -> None:
    ctx = context()
    exact = ctx.outputs(ctx.samples)
    q = make("uniform2c", use="weight", axis=0)
    q.fit(ctx.sim.original(QKV))
    q.enabled = True
    ctx.sim.weight(QKV, q)

    def same(a: list[dict[str, Tensor]]) -> bool:
        return all(torch.equal(x[k], y[k]) for x, y in zip(a, exact, strict=True) for k in x)

    assert same(ctx.outputs(ctx.samples, exact=True))
    assert not same(ctx.outputs(ctx.samples))
    with pytest.raises(ModelError, match="nowhere"):
        ctx.capture(["nowhere"])
