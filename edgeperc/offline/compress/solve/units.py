"""What is reconstructed together: a layer, a block, or a stage of blocks with what follows it.

A unit says where its inputs come from, how it is run, and what of it is compared. A third party's
granularity is one function that lists units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from edgeperc.offline.compress.adapters import Sample, Subject
from edgeperc.offline.compress.solve.calls import Call, calls_of, order_of, tensors_of
from edgeperc.offline.nets import hiera, pyramid, sltnet, tinyvit, vit
from edgeperc.offline.nets.mask_decoder import DecoderAttention, Mlp, TwoWayBlock
from edgeperc.offline.nets.taps import Tap

BLOCKS: tuple[type[nn.Module], ...] = (
    hiera.Block,
    vit.Block,
    tinyvit.WideConv,
    tinyvit.Merge,
    tinyvit.TinyVitBlock,
    TwoWayBlock,
    DecoderAttention,
    Mlp,
    sltnet.LMSB,
    sltnet.Transformer,
    sltnet.FeatureEnhance,
    sltnet.Up,
)
"""Modules whose layers are reconstructed together; the outermost counts."""

LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)

PARTED: tuple[type[nn.Module], ...] = (pyramid.Pyramid,)
"""Modules of which each child is a block."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Modules that learn together.

    roots: dotted names; every quantizer at or below them learns. calls: what the unit is given on a
    sample by the network as it is now, quantized or not. run: its outputs on that. look: what of
    them is compared, given also what `beside` made of the sample with the exact network. shares:
    weight of each tensor compared. kind: `layer`, `block` or `prompt`, for reports.
    """

    name: str
    kind: str
    roots: tuple[str, ...]
    calls: Callable[[Sample], list[Call]]
    run: Callable[[Call], list[Tensor]]
    beside: Callable[[Sample], Any] = lambda _: None
    look: Callable[[list[Tensor], Call, Any], list[Tensor]] = lambda outputs, _, __: outputs
    shares: Sequence[float] = ()

    def holds(self, site: str) -> bool:
        """Whether a site is one of the unit's."""
        return any(site == root or site.startswith(f"{root}.") for root in self.roots)


def layer_units(subject: Subject, sites: Iterable[str], sample: Sample) -> list[Unit]:
    """Each layer by itself, in the order in which they run. sites: all that are quantized."""
    modules = dict(subject.net.named_modules())
    layers = {site for site in sites if not isinstance(modules[site], Tap)}
    return _module_units(subject, layers, sample)


def block_units(subject: Subject, sites: Iterable[str], sample: Sample) -> list[Unit]:
    """Each block by itself, and each layer that is in none."""
    return _module_units(subject, {_outermost(subject.net, site) for site in sites}, sample)


def module_unit(subject: Subject, name: str, calls: int = 1) -> Unit:
    """A module of the network as a unit; `calls` of it per sample."""
    net = subject.net
    module = net.get_submodule(name)
    return Unit(
        name=name,
        kind="layer" if isinstance(module, LAYERS) else "block",
        roots=(name,),
        calls=lambda sample: calls_of(net, name, lambda: subject.run(net, sample), most=calls),
        run=lambda call: tensors_of(module(*call.args, **call.kwargs)),
    )


def _module_units(subject: Subject, names: set[str], sample: Sample) -> list[Unit]:
    order = order_of(subject.net, names, lambda: subject.run(subject.net, sample))
    return [module_unit(subject, name, count) for name, count in order.items()]


def _outermost(net: nn.Module, site: str) -> str:
    """The name of the outermost block that a site lies in, or the site itself if there is none."""
    module, path = net, []
    for part in site.split("."):
        path.append(part)
        parent, module = module, cast(nn.Module, getattr(module, part))
        if isinstance(module, BLOCKS) or isinstance(parent, PARTED):
            break
    return ".".join(path)
