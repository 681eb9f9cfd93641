"""Remove what a folded SLTNet can never do, whatever it sees.

A neuron is dead if the upper bound of its potential, over every possible input and with room for
rounding, is not above zero. Dead neurons, and blocks made of them, are taken out: whatever read
them summed zeros. Neurons that merely stay silent on some inputs are kept; `never_fired` counts
them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgeperc.offline.interval import UNBOUNDED, Interval, cat, through
from edgeperc.offline.nets.sltnet_folded import (
    LMSB,
    FoldedSLTNet,
    Neurons,
    Select,
    SpikingConv,
    Stage,
    Transformer,
    bounds,
)


@dataclass(frozen=True)
class Removal:
    """What was taken out. ceiling: the highest potential that any of its neurons can reach."""

    place: str
    what: str
    neurons: int
    ceiling: float


@torch.no_grad()
def prune(net: FoldedSLTNet) -> tuple[FoldedSLTNet, list[Removal]]:
    """A copy of `net` without its dead parts, and what they were.

    The outputs are `net`'s in real arithmetic, and bit for bit where only whole blocks go; shorter
    sums may round differently.
    """
    net = copy.deepcopy(net)
    stem, skips = list(net.stem), (net.skip1, net.skip2, net.skip3)
    stages: Any = (net.stage1, net.stage2, net.stage3)
    grid = Interval.of(-UNBOUNDED, UNBOUNDED, net.stem[0].in_channels)  # type: ignore[arg-type]
    removed = _hidden("stem.0", stem[0], stem[1], grid)
    removed += _hidden("stem.1", stem[1], stem[2], bounds(stem[0], grid))

    maps = [bounds(net.stem, grid)]
    for i, stage in enumerate(stages):
        removed += _stage_blocks(f"stage{i + 1}", stage, maps[i])
        maps.append(stage.bounds(maps[i]))
    for i in (1, 0):  # what the second stage does not read, the first need not make
        removed += _stage_outputs(f"stage{i + 1}", stages[i], maps[i], stages[i + 1], skips[i][0])
    for i, stage in enumerate(stages):
        maps[i + 1] = stage.bounds(maps[i])

    x = maps[3]
    for i, layer in enumerate(net.transformers):
        assert isinstance(layer, Transformer)
        removed += _transformer(f"transformers.{i}", layer, x)
        x = layer.bounds(x)
    skipped = [_skip(f"skip{i + 1}", skip, maps[i + 1], removed) for i, skip in enumerate(skips)]
    for i, up in enumerate((net.up1, net.up2, net.up3)):
        if up.block is not None:
            up.block = _lmsb(f"up{i + 1}.block", up.block, x, removed)
        x = up.bounds_with(x, skipped[2 - i])
    return net, removed


@torch.no_grad()
def never_fired(net: FoldedSLTNet, grids: Iterable[Tensor]) -> dict[str, int]:
    """Layer -> neurons that no grid (B, bins, H, W) makes fire: an observation, not a proof."""
    fired: dict[str, Tensor] = {}

    def watch(name: str, layer: nn.Module) -> Any:
        def note(_layer: nn.Module, _inputs: Any, spikes: Tensor) -> None:
            now = spikes.amax((0, 2, 3)) > 0
            fired[name] = now | fired[name] if name in fired else now

        return layer.register_forward_hook(note)

    named = [(name, layer) for name, layer in net.named_modules() if isinstance(layer, Neurons)]
    hooks = [watch(name, layer) for name, layer in named]
    for grid in grids:
        net(grid)
    for hook in hooks:
        hook.remove()
    return {name: int((~on).sum()) for name, on in fired.items() if not on.all()}


# Taking channels out of layers.


def _outputs(conv: Any, keep: Tensor) -> None:
    conv.weight = nn.Parameter(conv.weight[keep])
    if conv.bias is not None:
        conv.bias = nn.Parameter(conv.bias[keep])
    conv.out_channels = len(keep)
    if conv.groups > 1:
        conv.in_channels = conv.groups = len(keep)


def _inputs(conv: Any, keep: Tensor) -> None:
    conv.weight = nn.Parameter(conv.weight[:, keep])
    conv.in_channels = len(keep)


def _alive(fired: Interval) -> Tensor:
    """Indices of the neurons that may fire, one at least so that no layer is empty."""
    alive = ~fired.silent
    return (alive if alive.any() else torch.arange(len(alive)) == 0).nonzero()[:, 0]


def _hidden(place: str, first: Any, second: Any, x: Interval) -> list[Removal]:
    """Drop the dead neurons of `first` with the weights of `second`, their only reader."""
    potential = through(first, x)
    keep = _alive(potential.fired())
    dead = first.out_channels - len(keep)
    if dead == 0:
        return []
    ceiling = potential.high[potential.fired().silent].max().item()
    _outputs(first, keep)
    _inputs(second, keep)
    return [Removal(place, "neurons", dead, ceiling)]


def _neurons(module: nn.Module) -> int:
    layers: list[Any] = [m for m in module.modules() if isinstance(m, Neurons)]
    return sum(layer.out_channels for layer in layers)


# The parts of the network.


def _lmsb(place: str, block: LMSB, x: Interval, removed: list[Removal]) -> LMSB | None:
    """The block without its dead parts; None if nothing is left, since it then returns x."""
    potential = through(block.fire, block.total_bounds(x))
    if potential.fired().silent.all():
        removed.append(Removal(place, "block", _neurons(block), potential.high.max().item()))
        return None
    y = bounds(block.spikes, x)
    for name in ("near", "far"):
        branch: Any = getattr(block, name)
        last = through(branch[1], bounds(branch[0], y))
        if last.fired().silent.all():
            count, ceiling = _neurons(branch), last.high.max().item()
            removed.append(Removal(f"{place}.{name}", "branch", count, ceiling))
            setattr(block, name, None)
    entry, tall, wide = block.spikes
    if block.near is None and block.far is None:
        # The sum is y alone, so that a dead neuron of the sum makes its channel of y useless.
        keep = _alive(potential.fired())
        if dead := len(potential.high) - len(keep):
            ceiling = potential.high[potential.fired().silent].max().item()
            removed.append(Removal(f"{place}.fire", "channels", 2 * dead, ceiling))
            _outputs(wide, keep)
            _outputs(block.fire, keep)
            _inputs(block.expand, keep)
    removed += _hidden(f"{place}.spikes.1", tall, wide, bounds(entry, x))
    removed += _entry(f"{place}.spikes.0", block, x)
    return block


def _entry(place: str, block: LMSB, x: Interval) -> list[Removal]:
    """Drop dead neurons that read the block's input, by reading only the channels of the others."""
    entry, tall, wide = block.spikes
    potential = through(entry, x)  # type: ignore[arg-type]
    keep = _alive(potential.fired())
    dead = len(potential.high) - len(keep)
    if dead == 0:
        return []
    _outputs(entry, keep)
    _inputs(tall, keep)
    block.spikes = nn.Sequential(Select(keep), entry, tall, wide)
    ceiling = potential.high[potential.fired().silent].max().item()
    return [Removal(place, "neurons", dead, ceiling)]


def _stage_blocks(place: str, stage: Stage, x: Interval) -> list[Removal]:
    """Prune the LMSBs; where none is left, let the convolution and the pool fire themselves."""
    removed: list[Removal] = []
    y, kept = stage.down_bounds(x), []
    for i, block in enumerate(stage.blocks):
        assert isinstance(block, LMSB)
        left = _lmsb(f"{place}.blocks.{i}", block, y, removed)
        if left is not None:
            kept.append(left)
            y = left.bounds(y)
    stage.blocks = nn.Sequential(*kept)
    if not kept and stage.fire is not None:
        _fire_at_once(stage, stage.fire)
    return removed


def _fire_at_once(stage: Stage, fire: SpikingConv) -> None:
    old, count = stage.conv, stage.conv.out_channels
    scale, shift = fire.weight.double(), fire.get_parameter("bias").double()
    conv = SpikingConv(old.in_channels, count, 3, 2, 1)
    conv.weight.copy_(old.weight.double() * scale[:count])
    conv.get_parameter("bias").copy_(shift[:count])
    stage.conv, stage.fire = conv, None
    if stage.pool is not None:
        _outputs(fire, torch.arange(count, fire.out_channels))
        stage.pool = nn.Sequential(nn.MaxPool2d(2), fire)


def _stage_outputs(
    place: str, stage: Stage, x: Interval, reader: Stage, skip: nn.Module
) -> list[Removal]:
    """Drop dead channels that the next stage does not pool, and neurons that repeat pooled spikes.

    Only for a stage without LMSBs, whose convolution and pool fire themselves.
    """
    if not isinstance(stage.conv, SpikingConv) or not isinstance(stage.pool, nn.Sequential):
        return []
    conv, removed = stage.conv, []
    pool, fire = list(stage.pool)
    assert isinstance(fire, SpikingConv)
    potential = cat([through(conv, x), through(fire, bounds(pool, x))])
    drop = potential.fired().silent & ~_pooled(reader, len(potential.high))
    if drop[: conv.out_channels].all():
        drop[0] = False  # no layer is empty
    if drop.any():
        keep = (~drop).nonzero()[:, 0]
        pooled = keep[keep >= conv.out_channels] - conv.out_channels
        _outputs(conv, keep[keep < conv.out_channels])
        _outputs(fire, pooled)
        stage.pool = nn.Sequential(pool, Select(pooled), fire) if len(pooled) else None
        for layer in (reader.conv, skip):
            _inputs(layer, keep)
        if isinstance(reader.pool, nn.Sequential):
            select: Any = reader.pool[1]
            select.keep = torch.searchsorted(keep, select.keep)
        ceiling = potential.high[drop].max().item()
        removed.append(Removal(place, "channels", int(drop.sum()), ceiling))
    if stage.pool is None:
        return removed
    off, on = (fire.bounds(Interval.of(v, v, fire.out_channels)) for v in (0.0, 1.0))
    if off.silent.all() and (on.low == 1).all():
        stage.pool = nn.Sequential(*list(stage.pool)[:-1])
    return removed


def _pooled(reader: Stage, channels: int) -> Tensor:
    """Which of its input channels a stage pools, (channels,) bool."""
    pooled = torch.zeros(channels, dtype=torch.bool)
    if reader.pool is not None:
        select = reader.pool[1] if isinstance(reader.pool, nn.Sequential) else None
        pooled[select.keep if isinstance(select, Select) else slice(None)] = True
    return pooled


def _transformer(place: str, layer: Transformer, x: Interval) -> list[Removal]:
    """Drop attention channels in which q, k or v is dead, and dead hidden neurons of the MLP."""
    width = layer.project.in_channels
    potential = through(layer.qkv, bounds(layer.fire1, x))
    dead = potential.fired().silent.reshape(3, width).any(0)
    removed = []
    if dead.any() and not dead.all():
        keep = (~dead).nonzero()[:, 0]
        _outputs(layer.qkv, torch.cat([keep, keep + width, keep + 2 * width]))
        _inputs(layer.project, keep)
        ceiling = potential.high.reshape(3, width).amin(0)[dead].max().item()
        removed.append(Removal(f"{place}.qkv", "channels", 3 * int(dead.sum()), ceiling))
    hidden = bounds(layer.fire2, layer.attended_bounds(x))
    return removed + _hidden(f"{place}.fc1", layer.fc1, layer.fc2, hidden)


def _skip(place: str, skip: nn.Sequential, x: Interval, removed: list[Removal]) -> Interval:
    """Drop dead hidden neurons and a gate that never moves; returns the bounds of the result."""
    tall, wide, enhance = skip
    enhance_: Any = enhance
    removed += _hidden(f"{place}.0", tall, wide, x)
    if enhance_.channel is not None:
        squeeze, excite = enhance_.channel
        mean = bounds(wide, bounds(tall, x)).widened(1e-3)
        potential = through(squeeze, mean)
        if potential.fired().silent.all():
            ceiling = potential.high.max().item()
            removed.append(Removal(f"{place}.2.channel", "gate", squeeze.out_channels, ceiling))
            enhance_.channel = None
        else:
            removed += _hidden(f"{place}.2.channel.0", squeeze, excite, mean)
    return bounds(skip, x)
