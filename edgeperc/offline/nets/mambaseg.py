"""MambaSeg: a label map from a frame and the events around it.

    net = MambaSeg(VARIANTS["mambaseg-nano"])
    logits = net(frame, events)                              # (B, classes, H, W)

Two VMamba encoders side by side, a fusion after each of four stages, and a head like SegFormer's.
After Gu et al. (AAAI 2026, arXiv 2512.24243), written anew from the paper and the sizes of its
tensors; the published code has no licence, and nothing of it is here.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeperc.errors import ModelError
from edgeperc.offline.nets.ddim import Fusion, between, enlarge
from edgeperc.offline.nets.ss2d import ScanWeights
from edgeperc.offline.nets.vmamba import VMamba

Four = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class MambaSegConfig:
    """Sizes; those of the published network unless said otherwise.

    frame_channels, bins: channels of the two inputs. states, ratio: of the encoders' scans;
    fusion_states, fusion_ratio: of the fusions'. locked_px: height and width that the channel
    scans are tied to, as in the published network; None: any size.
    """

    classes: int = 6
    frame_channels: int = 3
    bins: int = 10
    widths: Four = (96, 192, 384, 768)
    depths: Four = (2, 2, 8, 2)
    states: int = 1
    ratio: float = 1.0
    mlp_ratio: float = 4.0
    fusion_states: int = 16
    fusion_ratio: float = 2.0
    head_width: int = 768
    locked_px: tuple[int, int] | None = None

    def cells(self) -> tuple[int, ...] | None:
        """Pixels of each stage where the size is locked; sides are halved upwards."""
        if self.locked_px is None:
            return None
        sides = [_halves(side) for side in self.locked_px]
        return tuple(h * w for h, w in zip(*sides, strict=True))


VARIANTS = {
    "mambaseg-tiny": MambaSegConfig(),
    "mambaseg-nano": MambaSegConfig(
        frame_channels=1,
        bins=5,
        widths=(16, 32, 64, 128),
        depths=(1, 1, 2, 1),
        mlp_ratio=2.0,
        fusion_states=4,
        fusion_ratio=1.0,
        head_width=64,
    ),
}
"""Name -> sizes; classes and channels are the caller's to replace."""


class MambaSeg(nn.Module):
    """Frame (B, frame_channels, H, W) and voxel grid (B, bins, H, W) to logits (B, classes, H, W).

    Raises ModelError for inputs of two sizes, or of another one than the weights are tied to.
    """

    def __init__(self, config: MambaSegConfig) -> None:
        super().__init__()
        self.config = config
        self.frame, self.events = (
            VMamba(
                channels=channels,
                widths=config.widths,
                depths=config.depths,
                states=config.states,
                ratio=config.ratio,
                mlp_ratio=config.mlp_ratio,
            )
            for channels in (config.frame_channels, config.bins)
        )
        cells = config.cells() or (None,) * 4
        self.fusions = nn.ModuleList(
            Fusion(width, states=config.fusion_states, ratio=config.fusion_ratio, cells=each)
            for width, each in zip(config.widths, cells, strict=True)
        )
        self.merge = nn.ModuleList(nn.Linear(2 * width, width) for width in config.widths)
        self.head = Head(config.widths, config.head_width, config.classes)

    def forward(self, frame: Tensor, events: Tensor) -> Tensor:
        """frame, events: float32, normalised, of one size."""
        self._check(frame, events)
        logits: Tensor = self.head(self.maps(frame, events))
        height, width = _sides(frame)
        rows, columns = (
            between(n, m).to(logits) for n, m in zip(_sides(logits), (height, width), strict=True)
        )
        return rows @ (logits @ columns.t())

    def maps(self, frame: Tensor, events: Tensor) -> list[Tensor]:
        """What the head sees of each stage: (B, h, w, width)."""
        x, v = self.frame.start(frame), self.events.start(events)
        merged: list[Tensor] = []
        for stage, fusion in enumerate(self.fusions):
            if stage:
                x, v = self.frame.down[stage - 1](x), self.events.down[stage - 1](v)
            x, v = self.frame.stages[stage](x), self.events.stages[stage](v)
            fused = fusion(self.frame.norms[stage](x), self.events.norms[stage](v))
            merged.append(self.merge[stage](torch.cat(fused, dim=-1)))
            x, v = x + fused[0], v + fused[1]
        return merged

    def _check(self, frame: Tensor, events: Tensor) -> None:
        ours, theirs = _sides(frame), _sides(events)
        if ours != theirs:
            raise ModelError(f"the frame is {_size(ours)}, the events are {_size(theirs)}")
        locked = self.config.locked_px
        if locked and ours != locked:
            raise ModelError(
                f"the input is {_size(ours)}, the weights are tied to {_size(locked)}",
                hint="the published fusion has weights for each pixel; train without locked_px",
            )


class Head(nn.Module):
    """Each stage to `hidden` channels, all to the first one's size, mixed: logits (B, K, h, w).

    After Xie et al., SegFormer (arXiv 2105.15203). The widest stage comes first in `mix`, as in
    the published weights. `fold` computes the same with fewer operations.
    """

    def __init__(self, widths: Four, hidden: int, classes: int) -> None:
        super().__init__()
        self.lift = nn.ModuleList(nn.Linear(width, hidden) for width in widths)
        self.mix = nn.Linear(4 * hidden, hidden)
        self.norm = nn.BatchNorm2d(hidden)
        self.drop = nn.Dropout2d(0.1)
        self.classify = nn.Conv2d(hidden, classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """maps: (B, h, w, width) of each stage."""
        lifted = [lift(x).permute(0, 3, 1, 2) for lift, x in zip(self.lift, maps, strict=True)]
        size = _sides(lifted[0])
        wide = [F.interpolate(x, size, mode="bilinear", align_corners=False) for x in lifted]
        mixed = self.mix(torch.cat(wide[::-1], dim=1).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        logits: Tensor = self.classify(self.drop(F.relu(self.norm(mixed))))
        return logits


class FoldedHead(nn.Module):
    """The head with its linear layers before the resizing, and its norm within them.

    Bilinear weights of a pixel add up to 1, so a linear layer may stand on either side of a
    resizing: each stage's lift and its slice of the mix become one layer at the stage's own size.
    Exact in real arithmetic. Sixteen to one in operations for the smallest stage.
    """

    def __init__(self, head: Head) -> None:
        super().__init__()
        norm, hidden = head.norm, head.mix.out_features
        mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
        with torch.no_grad():
            scale = norm.weight / torch.sqrt(variance + norm.eps)
            shift = norm.bias + (head.mix.bias - mean) * scale
            mixes = torch.split(head.mix.weight * scale[:, None], hidden, dim=1)[::-1]
            self.lift = nn.ModuleList()
            for mix, lift in zip(mixes, head.lift, strict=True):
                weight, bias = lift.get_parameter("weight"), lift.get_parameter("bias")
                folded = nn.Linear(weight.shape[1], hidden)
                folded.weight.copy_(mix @ weight)
                folded.bias.copy_(mix @ bias + shift / len(mixes))
                self.lift.append(folded)
        self.classify = nn.Linear(hidden, head.classify.out_channels)
        with torch.no_grad():
            self.classify.weight.copy_(head.classify.weight[..., 0, 0])
            self.classify.bias.copy_(head.classify.get_parameter("bias"))

    def forward(self, maps: list[Tensor]) -> Tensor:
        """maps: (B, h, w, width) of each stage."""
        height, width = (int(n) for n in maps[0].shape[1:3])
        total = self.lift[0](maps[0])
        for lift, x in zip(list(self.lift)[1:], maps[1:], strict=True):
            total = total + enlarge(lift(x), height, width)
        logits: Tensor = self.classify(F.relu(total))
        return logits.permute(0, 3, 1, 2)


def folded(net: MambaSeg) -> MambaSeg:
    """A copy for inference: the head folded, and scans with what follows from weights alone."""
    net = copy.deepcopy(net).eval()
    net.head = FoldedHead(net.head)  # type: ignore[assignment]
    for module in net.modules():
        if isinstance(module, ScanWeights):
            module.fix()
    return net


def _sides(x: Tensor) -> tuple[int, ...]:
    """Height and width of (B, C, H, W), as numbers even where a graph is traced."""
    return tuple(int(n) for n in x.shape[2:])


def _halves(side: int) -> list[int]:
    """Lengths of a side at the four stages."""
    sides = [-(-side // 4)]
    for _ in range(3):
        sides.append(-(-sides[-1] // 2))
    return sides


def _size(px: tuple[int, ...]) -> str:
    return f"{px[0]} × {px[1]} px (height × width)"
