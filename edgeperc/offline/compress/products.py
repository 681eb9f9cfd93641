"""Fits grids for shares of attention that want to see the values, too, which are shared out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.quantizers.adaptive_log import MOST, AdaptiveLog, fewer_queries
from edgeperc.offline.compress.quantizers.base import Quantizer

SAMPLES = 4
TOGETHER = 12
"""Taps that are looked at in one round: each keeps the values of whole pictures."""


def fit_to_products(ctx: Context, grids: Mapping[str, Sequence[Quantizer]]) -> None:
    """Fit every adaptive grid among the `grids` of tap_softmax sites once more, by the product.

    The network is looked at in full precision, on a few samples.
    """
    adaptive = {
        name: [q for q in each if isinstance(q, AdaptiveLog)] for name, each in grids.items()
    }
    names = [name for name, each in adaptive.items() if each]
    for start in range(0, len(names), TOGETHER):
        some = names[start : start + TOGETHER]
        for name, pairs in _products(ctx, some).items():
            for q in adaptive[name]:
                q.fit_all(pairs)


def _products(ctx: Context, names: Sequence[str]) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Some queries' shares (B, heads, N, M) at each tap, and the values (B, heads, M, C)."""
    taps = {f"{name.rpartition('.')[0]}.tap_v": name for name in names}
    samples = ctx.samples[:SAMPLES]
    shares: dict[str, Tensor] = {}
    pairs: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in names}

    def visit(name: str, values: Tensor) -> None:
        if name in pairs:
            # A copy, since a part of a tensor keeps all of it.
            shares[name] = fewer_queries(values, values, MOST // len(samples)).clone()
        else:
            pairs[taps[name]].append((shares.pop(taps[name]), values.clone()))

    with ctx.sim.off():
        ctx.stream([*names, *taps], visit, samples, what="fitting softmax grids")
    return {name: each for name, each in pairs.items() if each}
