"""SLTNet for inference: batch norms folded away, one time step, no training head.

A layer knows `forward`, what it makes of a tensor, and through `bounds` what it can make of
anything within an interval. Neurons fire where their potential is above zero: thresholds are in
the biases. `edgeperc.offline.fold` builds these modules from a trained network and prunes them.
"""
# ruff: noqa: D102 - what a forward does is what its class says

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeperc.offline import interval
from edgeperc.offline.interval import Interval


class Neurons(nn.Module):
    """Something that ends in spikes: 1.0 where the potential is above zero, else 0.0.

    A steep one has weights and bias multiplied by 2**64 and clips its potential to 0..1 instead,
    which gives the same spikes: see `edgeperc.offline.export.steepen`.
    """

    steep = False

    def fire(self, potential: Tensor) -> Tensor:
        """Spikes of a potential that was computed with this layer's weights."""
        return potential.clamp(0, 1) if self.steep else (potential > 0).to(potential.dtype)


class SpikingConv(nn.Conv2d, Neurons):
    """Spikes where W * x + b > 0; a depthwise 1x1 W where neurons sit on a sum or a resized map."""

    def potential(self, x: Tensor) -> Tensor:
        """W * x + b: x (B, inputs, h, w)."""
        return super().forward(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.fire(self.potential(x))

    def bounds(self, x: Interval) -> Interval:
        return interval.through(self, x).fired()


class SpikingConvTranspose(nn.ConvTranspose2d, Neurons):
    """Spikes where a transposed convolution W * x + b > 0."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        return self.fire(super().forward(x, output_size))

    def bounds(self, x: Interval) -> Interval:
        return interval.through(self, x).fired()


class Select(nn.Module):
    """The channels in `keep`, (n,) int64."""

    keep: Tensor

    def __init__(self, keep: Tensor) -> None:
        super().__init__()
        self.register_buffer("keep", keep)

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.keep]

    def bounds(self, x: Interval) -> Interval:
        return x[self.keep]


class ECA(nn.Module):
    """Scale channels by a gate that looks at the means of three neighbouring channels."""

    def __init__(self, conv: nn.Conv1d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.conv(x.mean((2, 3)).unsqueeze(1))).squeeze(1)
        return x * gate[:, :, None, None]

    def bounds(self, x: Interval) -> Interval:
        return x.with_zero()


class LMSB(nn.Module):
    """Multi-scale block: x + expand(fire(y + near(y) + far(y))), y = spikes made of x.

    x and the result are membrane potentials. near or far is None where it never fires.
    """

    near: nn.Sequential | None
    far: nn.Sequential | None

    def __init__(
        self,
        spikes: nn.Sequential,
        near: nn.Sequential,
        far: nn.Sequential,
        fire: SpikingConv,
        expand: nn.Conv2d,
    ) -> None:
        super().__init__()
        self.spikes, self.near, self.far = spikes, near, far
        self.fire, self.expand = fire, expand

    def forward(self, x: Tensor) -> Tensor:
        y = self.spikes(x)
        total = y
        for branch in (self.near, self.far):
            if branch is not None:
                total = total + branch(y)
        residual: Tensor = self.expand(self.fire(total))
        return x + residual

    def total_bounds(self, x: Interval) -> Interval:
        """Bounds of y + near(y) + far(y)."""
        y = bounds(self.spikes, x)
        total = y
        for branch in (self.near, self.far):
            if branch is not None:
                total = total + bounds(branch, y)
        return total

    def bounds(self, x: Interval) -> Interval:
        return x + bounds(self.expand, bounds(self.fire, self.total_bounds(x)))


class Stage(nn.Module):
    """Halve the size by a convolution beside a pool, then LMSBs, then spikes.

    Without LMSBs the convolution fires itself and so does the pool, and `fire` is None.
    """

    def __init__(
        self,
        conv: nn.Conv2d,
        pool: nn.Module | None,
        blocks: list[LMSB],
        fire: SpikingConv | None,
    ) -> None:
        super().__init__()
        self.conv, self.pool = conv, pool
        self.blocks = nn.Sequential(*blocks)
        self.fire = fire

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.pool is not None:
            y = torch.cat([y, self.pool(x)], 1)
        y = self.blocks(y)
        spikes: Tensor = y if self.fire is None else self.fire(y)
        return spikes

    def down_bounds(self, x: Interval) -> Interval:
        """Bounds of what the first LMSB sees."""
        y = bounds(self.conv, x)
        return y if self.pool is None else interval.cat([y, bounds(self.pool, x)])

    def bounds(self, x: Interval) -> Interval:
        y = bounds(self.blocks, self.down_bounds(x))
        return y if self.fire is None else bounds(self.fire, y)


class Transformer(nn.Module):
    """x + project(q * any pixel of (k and v)), then x + fc2(fc1(fire(x))).

    qkv: one convolution for the three. fire1 is an identity where x is spikes already.
    """

    def __init__(
        self,
        fire1: nn.Module,
        qkv: SpikingConv,
        project: nn.Conv2d,
        fire2: SpikingConv,
        fc1: SpikingConv,
        fc2: nn.Conv2d,
    ) -> None:
        super().__init__()
        self.fire1, self.qkv, self.project = fire1, qkv, project
        self.fire2, self.fc1, self.fc2 = fire2, fc1, fc2

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.fire1(x)).split(self.project.in_channels, 1)
        mask = F.adaptive_max_pool2d(k * v, 1)
        x = x + self.project(q * mask)
        residual: Tensor = self.fc2(self.fc1(self.fire2(x)))
        return x + residual

    def attended_bounds(self, x: Interval) -> Interval:
        """Bounds of the first sum."""
        q = bounds(self.qkv, bounds(self.fire1, x))
        third = len(q.low) // 3
        k, v = q[third : 2 * third], q[2 * third :]
        high = q.high[:third] * k.high * v.high
        return x + bounds(self.project, Interval(torch.zeros_like(high), high))

    def bounds(self, x: Interval) -> Interval:
        x = self.attended_bounds(x)
        return x + bounds(self.fc2, bounds(self.fc1, bounds(self.fire2, x)))


class FeatureEnhance(nn.Module):
    """x + mix(x * (channel gate + pixel gate)).

    channel: what goes into the channel gate's sigmoid, made of the channels' means (B, C, 1, 1);
    None where that is always zero. pixel: the same from the mean and maximum over channels.
    """

    def __init__(self, channel: nn.Sequential | None, pixel: nn.Conv2d, mix: nn.Conv2d) -> None:
        super().__init__()
        self.channel, self.pixel, self.mix = channel, pixel, mix

    def forward(self, x: Tensor) -> Tensor:
        summary = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        gate = torch.sigmoid(self.pixel(summary))
        if self.channel is None:
            gate = gate + 0.5
        else:
            gate = gate + torch.sigmoid(self.channel(x.mean((2, 3), keepdim=True)))
        enhanced: Tensor = self.mix(x * gate)
        return x + enhanced

    def bounds(self, x: Interval) -> Interval:
        gated = x.with_zero()  # times a gate between 0 and 2
        return x + bounds(self.mix, Interval(2 * gated.low, 2 * gated.high))


class PixelAttention(nn.Module):
    """x * sigmoid(W x + b), per pixel and channel."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.conv(x))

    def bounds(self, x: Interval) -> Interval:
        return x.with_zero()


class Up(nn.Module):
    """Double the size: LMSB or None, add the skip, transposed convolution."""

    block: LMSB | None

    def __init__(self, block: LMSB, conv: nn.ConvTranspose2d) -> None:
        super().__init__()
        self.block, self.conv = block, conv

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = x if self.block is None else self.block(x)
        y: Tensor = self.conv(resize(x, skip.shape[-2:]) + skip)
        return y

    def bounds_with(self, x: Interval, skip: Interval) -> Interval:
        """Bounds of the result; bilinear resizing stays within its input's."""
        x = x if self.block is None else self.block.bounds(x)
        return bounds(self.conv, x.widened(1e-6) + skip)


class FoldedSLTNet(nn.Module):
    """The network in five parts: stem, three stages, transformers, three ups, head.

    stem: three SpikingConvs at full, full and half size, two thirds of the work. head: scales the
    half-size map, fires after resizing it; classifier: 1x1. Pass (B, bins, H, W), get
    (B, classes, H, W) logits.
    """

    def __init__(
        self,
        stem: nn.Sequential,
        stages: list[Stage],
        transformers: list[Transformer],
        skips: list[nn.Sequential],
        ups: list[Up],
        attention: PixelAttention,
        head: SpikingConv,
        classifier: nn.Conv2d,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stage1, self.stage2, self.stage3 = stages
        self.transformers = nn.Sequential(*transformers)
        self.skip1, self.skip2, self.skip3 = skips
        self.up1, self.up2, self.up3 = ups
        self.attention = attention
        self.head, self.classifier = head, classifier

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(self.core(self.stem(x)), x.shape[-2:])

    def core(self, o0: Tensor) -> Tensor:
        """From the stem's spikes (B, width, H/2, W/2) to the head's map (B, width/2, H/2, W/2)."""
        o1 = self.stage1(o0)
        o2 = self.stage2(o1)
        o3 = self.stage3(o2)
        y = self.up1(self.transformers(o3), self.skip3(o3))
        y = self.up2(y, self.skip2(o2))
        y = self.up3(y, self.skip1(o1))
        return self.head.potential(self.attention(y))

    def finish(self, y: Tensor, size: torch.Size) -> Tensor:
        """Resize the core's map, fire, classify."""
        logits: Tensor = self.classifier(self.head.fire(resize(y, size)))
        return logits


def bounds(layer: nn.Module, x: Interval) -> Interval:
    """What a layer can put out when its input is within x."""
    if isinstance(layer, nn.Identity | nn.MaxPool2d):
        return x
    if isinstance(layer, nn.Sequential):
        for step in layer:
            x = bounds(step, x)
        return x
    if hasattr(layer, "bounds"):
        own: Interval = layer.bounds(x)  # type: ignore[operator]
        return own
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        return interval.through(layer, x)
    raise TypeError(f"no bounds for a {type(layer).__name__}")


def resize(x: Tensor, size: torch.Size) -> Tensor:
    """Bilinear, align_corners=False; nothing where the size is right already."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, (size[0], size[1]), mode="bilinear", align_corners=False)
