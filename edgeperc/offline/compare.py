"""Run the unfolded, folded, pruned and exported network on the same inputs and compare outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from edgeperc.errors import ModelError
from edgeperc.inference.session import Session
from edgeperc.offline.nets.sltnet import SLTNet
from edgeperc.offline.nets.sltnet_folded import FoldedSLTNet
from edgeperc.offline.report import Check

LEAST_AGREEMENT = 0.999
"""Share of equal labels that is expected of an export."""


def probes(bins: int, height: int, width: int) -> Iterator[tuple[str, Tensor]]:
    """Grids like those of a still, a quiet, a busy and an impossible scene, (1, bins, h, w)."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, bins, height, width)
    yield "no events", torch.zeros(shape)
    for share in (0.02, 0.1, 0.4):
        grid = torch.randn(shape, generator=generator)
        yield (
            f"noise, {share:.0%} of cells",
            grid * (torch.rand(shape, generator=generator) < share),
        )
    yield "moving bars", _bars(bins, height, width)
    yield "noise, all cells, 10 times as strong", 10 * torch.randn(shape, generator=generator)


def _bars(bins: int, height: int, width: int) -> Tensor:
    """Edges that move 2 px a bin, bright before and dark behind, standardised like a real grid."""
    grid = torch.zeros(1, bins, height, width)
    for k in range(bins):
        grid[0, k, :, 2 * k :: 24] = 1.0
        grid[0, k, :, 2 * k + 12 :: 24] = -1.0
        grid[0, k, height // 3 + k :: 40] = 2.0
    cells = grid[grid != 0]
    return torch.where(grid != 0, (grid - cells.mean()) / cells.std(), grid)


def compare(
    net: SLTNet, folded: FoldedSLTNet, pruned: FoldedSLTNet, path: Path, grids: dict[str, Tensor]
) -> Iterator[Check]:
    """One Check for each kind of input. path: the exported network."""
    session = Session(path, threads=1)
    for name, grid in grids.items():
        expected, light = net(grid), pruned(grid)
        (logits,) = session.run(grid.numpy())
        exported = torch.from_numpy(logits)
        yield Check(
            inputs=name,
            folded_labels=_agreement(expected, light),
            pruned_max_d=(folded(grid) - light).abs().max().item(),
            onnx_labels=_agreement(expected, exported),
            onnx_max_d=(expected - exported).abs().max().item(),
        )


def doubts(checks: Sequence[Check]) -> list[str]:
    """A sentence for each kind of input on which more than one label in a thousand moved.

    Rounding flips a spike now and then, and a flipped spike of the attention's mask can move many
    labels. On most inputs that does not happen: if it does, raises ModelError, for the export is
    broken.
    """
    worst = [min(check.folded_labels, check.onnx_labels) for check in checks]
    if median(worst) < LEAST_AGREEMENT:
        raise ModelError(
            f"the exported network's labels equal the original's on {median(worst):.2%} of pixels "
            "only, in the median over the check inputs",
            hint="Nothing was written; this is a fault of the export, please report it.",
        )
    return [
        f"on '{check.inputs}' labels equal the original's on {share:.2%} of pixels only"
        for check, share in zip(checks, worst, strict=True)
        if share < LEAST_AGREEMENT
    ]


def _agreement(a: Tensor, b: Tensor) -> float:
    return (a.argmax(1) == b.argmax(1)).double().mean().item()
