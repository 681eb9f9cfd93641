"""A convolutional pyramid beside a trunk: CSPDarknet and PAFPN of YOLOX-Nano, without its heads.

A few hundred pictures teach a trunk of attention blocks little; what this pyramid sees, it can have
learned elsewhere (`load_detector`). Source: Ge et al. 2021 (YOLOX), repository
Megvii-BaseDetection/YOLOX (Apache-2.0). Norms are folded into the convolutions, as in exports.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (32, 64, 128, 256)
"""Channels at strides 4, 8, 16 and 32."""


class ConvAct(nn.Module):
    """Convolution and SiLU."""

    def __init__(self, inside: int, outside: int, side: int, stride: int = 1, groups: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(
            inside, outside, side, stride=stride, padding=side // 2, groups=groups
        )
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")
        nn.init.zeros_(cast(Tensor, self.conv.bias))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inside, H, W) to (B, outside, H/stride, W/stride)."""
        return F.silu(self.conv(x))


def separable(inside: int, outside: int, stride: int = 1) -> nn.Sequential:
    """A 3 x 3 convolution of each channel by itself, then one of all channels."""
    return nn.Sequential(
        ConvAct(inside, inside, 3, stride, groups=inside), ConvAct(inside, outside, 1)
    )


class Bottleneck(nn.Module):
    """1 x 1, then separable 3 x 3; added to what came in if `residual`."""

    def __init__(self, width: int, *, residual: bool) -> None:
        super().__init__()
        self.conv1, self.conv2 = ConvAct(width, width, 1), separable(width, width)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W), the same shape out."""
        out = cast(Tensor, self.conv2(self.conv1(x)))
        return x + out if self.residual else out


class CrossStage(nn.Module):
    """Half of the channels through bottlenecks, half past them."""

    def __init__(self, inside: int, outside: int, depth: int, *, residual: bool = True) -> None:
        super().__init__()
        half = outside // 2
        self.conv1, self.conv2 = ConvAct(inside, half, 1), ConvAct(inside, half, 1)
        self.blocks = nn.Sequential(*(Bottleneck(half, residual=residual) for _ in range(depth)))
        self.conv3 = ConvAct(outside, outside, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inside, H, W) to (B, outside, H, W)."""
        return cast(
            Tensor, self.conv3(torch.cat([self.blocks(self.conv1(x)), self.conv2(x)], dim=1))
        )


class Surroundings(nn.Module):
    """Each place with the largest values around it, at three ranges."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = ConvAct(width, width // 2, 1), ConvAct(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W), the same shape out."""
        x = self.conv1(x)
        ranges = [F.max_pool2d(x, side, stride=1, padding=side // 2) for side in (5, 9, 13)]
        return cast(Tensor, self.conv2(torch.cat([x, *ranges], dim=1)))


class Pyramid(nn.Module):
    """Maps at strides 4, 8, 16 and 32 of `WIDTHS` channels."""

    def __init__(self) -> None:
        super().__init__()
        w4, w8, w16, w32 = WIDTHS
        # In the order in which they run: `load_detector` relies on it.
        self.start = ConvAct(12, 16, 3)
        self.dark4 = nn.Sequential(separable(16, w4, 2), CrossStage(w4, w4, 1))
        self.dark8 = nn.Sequential(separable(w4, w8, 2), CrossStage(w8, w8, 3))
        self.dark16 = nn.Sequential(separable(w8, w16, 2), CrossStage(w16, w16, 3))
        self.dark32 = nn.Sequential(
            separable(w16, w32, 2), Surroundings(w32), CrossStage(w32, w32, 1, residual=False)
        )
        self.narrow32 = ConvAct(w32, w16, 1)
        self.down16 = CrossStage(2 * w16, w16, 1, residual=False)
        self.narrow16 = ConvAct(w16, w8, 1)
        self.down8 = CrossStage(2 * w8, w8, 1, residual=False)
        self.stride16 = separable(w8, w8, 2)
        self.up16 = CrossStage(w16, w16, 1, residual=False)
        self.stride32 = separable(w16, w16, 2)
        self.up32 = CrossStage(w32, w32, 1, residual=False)

    def forward(self, picture: Tensor) -> list[Tensor]:
        """picture: (B, 3, S, S). Returns the four maps, the finest first."""
        picture = picture.contiguous(memory_format=torch.channels_last)  # twice as fast
        corners = [picture[..., y::2, x::2] for x in (0, 1) for y in (0, 1)]
        at4 = self.dark4(self.start(torch.cat(corners, dim=1)))
        at8 = self.dark8(at4)
        at16 = self.dark16(at8)
        narrow32 = self.narrow32(self.dark32(at16))
        narrow16 = self.narrow16(self.down16(torch.cat([_twice(narrow32), at16], dim=1)))
        fine = self.down8(torch.cat([_twice(narrow16), at8], dim=1))
        middle = self.up16(torch.cat([self.stride16(fine), narrow16], dim=1))
        coarse = self.up32(torch.cat([self.stride32(middle), narrow32], dim=1))
        return [at4, fine, middle, coarse]


@torch.no_grad()
def load_detector(
    pyramid: Pyramid, weights: list[tuple[Tensor, Tensor]], mean: Tensor, deviation: Tensor
) -> None:
    """Begin with a detector's convolutions.

    weights: kernels and biases of a YOLOX-Nano file, in the order in which they run; it takes
    pictures as BGR 0 to 255, the pyramid as RGB less `mean` and divided by `deviation`, (3,) each.
    Raises ValueError if they are of another shape or number.
    """
    convs = [m for m in pyramid.modules() if isinstance(m, nn.Conv2d)]
    for conv, (kernel, bias) in zip(convs, weights[: len(convs)], strict=True):
        if conv.weight.shape != kernel.shape:
            raise ValueError(f"a kernel is {tuple(kernel.shape)}, not {tuple(conv.weight.shape)}")
        conv.weight.copy_(kernel)
        cast(Tensor, conv.bias).copy_(bias)
    first = convs[0]
    kernel = first.weight.reshape(-1, 4, 3, 3, 3).flip(2)
    cast(Tensor, first.bias).add_((kernel * mean[:, None, None]).sum((1, 2, 3, 4)))
    first.weight.copy_((kernel * deviation[:, None, None]).flatten(1, 2))


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
