"""Adaptive grids are fitted to what the network makes of shares."""

import pytest
import torch

from edgeperc.offline.compress.adapters.sam import SamSubject
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.quantize import quantize
from edgeperc.offline.compress.quantizers.adaptive_log import AdaptiveLog
from edgeperc.offline.compress.simulate import Simulated
from edgeperc.offline.compress.sites import choose

from .tiny_promptable import tiny_sam


@pytest.fixture
def ctx():
    net = tiny_sam()
    torch.manual_seed(0)
    samples = [
        {
            "picture": torch.randn(1, 3, 64, 64),
            "points": 64 * torch.rand(2, count, 2),
            "labels": torch.ones(2, count),
        }
        # Prompts of several lengths: their shares have other shapes.
        for count in (1, 2, 3)
    ]
    return Context(subject=SamSubject(net), sim=Simulated(net), samples=samples, held_out=[])


@pytest.mark.parametrize("softmax", ["agq", ["uniform", "agq"], "agq5"])
def test_each_attention_gets_the_grid_that_its_product_asks_for(ctx, softmax):
    taps = choose(ctx.sim.sites, "*.tap_softmax")
    quantize(ctx, taps, softmax=softmax, act="uniform4")
    names = {name for name, q in ctx.sim.quantizers.items() if isinstance(q, AdaptiveLog)}
    assert names
    if isinstance(softmax, str):
        assert len(names) == len(taps)
    for name in names:
        at = name.rpartition(".")[0]
        with ctx.sim.off():
            seen = ctx.capture([name, f"{at}.tap_v"])
        pairs = list(zip(seen[name], seen[f"{at}.tap_v"], strict=True))
        by_hand = AdaptiveLog(5 if softmax == "agq5" else 4)
        by_hand.fit_all(pairs)
        q = ctx.sim.quantizers[name]
        assert (q.bits, float(q.scale), float(q.per_octave)) == (
            by_hand.bits,
            float(by_hand.scale),
            float(by_hand.per_octave),
        )


def test_the_values_make_a_difference(ctx):
    """Else the test above could not fail."""
    name = "image_encoder.blocks.1.attn.tap_softmax"
    with torch.no_grad():
        qkv = ctx.net.image_encoder.blocks[1].attn.qkv
        qkv.weight[:32] *= 20
    shares, v = ctx.capture([name])[name], ctx.capture(["image_encoder.blocks.1.attn.tap_v"])
    pairs = list(zip(shares, next(iter(v.values())), strict=True))
    with_v, without = AdaptiveLog(3), AdaptiveLog(3)
    with_v.fit_all(pairs)
    without.fit_all([(each, None) for each in shares])
    assert (float(with_v.scale), float(with_v.per_octave)) != (
        float(without.scale),
        float(without.per_octave),
    )
