"""SLTNet: a spiking encoder and decoder with one small spike-driven transformer between them.

A voxel grid (B, bins, H, W) goes in, class logits (B, classes, H, W) come out. With one time step
(the published setting) nothing persists between calls and a neuron is `x > 0.5`: a convolutional
network with binary activations. The bins are channels, not time steps.

Source: Zhu et al., "SLTNet", IROS 2025, arXiv 2412.12843; layer details after the published
repository (longxianlei/SLTNet-v1.0). What differs on purpose: `RepConv` pads before its first
convolution, which is the same function at inference.
"""
# ruff: noqa: D102 - what a forward does is what its class says

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeperc.errors import ModelError
from edgeperc.offline.nets.lif import LIF

EARLY_LOSS_WEIGHT = 0.4
"""Weight of the early head's loss beside 1.0 of the main one."""

Neuron = Callable[[], LIF]


class BNLIF(nn.Sequential):
    """Batch normalisation, then neurons."""

    def __init__(self, channels: int, neuron: Neuron) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps=1e-3)
        self.lif = neuron()


class ConvBNLIF(nn.Sequential):
    """A size-preserving convolution without bias, then BN and neurons."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int],
        neuron: Neuron,
        *,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2 * dilation, kernel[1] // 2 * dilation)
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, 1, padding, dilation=dilation, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)
        self.lif = neuron()


def _conv1x1(inputs: int, outputs: int, *, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, bias=bias)


class ECA(nn.Module):
    """Scale channels by a gate that looks at the means of three neighbouring channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.conv(x.mean((2, 3)).unsqueeze(1))).squeeze(1)
        return x * gate[:, :, None, None]


class LMSB(nn.Module):
    """Lightweight multi-scale block: membrane potentials in and out, a residual of spikes."""

    def __init__(self, channels: int, dilation: int, neuron: Neuron) -> None:
        super().__init__()
        half = channels // 2

        def depthwise(kernel: tuple[int, int], dilation: int) -> ConvBNLIF:
            return ConvBNLIF(half, half, kernel, neuron, dilation=dilation, groups=half)

        self.reduce = nn.Sequential(
            BNLIF(channels, neuron),
            _conv1x1(channels, half),
            ConvBNLIF(half, half, (3, 1), neuron),
            ConvBNLIF(half, half, (1, 3), neuron),
        )
        self.near = nn.Sequential(depthwise((3, 1), 1), depthwise((1, 3), 1), ECA())
        self.far = nn.Sequential(depthwise((3, 1), dilation), depthwise((1, 3), dilation), ECA())
        self.expand = nn.Sequential(BNLIF(half, neuron), _conv1x1(half, channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.reduce(x)
        residual: Tensor = self.expand(y + self.near(y) + self.far(y))
        return x + residual


class Down(nn.Module):
    """Halve the size: a strided convolution, beside a max-pool where channels are gained."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.pools = outputs > inputs
        learnt = outputs - inputs if self.pools else outputs
        self.conv = nn.Conv2d(inputs, learnt, 3, 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return torch.cat([y, F.max_pool2d(x, 2)], 1) if self.pools else y


class RepConv(nn.Sequential):
    """A 3x3 convolution in training clothes: 1x1, BN, depthwise 3x3, 1x1, BN, BN."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.ZeroPad2d(1),
            _conv1x1(channels, channels),
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, channels, 3, groups=channels, bias=False),
            _conv1x1(channels, channels),
            nn.BatchNorm2d(channels),
            nn.BatchNorm2d(channels),
        )


class SDSA(nn.Module):
    """Spike-driven self-attention: keep q in the channels where some pixels have k and v."""

    def __init__(self, channels: int, neuron: Neuron) -> None:
        super().__init__()
        self.lif = neuron()
        self.q = nn.Sequential(RepConv(channels), neuron())
        self.k = nn.Sequential(RepConv(channels), neuron())
        self.v = nn.Sequential(RepConv(channels), neuron())
        self.mask = neuron()
        self.project = RepConv(channels)

    def forward(self, x: Tensor) -> Tensor:
        z = self.lif(x)
        mask = self.mask((self.k(z) * self.v(z)).sum((2, 3), keepdim=True))
        projected: Tensor = self.project(self.q(z) * mask)
        return projected


class MLP(nn.Sequential):
    """Two pointwise layers, each reading spikes."""

    def __init__(self, channels: int, hidden: int, neuron: Neuron) -> None:
        super().__init__(
            neuron(),
            _conv1x1(channels, hidden, bias=True),
            nn.BatchNorm2d(hidden),
            neuron(),
            _conv1x1(hidden, channels, bias=True),
            nn.BatchNorm2d(channels),
        )


class Transformer(nn.Module):
    """Attention, then MLP, both residual on membrane potentials."""

    def __init__(self, channels: int, neuron: Neuron) -> None:
        super().__init__()
        self.attention = SDSA(channels, neuron)
        self.mlp = MLP(channels, 4 * channels, neuron)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        residual: Tensor = self.mlp(x)
        return x + residual


class FeatureEnhance(nn.Module):
    """`x + W(x * channel gate) + W(x * pixel gate)`, one W for both."""

    def __init__(self, channels: int, neuron: Neuron) -> None:
        super().__init__()
        self.channel_gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            ConvBNLIF(channels, channels // 2, (1, 1), neuron),
            _conv1x1(channels // 2, channels),
            nn.Sigmoid(),
        )
        self.pixel_gate = nn.Sequential(
            nn.Conv2d(2, 1, 3, padding=1, bias=False), nn.BatchNorm2d(1, eps=1e-3), nn.Sigmoid()
        )
        self.mix = _conv1x1(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        summary = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        by_channel: Tensor = self.mix(x * self.channel_gate(x))
        by_pixel: Tensor = self.mix(x * self.pixel_gate(summary))
        return x + by_channel + by_pixel


class PixelAttention(nn.Module):
    """`x * sigmoid(W x + b)`, per pixel and channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = _conv1x1(channels, channels, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.conv(x))


class Up(nn.Module):
    """Double the size: LMSB, add the skip, transposed convolution, then `after`."""

    def __init__(self, inputs: int, outputs: int, after: nn.Module, neuron: Neuron) -> None:
        super().__init__()
        self.block = LMSB(inputs, 2, neuron)
        self.conv = nn.ConvTranspose2d(inputs, outputs, 3, 2, padding=1, output_padding=1)
        self.after = after

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        # An odd size of the skip was rounded up on the way down: 25 -> 13 -> 26 rows.
        x = _resize(self.block(x), skip.shape[-2:])
        y: Tensor = self.after(self.conv(x + skip))
        return y


def _resize(x: Tensor, size: Iterable[int]) -> Tensor:
    height, width = size
    return F.interpolate(x, (height, width), mode="bilinear", align_corners=False)


def _skip(inputs: int, outputs: int, neuron: Neuron) -> nn.Sequential:
    return nn.Sequential(
        ConvBNLIF(inputs, inputs // 2, (3, 1), neuron),
        ConvBNLIF(inputs // 2, outputs, (1, 3), neuron),
        FeatureEnhance(outputs, neuron),
    )


class SLTNet(nn.Module):
    """The whole network.

    classes, bins: channels out and in. width: channels of the stem, a multiple of 4; the other
    layers have width/2 to 4*width. blocks: LMSBs after each of the three downsamplings. The
    published network is the default; time_steps > 1 repeats the grid unless x has a time axis.
    """

    def __init__(
        self,
        classes: int,
        *,
        bins: int = 5,
        width: int = 32,
        blocks: tuple[int, int, int] = (3, 3, 3),
        time_steps: int = 1,
        neuron: Neuron | None = None,
    ) -> None:
        super().__init__()
        if width % 4:
            raise ModelError(f"SLTNet: width is {width}, must be a multiple of 4")
        lif = neuron or (lambda: LIF(time_steps=time_steps))
        half = width // 2
        self.time_steps = time_steps

        def stage(inputs: int, outputs: int, dilations: list[int]) -> nn.Sequential:
            lmsbs = (LMSB(outputs, dilation, lif) for dilation in dilations)
            return nn.Sequential(Down(inputs, outputs), *lmsbs, BNLIF(outputs, lif))

        self.stem = nn.Sequential(
            ConvBNLIF(bins, width, (3, 3), lif),
            ConvBNLIF(width, width, (3, 3), lif),
            nn.Conv2d(width, width, 3, 2, 1, bias=False),
            BNLIF(width, lif),
        )
        self.stage1 = stage(width, 2 * width, [2] * blocks[0])
        self.stage2 = stage(2 * width, 4 * width, ([1] * (blocks[1] - 1) + [2])[: blocks[1]])
        self.stage3 = stage(4 * width, width, ([1] * (blocks[2] - 1) + [2])[: blocks[2]])
        self.transformers = nn.Sequential(Transformer(width, lif), Transformer(width, lif))
        self.skip1 = _skip(2 * width, half, lif)
        self.skip2 = _skip(4 * width, half, lif)
        self.skip3 = _skip(width, width, lif)
        self.up1 = Up(width, half, BNLIF(half, lif), lif)
        self.up2 = Up(half, half, BNLIF(half, lif), lif)
        self.up3 = Up(half, half, PixelAttention(half), lif)
        self.head_lif = BNLIF(half, lif)
        self.classifier = _conv1x1(half, classes)
        self.apply(_quieten_residuals)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes, H, W) of a (B, bins, H, W) or (time_steps, B, bins, H, W) grid."""
        return self._logits(*self._decode(x))

    def forward_with_early(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """For training: the logits and those of the early head, both (B, classes, H, W)."""
        final, early, size = self._decode(x)
        early = self._over_time(self.classifier(_resize(early, size)))
        return self._logits(final, early, size), early

    def _decode(self, x: Tensor) -> tuple[Tensor, Tensor, torch.Size]:
        """Maps at half and a quarter of the input's size, and that size."""
        if any(side % 8 for side in x.shape[-2:]):
            height, width = x.shape[-2:]
            raise ModelError(f"SLTNet: height {height} and width {width} must be multiples of 8")
        x = x.flatten(0, 1) if x.dim() == 5 else x.repeat(self.time_steps, 1, 1, 1)
        o0 = self.stem(x)
        o1 = self.stage1(o0)
        o2 = self.stage2(o1)
        o3 = self.stage3(o2)
        y = self.up1(self.transformers(o3), self.skip3(o3))
        early = self.up2(y, self.skip2(o2))
        return self.up3(early, self.skip1(o1)), early, x.shape[-2:]

    def _logits(self, final: Tensor, early: Tensor, size: torch.Size) -> Tensor:
        return self._over_time(self.classifier(self.head_lif(_resize(final, size))))

    def _over_time(self, logits: Tensor) -> Tensor:
        if self.time_steps == 1:
            return logits
        return torch.stack(logits.chunk(self.time_steps)).mean(0)


def _quieten_residuals(module: nn.Module) -> None:
    """Start residual branches small: through ~40 thresholds gradients would grow tenfold."""
    last: list[nn.Module] = []
    if isinstance(module, LMSB):
        last = [module.expand[1]]
    elif isinstance(module, FeatureEnhance):
        last = [module.mix]
    elif isinstance(module, Transformer):
        last = [module.attention.project[-1], module.mlp[-1]]
    for layer in last:
        weight = layer.get_parameter("weight")
        weight.data.mul_(0.1)
