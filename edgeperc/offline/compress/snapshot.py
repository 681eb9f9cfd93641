"""A network as it is now, to come back to: weights, buffers, hooks, and what is attached to it.

before = Snapshot(sim)
...                          # anything, new biases and other quantizers included
before.restore()
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from edgeperc.offline.compress.simulate import Simulated


class Snapshot:
    """All of a simulated network's state. Takes as much memory as the network."""

    def __init__(self, sim: Simulated) -> None:
        self._sim = sim
        self._modules = [(m, type(m), _shallow(m.__dict__)) for m in sim.net.modules()]
        # Taking a parametrization off takes it off the class, too, which is the module's own.
        self._properties = [
            (type(m), name, getattr(type(m), name))
            for m in sim.net.modules()
            if parametrize.is_parametrized(m)
            for name in m.parametrizations  # type: ignore[union-attr]
        ]
        self._values = {
            id(values): (values, values.detach().clone())
            for module in sim.net.modules()
            for values in (*module._parameters.values(), *module._buffers.values())
            if values is not None
        }
        self._sites = sim.sites
        self._quantizers, self._hooks = dict(sim.quantizers), dict(sim.hooks)

    @torch.no_grad()
    def restore(self) -> None:
        """Bring everything back; tensors are the same objects as before."""
        for module, kind, held in self._modules:
            module.__class__ = kind
            module.__dict__.clear()
            module.__dict__.update(_shallow(held))
        for kind, name, value in self._properties:
            setattr(kind, name, value)
        values: Tensor
        for values, before in self._values.values():
            values.data = before.clone() if values.shape != before.shape else values.data
            values.copy_(before)
        self._sim.sites = self._sites
        self._sim.quantizers, self._sim.hooks = dict(self._quantizers), dict(self._hooks)


def _shallow(held: dict[str, Any]) -> dict[str, Any]:
    """A module's attributes; tables are copied, what they hold is not."""
    return {
        name: copy.copy(value) if isinstance(value, dict | list | set) else value
        for name, value in held.items()
    }
