"""Quantizers in place on a network: its layers stay what they are, and so do their names.

    sim = Simulated(net)
    sim.weight("mask_decoder.transformer.layers.0.mlp.layers.0", quantizer)
    with sim.off():
        reference = net(picture)
    sim.fold(); sim.check()

A weight's quantizer is a parametrization of it, an input's one goes before the layer, an output's
behind it, a tap's is its work. `check` is what keeps an evaluation honest: it refuses quantizers
that are off or answer differently from time to time, and weights that are not on their grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgeperc.errors import ModelError
from edgeperc.offline.compress.quantizers.base import Quantizer
from edgeperc.offline.compress.sites import Site, sites_of
from edgeperc.offline.nets.taps import Tap
from edgeperc.offline.nets.tinyvit import ConvNorm

ON_GRID = 1e-3
"""Farther from a whole code, in steps, a weight is not on its grid; float32 errs by 1e-5."""
INPUT = "input_quantizer"
"""The name that the quantizer of a layer's input has in the layer."""
OUTPUT = "output_quantizer"
"""Likewise of what it gives: in the layer or, where a norm is folded into it, in both's parent."""


class Simulated:
    """A network and the quantizers on it; `quantizers` has them by `site:weight`, `site:input`,
    `site:output`, or the name of a tap.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self.sites: dict[str, Site] = sites_of(net)
        self.quantizers: dict[str, Quantizer] = {}
        self.hooks: dict[str, Any] = {}

    def weight(self, name: str, q: Quantizer | None) -> None:
        """Put a quantizer on a layer's weight, in place of any other; None takes it off."""
        layer = self._site(name, "layer")
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
        if q is not None:
            parametrize.register_parametrization(layer, "weight", q, unsafe=True)
        self._keep(f"{name}:weight", q)

    def input(self, name: str, q: Quantizer | None) -> None:
        """Put a quantizer before a layer, or take it off."""
        layer = self._site(name, "layer")
        if name in self.hooks:
            self.hooks.pop(name).remove()
            delattr(layer, INPUT)
        if q is not None:
            layer.add_module(INPUT, q)
            self.hooks[name] = layer.register_forward_pre_hook(_quantize_first)
        self._keep(f"{name}:input", q)

    def output(self, name: str, q: Quantizer | None) -> None:
        """Put a quantizer behind a layer, and behind the norm that is folded into it; or take it
        off.
        """
        self._site(name, "layer")
        last = self._last(name)
        key = f"{name}:output"
        if hasattr(last, OUTPUT):
            delattr(last, OUTPUT)
        if key in self.hooks:
            self.hooks.pop(key).remove()
        if q is not None:
            last.add_module(OUTPUT, q)  # a Sequential runs it by that
            if not isinstance(last, nn.Sequential):
                self.hooks[key] = last.register_forward_hook(_quantize_last)
        self._keep(key, q)

    def tap(self, name: str, q: Quantizer | None) -> None:
        """Put a quantizer into a tap, or take it out."""
        cast(Tap, self._site(name, "tap")).work = q
        self._keep(name, q)

    def original(self, name: str) -> Tensor:
        """A layer's weight in full precision (the parameter itself)."""
        layer = self._site(name, "layer")
        if parametrize.is_parametrized(layer, "weight"):
            held: Any = layer.parametrizations
            return cast(Tensor, held["weight"].original)
        return cast(Tensor, layer.weight)

    def switch(self, on: bool, only: Callable[[str], bool] | None = None) -> None:
        """Switch all quantizers on or off, or those whose key `only` says yes to."""
        for key, q in self.quantizers.items():
            if only is None or only(key):
                q.enabled = on

    @contextmanager
    def off(self, only: Callable[[str], bool] | None = None) -> Iterator[None]:
        """The network in full precision, for a while; afterwards all is as before."""
        before = {key: q.enabled for key, q in self.quantizers.items()}
        self.switch(False, only)
        try:
            yield
        finally:
            for key, q in self.quantizers.items():
                q.enabled = before.get(key, q.enabled)

    @torch.no_grad()
    def fold(self) -> None:
        """Make every quantized weight what its quantizer makes of it, for good.

        Raises ModelError naming the first that is not on its grid then.
        """
        for key, q in self.quantizers.items():
            if key.endswith(":weight"):
                name = key.removesuffix(":weight")
                weight = self.original(name)
                codes = q.quantize(weight)
                if not bool((codes == codes.round()).all()):
                    raise ModelError(f"{key}: its codes are no integers")
                weight.copy_(q.dequantize(codes))
                self._on_grid(key, q)

    @torch.no_grad()
    def check(self) -> None:
        """Refuse to be evaluated half quantized.

        Raises ModelError naming the first quantizer that is off, soft, not fitted, not where it
        belongs or not deterministic, or the first weight that is not on its grid.
        """
        for key, q in self.quantizers.items():
            if not q.enabled:
                raise ModelError(f"{key}: its quantizer is off")
            if not self._in_place(key, q):
                raise ModelError(f"{key}: its quantizer is no longer in the network")
            _hard(key, q)
            if key.endswith(":weight"):
                self._on_grid(key, q)

    def _site(self, name: str, kind: str) -> nn.Module:
        site = self.sites.get(name)
        if site is None or site.kind != kind:
            raise ModelError(f"the network has no {kind} '{name}'")
        return site.module

    def _last(self, name: str) -> nn.Module:
        """What gives a layer's output once norms are folded."""
        parent = self.net.get_submodule(name.rpartition(".")[0])
        return parent if isinstance(parent, ConvNorm) else self.sites[name].module

    def _keep(self, key: str, q: Quantizer | None) -> None:
        self.quantizers.pop(key, None)
        if q is not None:
            self.quantizers[key] = q

    def _on_grid(self, key: str, q: Quantizer) -> None:
        layer: Any = self._site(key.removesuffix(":weight"), "layer")
        away = q.off_grid(layer.weight)
        if not away <= ON_GRID:
            raise ModelError(f"{key}: a weight is {away:.2g} steps off its grid")

    def _in_place(self, key: str, q: Quantizer) -> bool:
        name, _, part = key.partition(":")
        module: Any = self.sites[name].module
        if part == "weight":
            found = parametrize.is_parametrized(module, "weight")
            return found and any(each is q for each in module.parametrizations["weight"])
        if part == "input":
            hooks = module._forward_pre_hooks.values()
            return getattr(module, INPUT, None) is q and _quantize_first in hooks
        if part == "output":
            last: Any = self._last(name)
            runs = isinstance(last, nn.Sequential) or _quantize_last in last._forward_hooks.values()
            return getattr(last, OUTPUT, None) is q and runs
        return module.work is q


def _quantize_first(layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    quantizer: Any = getattr(layer, INPUT)
    return (quantizer(args[0]), *args[1:])


def _quantize_last(layer: nn.Module, args: tuple[Any, ...], given: Tensor) -> Tensor:
    quantizer: Any = getattr(layer, OUTPUT)
    return cast(Tensor, quantizer(given))


def _hard(key: str, q: Quantizer) -> None:
    """Raises ModelError unless `forward` gives values of the grid, and the same ones each time.

    A weight's own values are looked at one by one elsewhere: its rounding may be learnt.
    """
    if not q.hard:
        raise ModelError(f"{key}: its quantizer is still soft")
    if key.endswith(":weight"):
        return
    probe = q.probe()
    first, second = q(probe), q(probe)
    if not bool(torch.isfinite(first).all()):
        raise ModelError(f"{key}: its quantizer is not fitted")
    if not torch.equal(first, second):
        raise ModelError(f"{key}: its quantizer is not deterministic")
    if not torch.allclose(first, q.dequantize(q.quantize(probe)), rtol=1e-5, atol=0):
        raise ModelError(f"{key}: its quantizer lets values through that are not on its grid")
