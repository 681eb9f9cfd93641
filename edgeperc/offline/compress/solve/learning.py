"""The quantizers of a unit while they learn: put on, settled, or put back as they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from edgeperc.offline.compress.quantizers.base import Quantizer
from edgeperc.offline.compress.quantizers.uniform import Uniform
from edgeperc.offline.compress.simulate import Simulated
from edgeperc.offline.compress.solve.adaround import AdaRound, Rounded, rounding_cost
from edgeperc.offline.compress.solve.step_size import LearnedStep

State = dict[str, dict[str, Tensor]]
"""What was learned, by key of the quantizer: "codes" of a weight, "scale" of a step."""


class Learning:
    """Learned stand-ins on a simulated network, in place of the quantizers named by `keys`.

    Weights on a uniform grid learn their rounding, uniform grids of activations their step; `drop`
    is the activations' in QDrop. Other quantizers stay as they are, with drop.
    """

    def __init__(
        self, sim: Simulated, keys: Sequence[str], *, drop: float, generator: torch.Generator
    ) -> None:
        self._sim = sim
        self._before = {key: sim.quantizers[key] for key in keys}
        self._steps_before = {
            key: q.scale.clone() for key, q in self._before.items() if isinstance(q, Uniform)
        }
        self.roundings: dict[str, AdaRound] = {}
        self.steps: dict[str, LearnedStep] = {}
        for key, q in self._before.items():
            if not key.endswith(":weight"):
                self.steps[key] = LearnedStep(q, drop=drop, generator=generator)
            elif isinstance(q, Uniform | Rounded):
                grid = q if isinstance(q, Uniform) else q.grid
                grid.enabled = q.enabled
                self.roundings[key] = AdaRound(grid, sim.original(key.removesuffix(":weight")))
        for key, learned in {**self.roundings, **self.steps}.items():
            put(sim, key, learned)

    def parameters(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """What is learned of weights, and of steps."""
        steps = (p for step in self.steps.values() for p in step.parameters())
        return [each.v for each in self.roundings.values()], list(steps)

    def cost(self, exponent: float) -> Tensor:
        """Mean rounding cost over all weights, 0 to 1; a scalar."""
        costs = [rounding_cost(each.up(), exponent) for each in self.roundings.values()]
        return torch.stack(costs).sum() / self._weights() if costs else torch.zeros(())

    def decided(self) -> float:
        """Share of weights whose rounding is decided; 1 where none is learned."""
        if not self.roundings:
            return 1.0
        count = sum(each.decided() * each.v.numel() for each in self.roundings.values())
        return count / self._weights()

    def settle(self) -> State:
        """Every quantizer of the unit hard and without drop. Returns what was learned."""
        learned: State = {}
        for key, rounding in self.roundings.items():
            rounded = rounding.settled()
            learned[key] = {"codes": rounded.codes}
            put(self._sim, key, rounded)
        for key, step in self.steps.items():
            q = step.settled()
            q.enabled = step.enabled
            if isinstance(q, Uniform):
                learned[key] = {"scale": q.scale}
            put(self._sim, key, q)
        return learned

    def revert(self) -> None:
        """As it was before."""
        for key, q in self._before.items():
            if isinstance(q, Uniform):
                q.scale = self._steps_before[key]
            put(self._sim, key, q)

    def _weights(self) -> int:
        return sum(each.v.numel() for each in self.roundings.values())


@torch.no_grad()
def restore(sim: Simulated, learned: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Put on a network what `Learning.settle` returned."""
    for key, state in learned.items():
        q = sim.quantizers[key]
        if "codes" in state:
            grid = q.grid if isinstance(q, Rounded) else q
            assert isinstance(grid, Uniform), key
            rounded = Rounded(grid, state["codes"])
            rounded.enabled = q.enabled
            put(sim, key, rounded)
        elif isinstance(q, Uniform):
            q.scale = state["scale"].clone()


def put(sim: Simulated, key: str, q: Quantizer) -> None:
    """A quantizer where `key` says, in place of the one there."""
    name, _, part = key.partition(":")
    {"weight": sim.weight, "input": sim.input, "output": sim.output, "": sim.tap}[part](name, q)
