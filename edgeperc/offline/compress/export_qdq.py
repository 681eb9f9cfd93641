"""A simulated network as ONNX files: codes, and what makes values of them, as QuantizeLinear and
DequantizeLinear.

with prepared(sim.net) as (net, rows):
    model, answers = traced(part_of(net), folder)
    model = in_integers(model, rows)

Weights are int8 with a scale for each output; values between layers uint8 with one scale. Grids of
fewer bits are stored in int8, clipped to their codes: no faster. Blocks of 4 bits stay that, for
products of floats. Grids that are not uniform stay small float graphs: accuracy only.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.onnx import symbolic_helper

from edgeperc.offline.compress.graph.weights import Rows
from edgeperc.offline.compress.quantize import channel_axis
from edgeperc.offline.compress.quantizers.base import Quantizer
from edgeperc.offline.compress.quantizers.blocks import STORED_BITS, Blocks
from edgeperc.offline.compress.quantizers.uniform import Uniform
from edgeperc.offline.compress.simulate import INPUT, OUTPUT
from edgeperc.offline.nets.tinyvit import ConvNorm

BYTE = 8
ON_GRID = 1e-2
"""Of a step; farther from a code, a weight is not stored as one."""


@contextmanager
def prepared(net: nn.Module, *, whole_biases: bool = True) -> Iterator[tuple[nn.Module, Rows]]:
    """A copy whose quantizers of values become operators where it is traced, and whose weights are
    plain ones on their grids; and the table of these. whole_biases: put biases into whole units of
    the sums of codes, for a graph that is to run in integers.
    """
    copied = copy.deepcopy(net).eval()
    rows = Rows()
    with torch.no_grad():
        _norms_into_weights(copied)
        _outputs_into_weights(copied)
        for layer in list(copied.modules()):
            if parametrize.is_parametrized(layer, "weight"):
                _plain_weight(layer, rows, whole_bias=whole_biases)
        for each in copied.modules():
            if isinstance(each, Uniform) and each.axis is None and each.bits <= BYTE:
                each.onnx = _in_graph(each)  # type: ignore[method-assign]
        yield copied, rows


def _plain_weight(layer: Any, rows: Rows, *, whole_bias: bool) -> None:
    """A layer's weight as its quantizer gives it; into the table if int8, or int4, holds it."""
    quantizer = layer.parametrizations["weight"][0]
    weight: Tensor = layer.weight.detach()
    if isinstance(quantizer, Blocks):
        if quantizer.bits == STORED_BITS:
            rows.blocks.add(weight, quantizer)
    elif isinstance(quantizer, Quantizer) and quantizer.bits <= BYTE:
        nothing = torch.zeros_like(weight)
        start, step = quantizer.dequantize(nothing), quantizer.dequantize(nothing + 1)
        codes = weight / step
        if not bool(start.any()) and bool((codes - codes.round()).abs().max() < ON_GRID):
            axis = channel_axis(layer)
            rows.add(weight, step, axis)
            if whole_bias:
                _bias_on_grid(layer, step.movedim(axis, 0).flatten(1)[:, 0])
    _set_plain(layer, weight)


def _set_plain(layer: Any, weight: Tensor) -> None:
    """Take the quantizer off. Not as torch does it: the class is the original's as well."""
    layer.__class__ = type(layer).__mro__[1]
    del layer._modules["parametrizations"]
    layer.weight = nn.Parameter(weight, requires_grad=False)


def _bias_on_grid(layer: Any, steps: Tensor) -> None:
    """A bias in whole units of the sums of codes, as integer arithmetic adds it.

    Else the graph would differ from the network by up to half a unit, which turns some roundings
    over. steps: of the weight's codes, (outputs,).
    """
    grid = getattr(layer, INPUT, None)
    if layer.bias is not None and isinstance(grid, Uniform) and grid.axis is None:
        unit = grid.scale * steps
        layer.bias.copy_((layer.bias / unit).round() * unit)


def _norms_into_weights(net: nn.Module) -> None:
    """Batch norms into the convolutions before them: codes stay, scales change."""
    for each in net.modules():
        if not isinstance(each, ConvNorm) or not isinstance(each.bn, nn.BatchNorm2d):
            continue
        conv: Any = each.c
        norm: Any = each.bn
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        shift = norm.bias - gain * norm.running_mean
        _scale_rows(conv, gain)
        conv.bias = nn.Parameter(shift.clone(), requires_grad=False)
        each.add_module("bn", nn.Identity())


def _outputs_into_weights(net: nn.Module) -> None:
    """Grids of what convolutions give into their weights: these give codes then, of step 1.

    A runtime's convolution has one step for all that it gives, a grid for each channel has many.
    """
    for each in list(net.modules()):
        grid = getattr(each, OUTPUT, None)
        if isinstance(grid, Uniform):
            conv: Any = each.c if isinstance(each, ConvNorm) else each
            bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()
            _scale_rows(conv, 1 / grid.scale.expand(conv.out_channels))
            conv.bias = nn.Parameter(bias / grid.scale + grid.zero, requires_grad=False)
            each.add_module(OUTPUT, FromCodes(grid, conv.out_channels))


class FromCodes(nn.Module):
    """Values (B, C, H, W) in steps, from zero up, to the codes that are nearest, and to values."""

    def __init__(self, grid: Uniform, channels: int) -> None:
        super().__init__()
        self.least, self.most = grid.codes
        self.register_buffer("scale", grid.scale.expand(channels).view(-1, 1, 1).clone())
        self.register_buffer("zero", grid.zero.expand(channels).view(-1, 1, 1).clone())

    def forward(self, x: Tensor) -> Tensor:
        """x: float32."""
        given: Any = self
        found: Tensor = _from_codes(x, given.scale, given.zero, self.most)
        return found


def _scale_rows(conv: Any, gain: Tensor) -> None:
    column = gain[:, None, None, None]
    if not parametrize.is_parametrized(conv, "weight"):
        conv.weight.mul_(column)
        return
    held = conv.parametrizations["weight"]
    grid = held[0]
    if not isinstance(grid, Uniform) or not grid.symmetric:
        _set_plain(conv, conv.weight.detach() * column)
        return
    held.original.mul_(column)
    grid.scale = (grid.scale * gain.abs()).clamp(min=1e-30)


def _in_graph(grid: Uniform) -> Any:
    """What a grid is where it is traced."""
    low, high = grid.codes
    scale, zero = float(grid.scale), int(grid.zero)
    return lambda x: _codes(x, scale, zero, low, high)


@torch.library.custom_op("edgeperc::codes", mutates_args=())
def _codes(x: Tensor, scale: float, zero: int, low: int, high: int) -> Tensor:
    """Onto a grid and back; in a graph `_symbolic`."""
    return (torch.clamp(torch.round(x / scale) + zero, low, high) - zero) * scale


@torch.library.custom_op("edgeperc::from_codes", mutates_args=())
def _from_codes(x: Tensor, scale: Tensor, zero: Tensor, most: int) -> Tensor:
    """Onto whole numbers and to values, channel by channel; in a graph `_of_channels`."""
    return (torch.clamp(torch.round(x), 0, most) - zero) * scale


def _of_channels(g: Any, x: Any, scale: Any, zero: Any, most: Any) -> Any:
    """QuantizeLinear and DequantizeLinear of step 1, then the zero point and step of each channel:
    a DequantizeLinear with many steps runs slowly where channels come last.
    """
    high = _constant(most, "i")

    def constant(value: float, dtype: torch.dtype) -> Any:
        return g.op("Constant", value_t=torch.tensor(value, dtype=dtype))

    grid = (constant(1.0, torch.float32), constant(0, torch.uint8))
    codes = g.op("QuantizeLinear", x, *grid)
    if high < 2**BYTE - 1:
        codes = g.op("Clip", codes, constant(0, torch.uint8), constant(high, torch.uint8))
    whole = g.op("DequantizeLinear", codes, *grid)
    return g.op("Mul", g.op("Sub", whole, zero), scale).setType(x.type())


def _constant(value: Any, kind: Any) -> Any:
    return symbolic_helper._maybe_get_const(value, kind)


def _symbolic(g: Any, x: Any, *grid: Any) -> Any:
    """QuantizeLinear, Clip where there are fewer codes than in a byte, DequantizeLinear."""
    given = zip(grid, "fiii", strict=True)
    scale, zero, low, high = (_constant(value, kind) for value, kind in given)
    kind = torch.int8 if low < 0 else torch.uint8

    def constant(value: float, dtype: torch.dtype) -> Any:
        return g.op("Constant", value_t=torch.tensor(value, dtype=dtype))

    step = (constant(scale, torch.float32), constant(zero, kind))
    codes = g.op("QuantizeLinear", x, *step)
    if high - low < 2**BYTE - 2:
        codes = g.op("Clip", codes, constant(low, kind), constant(high, kind))
    return g.op("DequantizeLinear", codes, *step).setType(x.type())


torch.onnx.register_custom_op_symbolic(  # type: ignore[attr-defined]
    "edgeperc::codes", _symbolic, 17
)
torch.onnx.register_custom_op_symbolic(  # type: ignore[attr-defined]
    "edgeperc::from_codes", _of_channels, 17
)
