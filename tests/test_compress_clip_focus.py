"""Clipping by where attention looks keeps it looking there; clipping by squared error does not."""

from __future__ import annotations

import pytest
import torch

from edgeperc.errors import ConfigError
from edgeperc.offline.compress.adapters.opening import subject_for
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.quantize import quantize
from edgeperc.offline.compress.quantizers.uniform import Uniform
from edgeperc.offline.compress.simulate import Simulated
from edgeperc.offline.compress.sites import choose
from edgeperc.offline.compress.solve.clip_focus import PERCENTILES, clip_focus, focus, overlap
from edgeperc.offline.compress.solve.outliers import inject_outliers

from .tiny_promptable import tiny_sam2

TRANSFORMER = "sam_mask_decoder.transformer"
CROSS = f"{TRANSFORMER}.layers.1.cross_attn_token_to_image"


def quantized(bits: int = 4, *, outliers: bool, at: str = CROSS) -> Context:
    net = tiny_sam2()
    with torch.no_grad():
        for name, values in net.named_parameters():
            if "q_proj" in name:
                values.mul_(4)  # attention that looks somewhere
    if outliers:
        inject_outliers(net, "*transformer*")
    subject = subject_for(net)
    ctx = Context(subject, Simulated(subject.net), subject.noise(3), [])
    quantize(ctx, choose(ctx.sim.sites, at), weight="none", act=f"uniform{bits}")
    return ctx


def focus_kept(ctx: Context, name: str = CROSS) -> float:
    """Overlap of an attention's focus with that of the exact network, on the exact inputs of it."""
    key, samples = f"{name}.tap_softmax", ctx.samples
    mine = lambda k: not k.startswith(name)  # noqa: E731
    with ctx.sim.off(mine):
        now = ctx.capture([key], samples)[key]
    with ctx.sim.off():
        exact = ctx.capture([key], samples)[key]
    overlaps = [overlap(focus(a), focus(b)) for a, b in zip(exact, now, strict=True)]
    return float(torch.stack(overlaps).mean())


def test_focus_and_overlap() -> None:
    shares = torch.tensor([[[[0.6, 0.3, 0.1], [0.4, 0.35, 0.25]]]])
    assert focus(shares).int().tolist() == [[[[1, 0, 0], [1, 1, 1]]]]
    other = torch.tensor([[[[True, True, False], [True, False, False]]]])
    assert float(overlap(focus(shares), focus(shares))) == 1
    assert float(overlap(focus(shares), other)) == pytest.approx(2 / 5)


def test_candidates_are_the_papers() -> None:
    assert len(PERCENTILES) == 29
    assert list(PERCENTILES) == sorted(PERCENTILES)


def test_with_outliers_focus_beats_squared_error() -> None:
    ctx = quantized(outliers=True)
    by_error = focus_kept(ctx)
    result = clip_focus(ctx, choose(ctx.sim.sites, CROSS))
    by_focus = focus_kept(ctx)
    assert by_focus > by_error + 0.1
    clipped = {d["key"]: d for d in result.details["clipped"]}
    assert list(clipped) == [
        f"{CROSS}.{p}" for p in ("q_proj:input", "k_proj:input", "tap_q", "tap_k")
    ]
    assert clipped[f"{CROSS}.tap_q"]["percentile"] < 0.999
    # What a decision says of itself is what the network does.
    assert 1 - clipped[f"{CROSS}.tap_k"]["chosen"] == pytest.approx(by_focus, abs=1e-3)


def test_it_never_looks_elsewhere_more_than_before() -> None:
    ctx = quantized(6, outliers=False, at=TRANSFORMER)
    v = {k: q.scale.clone() for k, q in ctx.sim.quantizers.items() if isinstance(q, Uniform)}
    decisions = clip_focus(ctx, choose(ctx.sim.sites, TRANSFORMER)).details["clipped"]
    assert len(decisions) == 7 * 4
    moved = {d["key"] for d in decisions if d["percentile"] is not None}
    for d in decisions:
        assert 0 <= d["chosen"] <= d["fitted"] <= 1
        assert (d["chosen"] < d["fitted"]) == (d["percentile"] is not None)
        assert d["low"] <= 0 <= d["high"]
    for key, scale in v.items():
        assert torch.equal(ctx.sim.quantizers[key].scale, scale) == (key not in moved)


def test_images_decide_together_and_disagreement_is_told() -> None:
    ctx = quantized(outliers=True)
    result = clip_focus(ctx, choose(ctx.sim.sites, CROSS), images=2)
    assert all(d["images"] == 2 and 0 <= d["other"] <= 2 for d in result.details["clipped"])
    assert any(d["other"] for d in result.details["clipped"])
    assert all((d["regret"] > 0) <= (d["other"] > 0) for d in result.details["clipped"])
    assert any("alone" in note for note in result.notes)


def test_nothing_to_clip_is_an_error() -> None:
    ctx = quantized(outliers=False)
    with pytest.raises(ConfigError, match="no decoder attention"):
        clip_focus(ctx, choose(ctx.sim.sites, "image_encoder"))
