"""Which units are done, kept in a file, so that a run that was killed goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgeperc.errors import ConfigError
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.solve.learn_unit import Outcome
from edgeperc.offline.compress.solve.learning import State
from edgeperc.offline.train import save_state


@dataclass(slots=True)
class Finished:
    """What every finished unit learned, and its outcome, by the unit's name.

    identity: what must be equal for a file to be of this run. path: None keeps nothing.
    """

    identity: dict[str, Any]
    path: Path | None
    units: dict[str, tuple[State, Outcome]] = field(default_factory=dict)

    @classmethod
    def load(
        cls, ctx: Context, keys: Sequence[str], settings: Mapping[str, Any], path: Path | None
    ) -> Finished:
        """What the file has, nothing if there is none. Raises ConfigError for another run's."""
        if path is None:
            return cls({}, None)
        identity = {"settings": dict(settings), "digest": digest(ctx, keys)}
        finished = cls(identity, path)
        if path.exists():
            stored = torch.load(path, weights_only=True)
            if stored["run"] != identity:
                raise ConfigError(
                    f"{path}: belongs to a run with another network, samples or settings",
                    hint="remove it, or name another file",
                )
            finished.units = {
                name: (learned, Outcome(**outcome))
                for name, (learned, outcome) in stored["units"].items()
            }
        return finished

    def add(self, name: str, learned: State, outcome: Outcome) -> None:
        """Keep a unit; a kill at any moment leaves the file as before or with it."""
        self.units[name] = learned, outcome
        if self.path is not None:
            units = {n: (state, asdict(what)) for n, (state, what) in self.units.items()}
            save_state({"run": self.identity, "units": units}, self.path)


def digest(ctx: Context, keys: Sequence[str]) -> str:
    """Of the samples, the network's weights, and the quantizers as they are before."""
    total = hashlib.sha256("\n".join(keys).encode())
    for sample in ctx.samples:
        for name in sorted(sample):
            _add(total, sample[name])
    for values in ctx.sim.net.state_dict().values():
        _add(total, values)
    return total.hexdigest()


def _add(total: Any, values: Tensor) -> None:
    total.update(values.detach().contiguous().numpy().tobytes())
