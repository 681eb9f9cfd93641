"""What stands at the sites of a compressed network, for its report: labels and errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edgeperc.inference.compressed import INT8, said
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.ledger import Ledger
from edgeperc.offline.compress.simulate import Simulated
from edgeperc.offline.compress.sites import sites_of

WORST = 20
DASH = "–"
GROUP_PARTS = 2
"""So many parts of their names do sites of a group have in common."""


@torch.no_grad()
def site_errors(ctx: Context) -> dict[str, float]:
    """Squared error of what each site's input or value grid does to it, as a share of the power.

    Of the first held-out sample, each site given what the network without rounding gives it.
    """
    grids = {
        key.removesuffix(":input"): q
        for key, q in ctx.sim.quantizers.items()
        if not key.endswith((":weight", ":output"))
    }
    lost, power = dict.fromkeys(grids, 0.0), dict.fromkeys(grids, 0.0)

    def visit(name: str, values: Tensor) -> None:
        grid = grids[name]
        rounded = grid.dequantize(grid.quantize(values))
        lost[name] += float((rounded - values).square().sum())
        power[name] += float(values.square().sum())

    with ctx.sim.off():
        ctx.stream(grids, visit, ctx.held_out[:1])
    return {name: lost[name] / power[name] for name in grids if power[name]}


@torch.no_grad()
def weight_errors(ctx: Context, ledger: Ledger, exact: nn.Module) -> dict[str, float]:
    """Squared error of each quantized weight, as a share of its power in full precision.

    Without sites that a transform changed: what their weights were then is not kept.
    """
    before = sites_of(exact)
    moved: set[str] = set()
    for row in ledger.rows:
        if row.role == "transform" and row.kept:
            moved.update(before)
    found = {}
    for key in ctx.sim.quantizers:
        name, _, part = key.partition(":")
        if part == "weight" and name in before and name not in moved:
            wanted: Tensor = before[name].module.weight  # type: ignore[assignment]
            given: Tensor = ctx.sim.sites[name].module.weight  # type: ignore[assignment]
            power = float(wanted.square().sum())
            if power:
                found[name] = float((given - wanted).square().sum()) / power
    return found


def labels_by_group(sim: Simulated) -> dict[str, Counter[str]]:
    """How many grids of each group of sites have which label."""
    groups: dict[str, Counter[str]] = {}
    for key, q in sim.quantizers.items():
        group = ".".join(key.partition(":")[0].split(".")[:GROUP_PARTS])
        groups.setdefault(group, Counter())[q.export] += 1
    return groups


def label_table(groups: Mapping[str, Counter[str]], *, integers: bool) -> list[str]:
    """Lines of a table. integers: whether anything is multiplied as integers at all."""
    lines = ["## What becomes of the grids", "", "| sites | grids |", "|---|---|"]
    for group, counts in groups.items():
        words = (
            f"{count} {said(stored_as(label, integers=integers))}"
            for label, count in counts.most_common()
        )
        lines.append(f"| {group} | {'; '.join(words)} |")
    return [*lines, ""]


def stored_as(label: str, *, integers: bool) -> str:
    """A grid's label; integers: whether the files multiply any codes as integers."""
    return "int8 storage" if label == INT8 and not integers else label


def error_table(values: Mapping[str, float], weights: Mapping[str, float]) -> list[str]:
    """Lines of a table, the site with the worst error of its input, value or weight first."""
    names = dict.fromkeys([*values, *weights])
    if not names:
        return []
    ranked = sorted(names, key=lambda name: -max(values.get(name, 0.0), weights.get(name, 0.0)))
    lines = ["## Error of each input, value and weight, worst first", ""]
    lines += ["Squared, as a share of the power.", ""]
    lines += ["| site | input or value | weight |", "|---|---|---|"]
    for name in ranked[:WORST]:
        cells = (f"{each[name]:.2e}" if name in each else DASH for each in (values, weights))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    rest = len(ranked) - WORST
    return [*lines, *([f"\n{rest} more are smaller."] if rest > 0 else [])]
