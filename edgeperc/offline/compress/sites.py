"""Where a network can be quantized: its layers with weights, and the taps in its attention.

sites = sites_of(net)                                   # by dotted name, in the network's order
choose(sites, ["image_encoder.*", "!*.patch_embed"])    # globs; the last one that fits counts
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from torch import nn

from edgeperc.errors import ConfigError
from edgeperc.offline.nets.taps import Tap


@dataclass(frozen=True, slots=True)
class Site:
    """A layer, whose weight and input can be quantized, or a tap, whose value can."""

    name: str
    kind: Literal["layer", "tap"]
    module: nn.Module


def sites_of(net: nn.Module) -> dict[str, Site]:
    """All sites of a network by name, in its own order."""
    sites = {}
    for name, module in net.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            sites[name] = Site(name, "layer", module)
        elif isinstance(module, Tap):
            sites[name] = Site(name, "tap", module)
    return sites


def choose(sites: Mapping[str, Site], patterns: str | Sequence[str]) -> list[Site]:
    """The sites that globs choose, in the network's order.

    A pattern also takes all that is below what it names: `*.mlp` takes `blocks.0.mlp.layers.1`.
    With `!` before it, it excludes; of the patterns that fit a site the last one decides. Raises
    ConfigError where a pattern fits no site at all, or nothing is left.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    for pattern in patterns:
        if not any(fits(name, pattern.removeprefix("!")) for name in sites):
            raise ConfigError(
                f"'{pattern}' fits no site of the network", hint=_near(sites, pattern)
            )
    chosen = [site for name, site in sites.items() if _taken(name, patterns)]
    if not chosen:
        raise ConfigError(f"{patterns} leave no site of the network")
    return chosen


def fits(name: str, pattern: str) -> bool:
    """Whether a glob names this site or something it is part of."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def _taken(name: str, patterns: Sequence[str]) -> bool:
    taken = False
    for pattern in patterns:
        if fits(name, pattern.removeprefix("!")):
            taken = not pattern.startswith("!")
    return taken


def _near(sites: Mapping[str, Site], pattern: str) -> str:
    near = difflib.get_close_matches(pattern.removeprefix("!"), list(sites), n=1, cutoff=0.3)
    return f"the nearest is '{near[0]}'; --dry-run shows all" if near else "--dry-run shows all"
