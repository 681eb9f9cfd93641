"""Quantizers by the names that recipes use: a new one is one line in FACTORIES.

make("uniform8c", use="weight", axis=0)      # 8 bits, per channel
make("uniform6-minmax", use="act")
make("uniform", use="softmax", bits=4)       # bits from elsewhere in the recipe
make("blocks32x4", use="weight")             # 4 bits, a grid for 32 neighbours
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, TypeAlias

from edgeperc.errors import ConfigError
from edgeperc.offline.compress.quantizers.base import Quantizer
from edgeperc.offline.compress.quantizers.blocks import Blocks
from edgeperc.offline.compress.quantizers.centred import Centred
from edgeperc.offline.compress.quantizers.uniform import Search, Uniform

Use: TypeAlias = Literal["weight", "act", "softmax"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a name says. axis: of the channels, None for one grid of the whole tensor."""

    bits: int
    use: Use
    axis: int | None = None
    search: Search = "mse"


def _uniform(spec: Spec) -> Quantizer:
    symmetric = spec.use == "weight"
    return Uniform(spec.bits, symmetric=symmetric, axis=spec.axis, search=spec.search)


def _centred(spec: Spec) -> Quantizer:
    if spec.axis is not None:
        raise ConfigError("quantizer 'centred': has one grid for the whole tensor")
    return Centred(spec.bits, search=spec.search)


def _blocks(size: int) -> Callable[[Spec], Quantizer]:
    """Of weights alone, in blocks of so many."""

    def build(spec: Spec) -> Quantizer:
        if spec.use != "weight" or spec.axis is not None:
            raise ConfigError("quantizer 'blocks': blocks are of weights, and have no channels")
        return Blocks(spec.bits, block=size, search=spec.search)

    return build


def _loaded(where: str) -> Callable[[Spec], Quantizer]:
    """`module:class` below this package, loaded on use; its constructor takes bits."""

    def build(spec: Spec) -> Quantizer:
        module, _, name = where.partition(":")
        kind: Any = getattr(import_module(f"{__name__}.{module}"), name)
        made: Quantizer = kind(spec.bits)
        return made

    return build


FACTORIES: dict[str, Callable[[Spec], Quantizer]] = {
    "uniform": _uniform,
    "centred": _centred,
    "log2": _loaded("log_sqrt2:Log2"),
    "log_sqrt2": _loaded("log_sqrt2:LogSqrt2"),
    "agq": _loaded("adaptive_log:AdaptiveLog"),
    "blocks32x": _blocks(32),
    "blocks128x": _blocks(128),
}
"""Name -> what builds it. For a module of its own: `_loaded("module:Class")`."""


def make(name: str, *, use: Use, bits: int | None = None, axis: int | None = None) -> Quantizer:
    """The quantizer that NAME[BITS][c][-SEARCH] names, not fitted yet.

    bits: where the name says none. axis: of the channels, for names with `c`. Raises ConfigError.
    """
    family = max((each for each in FACTORIES if name.startswith(each)), key=len, default=None)
    rest = re.fullmatch(r"(\d*)(c?)(?:-(minmax|percentile|mse))?", name[len(family or "") :])
    if family is None or rest is None:
        raise ConfigError(
            f"unknown quantizer '{name}'",
            hint=f"NAME[BITS][c][-minmax|-percentile|-mse], NAME is of {', '.join(FACTORIES)}",
        )
    count = int(rest[1]) if rest[1] else bits
    if count is None or not 2 <= count <= 16:
        raise ConfigError(f"quantizer '{name}': bits is {count}, must be 2 to 16")
    if rest[2] and use == "softmax":
        raise ConfigError(f"quantizer '{name}': shares of attention have no channels")
    along = (0 if axis is None else axis) if rest[2] else None
    search: Any = rest[3] or "mse"
    return FACTORIES[family](Spec(bits=count, use=use, axis=along, search=search))


def with_bits(name: str, bits: int) -> str:
    """The same name with another number of bits; "none" stays as it is."""
    family = max((each for each in FACTORIES if name.startswith(each)), key=len, default=None)
    return name if family is None else family + re.sub(r"^\d*", str(bits), name[len(family) :])
