"""Which units are done, kept in a file, so that a run that was killed goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.solve.learn_unit import Outcome
from edgeperc.offline.compress.solve.learning import State
from edgeperc.offline.training_run import save_state


@dataclass(slots=True)
class Finished:
    """What every finished unit learned, and its outcome, by the unit's name.

    path: None keeps nothing.
    """

    path: Path | None
    units: dict[str, tuple[State, Outcome]] = field(default_factory=dict)

    @classmethod
    def load(cls, ctx: Context, keys: Sequence[str], settings: Mapping[str, Any]) -> Finished:
        """What is kept of this very run; nothing if it was another or there is none."""
        if ctx.work is None:
            return cls(None)
        path = ctx.work / f"reconstruct-{digest(ctx, keys, settings)[:16]}.pt"
        if not path.exists():
            return cls(path)
        stored = torch.load(path, weights_only=True)
        units = {name: (learned, Outcome(**what)) for name, (learned, what) in stored.items()}
        return cls(path, units)

    def add(self, name: str, learned: State, outcome: Outcome) -> None:
        """Keep a unit; a kill at any moment leaves the file as before or with it."""
        self.units[name] = learned, outcome
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            units = {n: (state, asdict(what)) for n, (state, what) in self.units.items()}
            save_state(units, self.path)


def digest(ctx: Context, keys: Sequence[str], settings: Mapping[str, Any]) -> str:
    """Of settings, samples, and the network with its quantizers as they are before; hex."""
    total = hashlib.sha256(json.dumps([list(keys), dict(settings)], sort_keys=True).encode())
    samples = (sample[name] for sample in ctx.samples for name in sorted(sample))
    for values in (*samples, *ctx.sim.net.state_dict().values()):
        total.update(values.detach().contiguous().numpy().tobytes())
    return total.hexdigest()
