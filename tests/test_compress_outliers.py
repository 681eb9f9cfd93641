"""Outliers put into a decoder leave its answers alone and its queries in a bad state."""

from __future__ import annotations

import pytest
import torch

from edgeperc.errors import ConfigError
from edgeperc.offline.compress.adapters.opening import subject_for
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.simulate import Simulated
from edgeperc.offline.compress.solve.outliers import inject_outliers

from .tiny_promptable import tiny_sam2

CROSS = "sam_mask_decoder.transformer.layers.0.cross_attn_token_to_image"


def test_answers_stay_and_queries_grow() -> None:
    subject = subject_for(tiny_sam2())
    ctx = Context(subject, Simulated(subject.net), subject.noise(1), [])
    (exact,) = ctx.outputs(ctx.samples)
    before = ctx.capture([f"{CROSS}.q_proj", f"{CROSS}.k_proj"], inputs=False)
    changed = inject_outliers(subject.net, "*mask_decoder*", seed=3)
    after = ctx.capture([f"{CROSS}.q_proj", f"{CROSS}.k_proj"], inputs=False)
    (now,) = ctx.outputs(ctx.samples)
    for name, values in exact.items():
        torch.testing.assert_close(now[name], values, rtol=1e-3, atol=1e-4)
    assert len(changed) == 7
    heads = subject.net.get_submodule(CROSS).heads
    assert len(set(changed[CROSS])) == 2 * heads
    for part, mine in (("q_proj", changed[CROSS][:heads]), ("k_proj", changed[CROSS][heads:])):
        ratio = after[f"{CROSS}.{part}"][0] / before[f"{CROSS}.{part}"][0]
        torch.testing.assert_close(
            ratio[..., mine], torch.full_like(ratio[..., mine], 100.0), rtol=1e-3, atol=0
        )


def test_refuses_what_it_cannot_do() -> None:
    net = tiny_sam2()
    with pytest.raises(ConfigError, match="no attention of a decoder"):
        inject_outliers(net, "image_encoder*")
    with pytest.raises(ConfigError, match="channels have no"):
        inject_outliers(net, per_head=99)
