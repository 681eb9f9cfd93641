"""How large MambaSeg is: parameters and operations by part, beside what is published of it.

    counts = count(MambaSegConfig(locked_px=(200, 346)), (200, 346))

Nothing is computed: the network lies on torch's meta device, where tensors have sizes only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgeperc.offline.nets import ss2d
from edgeperc.offline.nets.mambaseg import MambaSeg, MambaSegConfig

PUBLISHED_PARAMETERS, PUBLISHED_MACS = 25.44e6, 15.59e9
"""README of CQU-UISC/MambaSeg, for DDD17; the abstract of arXiv 2512.24243 says the same."""
REASON = (
    "25.44 M is what the plain layers hold: convolutions, the head's and the channel scans' linear "
    "layers, batch norm. A counter that knows those types alone passes over VMamba's own kinds of "
    "linear layer and norm, and over the weights of the scans, which are bare parameters. How the "
    "published operations were counted is not said."
)
"""Why the published numbers are smaller. The count agrees; that it was made so is inferred."""


@dataclass(frozen=True)
class Counts:
    """parameters: by part. plain: of them, in layers that a simple counter knows. macs: of
    convolutions and linear layers; scan_macs: of the products before the scans; states: how many
    numbers all scans update.
    """

    parameters: dict[str, int]
    plain: int
    macs: int
    scan_macs: int
    states: int

    @property
    def total(self) -> int:
        """All parameters."""
        return sum(self.parameters.values())

    def row(self, name: str) -> dict[str, str]:
        """For a table, with the published numbers beside."""
        return {
            "network": name,
            "parameters, M": f"{self.total / 1e6:.2f}",
            "published": f"{PUBLISHED_PARAMETERS / 1e6:.2f}",
            "of plain layers": f"{self.plain / 1e6:.2f}",
            "conv and linear, GMAC": f"{self.macs / 1e9:.2f}",
            "before scans": f"{self.scan_macs / 1e9:.2f}",
            "published GMAC": f"{PUBLISHED_MACS / 1e9:.2f}",
            "states, M": f"{self.states / 1e6:.0f}",
        }


def count(config: MambaSegConfig, size: tuple[int, int]) -> Counts:
    """Count a network for inputs of this height and width."""
    with torch.device("meta"):
        net = MambaSeg(config).eval()
        inputs = [torch.zeros(1, n, *size) for n in (config.frame_channels, config.bins)]
    tally = _Tally()
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | ss2d.SS2D | ss2d.ChannelScan):
            module.register_forward_hook(tally.add)
    with _no_scans(), torch.no_grad():
        net(*inputs)
    parts = {
        "encoders": (net.frame, net.events),
        "fusion": (net.fusions,),
        "merging": (net.merge,),
        "head": (net.head,),
    }
    return Counts(
        parameters={name: sum(map(_size, modules)) for name, modules in parts.items()},
        plain=_plain(net),
        macs=tally.macs,
        scan_macs=tally.scan_macs,
        states=tally.states,
    )


class _Tally:
    def __init__(self) -> None:
        self.macs = self.scan_macs = self.states = 0

    def add(self, module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        """A forward hook."""
        if isinstance(module, nn.Conv2d):
            self.macs += out.numel() * math.prod(module.weight.shape[1:])
        elif isinstance(module, nn.Linear):
            self.macs += out.numel() * module.in_features
        else:
            layer: Any = module
            scan = layer.scan
            cells = math.prod(inputs[0].shape[1:3])
            steps = cells if isinstance(module, ss2d.SS2D) else layer.leave.in_features
            each = scan.directions * scan.features * steps
            self.scan_macs += each * (2 * scan.rank + 2 * scan.states)
            self.states += each * scan.states


@contextmanager
def _no_scans() -> Iterator[None]:
    """A scan gives what it takes for a while: the sizes are the same."""
    layers: Any = ss2d
    scan = layers.selective_scan
    layers.selective_scan = lambda u, *_, **__: u
    try:
        yield
    finally:
        layers.selective_scan = scan


def _plain(net: MambaSeg) -> int:
    """Parameters in what the published code builds of torch's own layers; its 1 x 1 convolutions
    are linear layers here.
    """
    plain: list[nn.Module] = [each for each in net.modules() if isinstance(each, nn.Conv2d)]
    plain += [*net.merge, net.head.mix, *net.head.lift, net.head.norm]
    fusions: Any = net.fusions
    for fusion in fusions:
        for half in (fusion.channels, fusion.plane):
            plain += half.beside
        plain += [*fusion.join, fusion.channels.squeeze, fusion.plane.maps, *fusion.channels.gates]
        plain += [layer for scan in fusion.channels.scans for layer in (scan.enter, scan.leave)]
    return sum(map(_size, plain))


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
