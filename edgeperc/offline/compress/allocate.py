"""How many bits each layer gets: the pass `allocate`.

A layer's cost is the error of what it gives when its weight and input have so many bits, as a share
of what it gives in full precision; costs add up. Among all ways to spend the budget the cheapest is
found by merging layer after layer and keeping only ways that no other beats in bytes and cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeperc.errors import ConfigError
from edgeperc.offline.compress.calibrate.stats import Some
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.passes import PassResult
from edgeperc.offline.compress.quantize import channel_axis
from edgeperc.offline.compress.quantizers import make
from edgeperc.offline.compress.sites import Site

MOST_WAYS = 4096
"""Of more ways than this the ones of nearly equal size are thinned out."""
SAMPLES, SEEN = 2, 1 << 14


def allocate(
    ctx: Context, at: list[Site], *, bits: list[int], mean_bits: float, act: bool = True
) -> PassResult:
    """Give quantized layers among `at` one of `bits` each, mean_bits a weight on average at most.

    act: their inputs get as many bits as their weights. The engine fits grids anew where the bits
    changed. Raises ConfigError for a budget that the fewest bits exceed.
    """
    wanted = [site for site in at if f"{site.name}:weight" in ctx.sim.quantizers]
    choices = sorted(set(bits))
    if not choices or not 2 <= choices[0] <= choices[-1] <= 8:
        raise ConfigError(f"allocate: bits = {bits} must be of 2 to 8")
    if mean_bits < choices[0]:
        raise ConfigError(
            f"allocate: mean_bits = {mean_bits} is less than the fewest, {choices[0]}"
        )
    if not wanted:
        raise ConfigError("allocate: none of its sites has a quantized weight")
    costs = _costs(ctx, wanted, choices, act)
    sizes = {site.name: ctx.sim.original(site.name).numel() for site in wanted}
    given = cheapest(costs, sizes, budget=mean_bits * sum(sizes.values()))
    mean = sum(sizes[name] * count for name, count in given.items()) / sum(sizes.values())
    counts = {count: sum(b == count for b in given.values()) for count in choices}
    note = ", ".join(f"{number} layers have {count} bits" for count, number in counts.items())
    return PassResult(
        notes=[f"{note}; {mean:.2f} a weight on average"],
        details={
            "bits": given,
            "costs": {n: {str(b): c for b, c in e.items()} for n, e in costs.items()},
        },
    )


def cheapest(
    costs: Mapping[str, Mapping[int, float]], sizes: Mapping[str, int], *, budget: float
) -> dict[str, int]:
    """The bits of each layer with the least sum of costs, sum of sizes * bits at most budget.

    Exact while no more than MOST_WAYS ways are worth keeping.
    """
    ways: list[tuple[float, float, tuple[int, ...]]] = [(0, 0.0, ())]
    least_left = sum(sizes[name] * min(each) for name, each in costs.items())
    for name, each in costs.items():
        least_left -= sizes[name] * min(each)
        grown = [
            (spent + sizes[name] * bits, cost + more, (*chosen, bits))
            for spent, cost, chosen in ways
            for bits, more in each.items()
            if spent + sizes[name] * bits + least_left <= budget
        ]
        ways = _thinned(_front(grown))
    if not ways:
        raise ConfigError(f"no layer can have so few bits that all fit into {budget:g}")
    return dict(zip(costs, min(ways, key=lambda way: way[1])[2], strict=True))


def _front(ways: list[Any]) -> list[Any]:
    """Those that are cheaper than all that are not larger."""
    best, kept = torch.inf, []
    for way in sorted(ways):
        if way[1] < best:
            best = way[1]
            kept.append(way)
    return kept


def _thinned(ways: list[Any]) -> list[Any]:
    if len(ways) <= MOST_WAYS:
        return ways
    step = (len(ways) - 1) / (MOST_WAYS - 1)
    return [ways[round(i * step)] for i in range(MOST_WAYS)]


def _costs(
    ctx: Context, sites: Sequence[Site], choices: Sequence[int], act: bool
) -> dict[str, dict[int, float]]:
    """For each layer and number of bits, the squared error of its answers as a share."""
    total = {site.name: dict.fromkeys(choices, 0.0) for site in sites}
    names = [site.name for site in sites]
    some = {name: Some(SEEN, pieces=SAMPLES, seed=ctx.seed) for name in names}
    with ctx.sim.off():
        ctx.stream(names, lambda n, x: some[n].add(x), ctx.samples[:SAMPLES], what="looking")
        grids = {name: _grids(ctx, name, choices, some[name].values()) for name in names}

        def visit(name: str, x: Tensor) -> None:
            layer, weight = ctx.sim.sites[name].module, ctx.sim.original(name)
            exact = _answer(layer, x, weight)
            power = float(exact.square().sum()) or 1.0
            for bits, (value_grid, weight_grid) in grids[name].items():
                given = value_grid(x) if act else x
                error = float((_answer(layer, given, weight_grid(weight)) - exact).square().sum())
                total[name][bits] += error / power

        ctx.stream(names, visit, ctx.samples[:SAMPLES], what="weighing bits")
    return total


def _grids(ctx: Context, name: str, choices: Sequence[int], seen: Tensor) -> dict[int, Any]:
    found = {}
    for bits in choices:
        value = make(f"uniform{bits}", use="act")
        axis = channel_axis(ctx.sim.sites[name].module)
        weight = make(f"uniform{bits}c", use="weight", axis=axis)
        value.fit(seen if seen.numel() else torch.zeros(1))
        weight.fit(ctx.sim.original(name))
        value.enabled = weight.enabled = True
        found[bits] = (value, weight)
    return found


def _answer(layer: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    """What a layer gives with another weight, without its bias."""
    conv: Any = layer
    if isinstance(layer, nn.Linear):
        return F.linear(x, weight)
    if isinstance(layer, nn.ConvTranspose2d):
        more = (conv.stride, conv.padding, conv.output_padding, conv.groups, conv.dilation)
        return F.conv_transpose2d(x, weight, None, *more)
    return F.conv2d(x, weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
