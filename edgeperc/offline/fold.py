"""Fold a trained SLTNet for inference: no batch norms, no RepConv, no thresholds beside the biases.

Folding is exact in real arithmetic. In float32 it reorders sums, so a potential within rounding of
its threshold may fall on the other side; compare labels by the share of equal ones. What the
folded network can never do is removed by `edgeperc.offline.prune`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from edgeperc.errors import ModelError
from edgeperc.offline.nets import sltnet as net
from edgeperc.offline.nets import sltnet_folded as folded
from edgeperc.offline.nets.lif import LIF
from edgeperc.offline.nets.sltnet_folded import FoldedSLTNet, SpikingConv, SpikingConvTranspose

AnyConv = TypeVar("AnyConv", bound=nn.Conv2d | nn.ConvTranspose2d)


@torch.no_grad()
def fold(source: net.SLTNet) -> FoldedSLTNet:
    """The same function as `source` in evaluation mode, made of convolutions that fire.

    Raises ModelError unless it has one time step, which is what makes a neuron a comparison.
    """
    for module in source.modules():
        if isinstance(module, LIF):
            neuron = (module.time_steps, module.gain, module.reset, module.inclusive)
            if neuron != (1, 1, 0, False):
                raise ModelError("only an SLTNet of one time step and plain neurons can be folded")
    stem: Any = source.stem
    transformers: Any = source.transformers
    attention: Any = source.up3.after
    result = FoldedSLTNet(
        stem=nn.Sequential(
            _conv_bnlif(stem[0]),
            _conv_bnlif(stem[1]),
            _folded(SpikingConv, stem[2], _affine(stem[3])),
        ),
        stages=[_stage(stage) for stage in (source.stage1, source.stage2, source.stage3)],
        transformers=[_transformer(t, reads_spikes=i == 0) for i, t in enumerate(transformers)],
        skips=[_skip(skip) for skip in (source.skip1, source.skip2, source.skip3)],
        ups=[_up(up) for up in (source.up1, source.up2, source.up3)],
        attention=folded.PixelAttention(attention.conv),
        head=_neurons(_affine(source.head_lif)),
        classifier=source.classifier,
    )
    return copy.deepcopy(result).eval()  # shares no weights with `source`


@dataclass(frozen=True)
class Affine:
    """scale * x + shift per channel, float64 (C,) each."""

    scale: Tensor
    shift: Tensor

    @classmethod
    def of(cls, bn: nn.BatchNorm2d) -> Affine:
        """What a batch norm does at inference."""
        mean, variance = bn.get_buffer("running_mean"), bn.get_buffer("running_var")
        scale = bn.weight.double() / torch.sqrt(variance.double() + bn.eps)
        return cls(scale, bn.bias.double() - mean.double() * scale)

    @classmethod
    def minus(cls, threshold: float, channels: int) -> Affine:
        """Subtract a threshold."""
        ones = torch.ones(channels, dtype=torch.float64)
        return cls(ones, -threshold * ones)

    def then(self, outer: Affine) -> Affine:
        """outer(self(x))."""
        return Affine(outer.scale * self.scale, outer.scale * self.shift + outer.shift)


def _affine(layer: Any) -> Affine:
    """From the batch norm's input to a potential that fires above zero: of a (Conv)BNLIF."""
    bn = Affine.of(layer.bn)
    return bn.then(Affine.minus(layer.lif.threshold, len(bn.scale)))


def _folded(kind: type[AnyConv], conv: nn.Conv2d | nn.ConvTranspose2d, outer: Affine) -> AnyConv:
    """`outer` after `conv` as one layer of the same geometry."""
    shape, geometry = (-1, 1, 1, 1), ["kernel_size", "stride", "padding", "dilation", "groups"]
    if isinstance(conv, nn.ConvTranspose2d):
        shape, geometry = (1, -1, 1, 1), [*geometry, "output_padding"]
    same: dict[str, Any] = {name: getattr(conv, name) for name in geometry}
    result = kind(conv.in_channels, conv.out_channels, **same)
    bias = 0 if conv.bias is None else conv.bias.double()
    result.weight.copy_(conv.weight.double() * outer.scale.reshape(shape))
    result.get_parameter("bias").copy_(bias * outer.scale + outer.shift)
    return result


def _dense(weight: Tensor, bias: Tensor | None = None) -> nn.Conv2d:
    """A size-preserving float64 convolution with this weight (out, in, h, w)."""
    outputs, inputs, height, width = weight.shape
    padding = (height // 2, width // 2)
    conv = nn.Conv2d(inputs, outputs, (height, width), 1, padding, bias=bias is not None).double()
    conv.weight.copy_(weight)
    if bias is not None:
        conv.get_parameter("bias").copy_(bias)
    return conv


def _neurons(affine: Affine) -> SpikingConv:
    """Neurons on a sum or a resized map, where no convolution takes the batch norm in."""
    channels = len(affine.scale)
    conv = SpikingConv(channels, channels, 1, groups=channels)
    conv.weight.copy_(affine.scale.reshape(-1, 1, 1, 1))
    conv.get_parameter("bias").copy_(affine.shift)
    return conv


def _conv_bnlif(layer: net.ConvBNLIF) -> SpikingConv:
    return _folded(SpikingConv, layer.conv, _affine(layer))


def _lmsb(block: net.LMSB) -> folded.LMSB:
    reduce: Any = block.reduce
    fire, squeeze, tall, wide = reduce
    # No neurons between the 1x1 and the 3x1: one convolution, 10 % more products, a pass less.
    joined = torch.einsum(
        "ohyx,hc->ocyx", tall.conv.weight.double(), squeeze.weight[:, :, 0, 0].double()
    )
    spikes = nn.Sequential(
        _neurons(_affine(fire)),
        _folded(SpikingConv, _dense(joined), _affine(tall)),
        _conv_bnlif(wide),
    )
    ends: Any = block.expand
    sum_neurons, expand = ends
    near, far = _branch(block.near), _branch(block.far)
    return folded.LMSB(spikes, near, far, _neurons(_affine(sum_neurons)), expand)


def _branch(branch: Any) -> nn.Sequential:
    tall, wide, gate = branch
    return nn.Sequential(_conv_bnlif(tall), _conv_bnlif(wide), folded.ECA(gate.conv))


def _stage(stage: Any) -> folded.Stage:
    down, *blocks, fire = stage
    pool = nn.MaxPool2d(2) if down.pools else None
    return folded.Stage(down.conv, pool, [_lmsb(b) for b in blocks], _neurons(_affine(fire)))


def _repconv(rep: Any) -> nn.Conv2d:
    """One zero-padded 3x3 convolution.

    The first 1x1 has no bias, so padding before it (as RepConv does) and after it are the same;
    its batch norm's shift reaches every tap of the depthwise 3x3, at the border too.
    """
    _, pointwise, bn, depthwise, mix, bn2, bn3 = rep
    inner, outer = Affine.of(bn), Affine.of(bn2).then(Affine.of(bn3))
    first = pointwise.weight.double()[:, :, 0, 0] * inner.scale[:, None]
    taps = depthwise.weight.double()[:, 0]
    last = mix.weight.double()[:, :, 0, 0] * outer.scale[:, None]
    weight = torch.einsum("oc,cyx,ci->oiyx", last, taps, first)
    bias = last @ (taps.sum((1, 2)) * inner.shift) + outer.shift
    return _dense(weight, bias)


def _transformer(layer: Any, *, reads_spikes: bool) -> folded.Transformer:
    attention = layer.attention
    branches = [_repconv(branch[0]) for branch in (attention.q, attention.k, attention.v)]
    qkv = _dense(
        torch.cat([conv.weight for conv in branches]),
        torch.cat([conv.get_parameter("bias") for conv in branches]),
    )
    fire2, fc1, bn1, fire3, fc2, bn2 = layer.mlp
    hidden = Affine.of(bn1).then(Affine.minus(fire3.threshold, fc1.out_channels))
    project = _repconv(attention.project)
    width = project.out_channels
    return folded.Transformer(
        nn.Identity() if reads_spikes else _neurons(Affine.minus(attention.lif.threshold, width)),
        _folded(SpikingConv, qkv, Affine.minus(attention.q[1].threshold, 3 * width)),
        _folded(nn.Conv2d, project, Affine.minus(0, width)),
        _neurons(Affine.minus(fire2.threshold, width)),
        _folded(SpikingConv, fc1, hidden),
        _folded(nn.Conv2d, fc2, Affine.of(bn2)),
    )


def _skip(skip: Any) -> nn.Sequential:
    tall, wide, enhance = skip
    _, squeeze, excite, _ = enhance.channel_gate
    conv, bn, _ = enhance.pixel_gate
    channel = nn.Sequential(_conv_bnlif(squeeze), excite)
    pixel = _folded(nn.Conv2d, conv, Affine.of(bn))
    gates = folded.FeatureEnhance(channel, pixel, enhance.mix)
    return nn.Sequential(_conv_bnlif(tall), _conv_bnlif(wide), gates)


def _up(up: net.Up) -> folded.Up:
    if isinstance(up.after, net.BNLIF):
        return folded.Up(_lmsb(up.block), _folded(SpikingConvTranspose, up.conv, _affine(up.after)))
    return folded.Up(_lmsb(up.block), up.conv)
