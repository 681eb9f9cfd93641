"""Perceptual-consistency clipping: limits under which attention still looks where it looked.

In a decoder's attention a few queries and keys are a hundred times larger than all others. Limits
with the least squared error keep them and leave the others no steps; what counts is where the
attention looks, its focus: shares above half of the query's largest. Of each tensor, in the order
inputs of q_proj and k_proj, then queries and keys, 29 percentiles are tried, and the one whose
focus overlaps best with the exact one is taken; those chosen earlier stay quantized. Source: Zhang
et al., SAQ-SAM (AAAI 2026), perceptual-consistency clipping. Ours: all images decide together
instead of the first alone, and limits that were fitted stay where no percentile is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgeperc.errors import ConfigError
from edgeperc.offline.compress.adapters import Sample
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.passes import PassResult
from edgeperc.offline.compress.quantizers.uniform import Uniform
from edgeperc.offline.compress.sites import Site
from edgeperc.offline.compress.solve.calls import Call, calls_of
from edgeperc.offline.nets.mask_decoder import DecoderAttention
from edgeperc.offline.nets.taps import split_heads

PERCENTILES = (
    *(0.85, 0.87, 0.88, 0.89, 0.90, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96, 0.965, 0.97, 0.975, 0.98),
    *(0.983, 0.985, 0.987, 0.989, 0.99, 0.993, 0.995, 0.997, 0.999, 0.9993, 0.9995, 0.9997),
    *(0.9999, 0.99999),
)
"""Candidates: limits are the quantiles 1 - p and p."""

FOCUS = 0.5
"""A share above this part of the query's largest is looked at."""

PARTS = ("q_proj", "k_proj", "tap_q", "tap_k")
"""Inputs of two layers, queries and keys, in the order in which they are clipped."""

IMAGES = 8
"""At most so many decide."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one tensor. percentile: None where the fitted limits stayed. fitted, chosen:
    1 - overlap of focus before and after, mean over images. other: how many of the `images` would
    have chosen other limits, alone; regret: what the choice costs the worst of them in overlap.
    """

    key: str
    percentile: float | None
    low: float
    high: float
    fitted: float
    chosen: float
    images: int
    other: int
    regret: float


@torch.no_grad()
def clip_focus(ctx: Context, at: Sequence[Site], *, images: int = IMAGES) -> PassResult:
    """Choose the limits of what goes into queries times keys, for decoder attentions at these
    sites. Raises ConfigError if there is none with a uniform quantizer.
    """
    names = [name for name in _attentions(ctx) if any(s.name.startswith(f"{name}.") for s in at)]
    decisions: list[Decision] = []
    samples = ctx.samples[:images]
    for name in ctx.track(names, "clip by focus"):
        decisions += _attention(ctx, name, samples)
    if not decisions:
        raise ConfigError(
            "clip.pcc: no decoder attention here has a uniform quantizer on its queries or keys",
            hint="quantize first, and name sites such as *_mask_decoder.transformer.*attn*",
        )
    return PassResult(notes=_notes(decisions), details={"clipped": [asdict(d) for d in decisions]})


def focus(shares: Tensor) -> Tensor:
    """Where each query looks: (..., N, M) shares to bool."""
    return shares > FOCUS * shares.amax(-1, keepdim=True)


def overlap(exact: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of the foci (..., N, M) of each map, mean of all; a scalar."""
    both = (exact & other).sum((-2, -1))
    either = (exact | other).sum((-2, -1))
    return (both / either.clamp(min=1)).mean()


def attention_focus(attention: DecoderAttention, call: Call, grids: dict[str, Uniform]) -> Tensor:
    """Focus (B, heads, N, M) of an attention with some of its tensors on grids, by part: q_proj,
    k_proj for their inputs, tap_q, tap_k for what comes out.
    """
    q, k = _parts(attention, call, grids)
    logits = q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)
    bias = call.args[3] if len(call.args) > 3 else call.kwargs.get("bias")
    if bias is not None:
        logits = logits + bias
    return focus(logits.softmax(-1))


def _parts(
    attention: DecoderAttention, call: Call, grids: dict[str, Uniform]
) -> tuple[Tensor, Tensor]:
    """Queries and keys (B, heads, ., C)."""
    parts = []
    for values, which in zip(call.args[:2], "qk", strict=True):
        projected = getattr(attention, f"{which}_proj")(_on(grids.get(f"{which}_proj"), values))
        parts.append(_on(grids.get(f"tap_{which}"), split_heads(projected, attention.heads)))
    return parts[0], parts[1]


def _attention(ctx: Context, name: str, samples: Sequence[Sample]) -> list[Decision]:
    """Choose the limits of one attention's tensors, one after the other."""
    attention: Any = ctx.net.get_submodule(name)
    with ctx.sim.off():
        calls = [
            calls_of(ctx.net, name, lambda: ctx.subject.run(ctx.net, sample))[0]  # noqa: B023
            for sample in samples
        ]
        exact = [attention_focus(attention, call, {}) for call in calls]
        decisions, grids = [], dict[str, Uniform]()
        for part in PARTS:
            key = f"{name}.{part}" + (":input" if part.endswith("_proj") else "")
            grid = ctx.sim.quantizers.get(key)
            if isinstance(grid, Uniform) and grid.axis is None:
                decisions.append(_choose(key, grid, attention, part, calls, exact, grids))
                grids[part] = grid
    return decisions


def _choose(
    key: str,
    grid: Uniform,
    attention: DecoderAttention,
    part: str,
    calls: Sequence[Call],
    exact: Sequence[Tensor],
    grids: dict[str, Uniform],
) -> Decision:
    """Give `grid` the limits under which the focus overlaps best. grids: those chosen earlier."""

    def costs() -> Tensor:
        """1 - overlap of each image, (images,)."""
        with_this = {**grids, part: grid}
        return torch.stack(
            [
                1 - overlap(wanted, attention_focus(attention, call, with_this))
                for call, wanted in zip(calls, exact, strict=True)
            ]
        )

    fitted = grid.scale.clone(), grid.zero.clone()
    values = _values(attention, part, calls, grids)
    limits = _limits(values)
    tried = [costs()]
    for low, high in limits:
        grid.set_range(low, high)
        tried.append(costs())
    table = torch.stack(tried)
    # The first of equals: the fitted limits, then the narrowest.
    best = int(table.mean(1).argmin())
    if best:
        grid.set_range(*limits[best - 1])
    else:
        grid.scale, grid.zero = fitted
    least, most = (grid.dequantize(torch.tensor(float(code))) for code in grid.codes)
    return Decision(
        key=key,
        percentile=PERCENTILES[best - 1] if best else None,
        low=float(least),
        high=float(most),
        fitted=float(table[0].mean()),
        chosen=float(table[best].mean()),
        images=len(calls),
        other=int((table.argmin(0) != best).sum()),
        regret=float((table[best] - table.amin(0)).max()),
    )


def _values(
    attention: DecoderAttention, part: str, calls: Sequence[Call], grids: dict[str, Uniform]
) -> Tensor:
    """All that the tensor `part` of an attention holds, flat."""
    side = part in ("k_proj", "tap_k")
    if part in ("q_proj", "k_proj"):
        held = [call.args[side] for call in calls]
    else:
        held = [_parts(attention, call, grids)[side] for call in calls]
    return torch.cat([values.flatten() for values in held])


def _limits(values: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Limits of each percentile; 0 lies between them."""
    # numpy's: torch.quantile refuses more than 2**24 values.
    low = np.quantile(values.numpy(), [1 - p for p in PERCENTILES])
    high = np.quantile(values.numpy(), PERCENTILES)
    lows, highs = torch.from_numpy(low).float(), torch.from_numpy(high).float()
    return [(a.clamp(max=0), b.clamp(min=0)) for a, b in zip(lows, highs, strict=True)]


def _on(grid: Uniform | None, values: Tensor) -> Tensor:
    return values if grid is None else grid.dequantize(grid.quantize(values))


def _attentions(ctx: Context) -> list[str]:
    return [n for n, module in ctx.net.named_modules() if isinstance(module, DecoderAttention)]


def _notes(decisions: Sequence[Decision]) -> list[str]:
    moved = [d for d in decisions if d.percentile is not None]
    notes = [f"{len(moved)} of {len(decisions)} tensors clipped by focus"]
    if not moved:
        return notes
    worst = max(decisions, key=lambda d: d.fitted - d.chosen)
    notes.append(
        f"most gained: {worst.key}, overlap of focus {1 - worst.fitted:.2f} -> "
        f"{1 - worst.chosen:.2f}"
    )
    other, images = sum(d.other for d in decisions), sum(d.images for d in decisions)
    notes.append(
        f"alone, {other / images:.0%} of the images would have chosen other limits, for an overlap "
        f"up to {max(d.regret for d in decisions):.2f} better"
    )
    return notes
