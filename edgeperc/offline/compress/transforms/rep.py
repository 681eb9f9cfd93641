"""RepQ-ViT: a grid for each channel behind a norm, moved into the norm and what reads it.

Channels behind a norm differ by up to a hundred times: one grid for all is too coarse for the small
ones, and a matrix product cannot take a grid for each. Let channel c ask for the scale s_c and the
zero point z_c, and let r = s_c / s and t = (z_c - z)·s. A norm of weight g / r and bias b / r + t
makes, with readers of weight W·r and bias b - W·r·t, the same product; and one grid (s, z) does to
x / r + t, code for code, what the channels' grids did to x. So it is for any s and any integer z:
what is lost is lost in rounding W·r.

Zeros that a reader sees beside the norm's output, at the edge of windows that do not tile the
picture, must stay zeros: there t is 0, and all channels have one zero point, the best there is.
Source: Li et al. 2023 (RepQ-ViT, arXiv 2212.08254), section 3.2; that rule for zeros is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgeperc.errors import ConfigError, ModelError
from edgeperc.offline.compress.calibrate.stats import Some
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.norms import Norm, norms_of, pads
from edgeperc.offline.compress.passes import PassResult
from edgeperc.offline.compress.quantizers.given import GivenGrid, leave
from edgeperc.offline.compress.sites import Site
from edgeperc.offline.compress.transforms.channel_grids import (
    Grid,
    Middle,
    channel_grids,
    common_grid,
    scales_alone,
)

ROWS = 4096
"""Rows of values, from all samples together, that a norm's grids are chosen by."""


def rep(ctx: Context, at: Sequence[Site], *, bits: int = 8, target: Middle = "mean") -> PassResult:
    """Rescale every norm that a layer of `at` reads, and all its readers, for inputs of `bits`.

    Leaves the common grid at those readers that are in `at`: `quantize` takes it where it puts as
    many bits there. Raises ConfigError if no layer of `at` reads a norm that can be rescaled.
    """
    chosen = {site.name for site in at if site.kind == "layer"}
    norms = [norm for norm in norms_of(ctx.net).values() if chosen.intersection(norm.consumers)]
    if not norms:
        raise ConfigError(
            "rep: no layer chosen by 'at' reads a norm that can be rescaled",
            hint="qkv, the first layer of an MLP and such: what takes a norm's output",
        )
    rows, details = _rows(ctx, norms), {}
    reached = [norm for norm in norms if norm.name in rows]
    for norm in reached:
        readers = [ctx.net.get_submodule(name) for name in norm.consumers]
        grids, common = grids_of(norm, readers, rows[norm.name], bits, target)
        move(norm.module, readers, grids, common)
        for name in chosen.intersection(norm.consumers):
            grid = GivenGrid(common.scale.float(), common.zero.float(), bits)
            leave(ctx.net.get_submodule(name), grid)
        details[norm.name] = _told(norm, grids, common)
    alone = sum(norm.padded for norm in reached)
    notes = [f"{len(reached)} norms rescaled, {alone} of them, read beside zeros, not shifted"]
    left = [norm.name for norm in norms if norm not in reached]
    if left:
        notes.append(f"left as they are, since no sample comes by there: {', '.join(left)}")
    return PassResult(notes=notes, details={"norms": details})


def grids_of(
    norm: Norm, readers: Sequence[nn.Module], rows: Tensor, bits: int, target: Middle
) -> tuple[Grid, Grid]:
    """The channels' grids and the common one. rows: (N, C) values that the readers take."""
    if norm.padded:
        grids = scales_alone(rows, bits, importance(readers))
    else:
        grids = channel_grids(rows, bits)
    return grids, common_grid(grids, bits, target)


@torch.no_grad()
def move(norm: nn.Module, readers: Sequence[nn.Module], grids: Grid, common: Grid) -> None:
    """Move the channels of a norm from their grids to a common one, in place.

    readers: all that read the norm, linear layers or convolutions; one without a bias gets one.
    Raises ModelError, before anything is changed, where the norm has no weight, a reader's weight
    is quantized already, or a convolution would pad with zeros what is shifted.
    """
    there = grids.scale > 0
    ratio = torch.where(there, grids.scale / common.scale, 1.0)
    shift = torch.where(there, (grids.zero - common.zero) * common.scale, 0.0)
    shifts = bool((shift != 0).any())
    if getattr(norm, "weight", None) is None:
        raise ModelError("a norm without a weight cannot be rescaled")
    for reader in readers:
        _refuse(reader, shifts=shifts)
    weight = _weight_of(norm)
    bias = _bias_of(norm)
    weight.copy_(weight.double() / ratio)
    bias.copy_(bias.double() / ratio + shift)
    for reader in readers:
        weight = _weight_of(reader)
        scaled = weight.double() * _by_input(ratio, reader)
        if shifts:
            moved = (scaled * _by_input(shift, reader)).flatten(1).sum(1)
            bias = _bias_of(reader)
            bias.copy_(bias.double() - moved)
        weight.copy_(scaled)


def importance(readers: Sequence[nn.Module]) -> Tensor:
    """(C,) sums of the squares of the weights that read each channel."""
    total = torch.zeros(())
    for reader in readers:
        weight, groups = _weight_of(reader).detach(), getattr(reader, "groups", 1)
        square = weight.double().square().reshape(groups, -1, weight.shape[1], weight[0, 0].numel())
        total = total + square.sum((1, 3)).flatten()
    return total


def _rows(ctx: Context, norms: Sequence[Norm]) -> dict[str, Tensor]:
    """(N, C) of what the readers of each norm take, some of all samples'."""
    firsts = {norm.consumers[0]: norm.name for norm in norms}
    some: dict[str, Some] = {}

    def keep(reader: str, values: Tensor) -> None:
        if reader not in some:
            axis = -1 if isinstance(ctx.sim.sites[reader].module, nn.Linear) else 1
            some[reader] = Some(ROWS, pieces=len(ctx.samples), seed=ctx.seed, axis=axis)
        some[reader].add(values)

    ctx.stream(firsts, keep, what="looking behind norms")
    return {firsts[reader]: each.values().T for reader, each in some.items()}


def _told(norm: Norm, grids: Grid, common: Grid) -> dict[str, Any]:
    ratio = (grids.scale / common.scale)[grids.scale > 0]
    span = (float(ratio.min()), float(ratio.max())) if len(ratio) else (1.0, 1.0)
    return {
        "readers": list(norm.consumers),
        "shifted": not norm.padded,
        "scale": float(common.scale),
        "zero": int(common.zero),
        "ratio": span,
    }


def _by_input(channels: Tensor, reader: nn.Module) -> Tensor:
    """(C,) numbers of what a layer reads, in a shape that goes with its weight."""
    if isinstance(reader, nn.Linear):
        return channels[None]
    convolution = cast(nn.Conv2d, reader)
    outputs = convolution.out_channels // convolution.groups
    groups = channels.reshape(convolution.groups, -1, 1, 1)
    return groups.repeat_interleave(outputs, 0)


def _refuse(reader: nn.Module, *, shifts: bool) -> None:
    if not isinstance(reader, nn.Linear | nn.Conv2d):
        raise ModelError(f"a norm that a {type(reader).__name__} reads cannot be rescaled")
    if parametrize.is_parametrized(reader, "weight"):
        raise ModelError(
            "a norm cannot be rescaled when its readers are quantized",
            hint="rep goes before quantize",
        )
    if shifts and pads(reader):
        raise ModelError("a norm cannot be shifted before a convolution that pads with zeros")


def _weight_of(module: nn.Module) -> Tensor:
    return cast(Tensor, module.weight)


def _bias_of(module: nn.Module) -> Tensor:
    """A layer's bias, made of zeros if it has none."""
    if module.bias is None:
        weight = _weight_of(module)
        module.bias = nn.Parameter(weight.new_zeros(len(weight)))
    return cast(Tensor, module.bias)
