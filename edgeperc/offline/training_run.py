"""The state of a training run: what is learnt, by which optimiser, how far; kept through a kill.

    run = TrainingRun(net, identity, path, Pace(steps=1000, rate=1e-3))
    run.load()
    run.fit(loss_of_step, progress)

Every step draws its batch from its own number, so that a run that was killed and went on is the run
that was not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from edgeperc.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast a run learns, and how often it looks up.

    rate, decay: of AdamW; the rate rises over warm_up_steps and falls by half a cosine to nothing.
    decay_all: biases and norms decay, too. average: decay of the running mean of the weights, which
    is the result; 0 keeps none.
    """

    steps: int
    rate: float
    decay: float = 0.01
    decay_all: bool = False
    warm_up_steps: int = 100
    clip_norm: float = 1.0
    average: float = 0.0
    checkpoint_every: int = 200
    validate_every: int = 1000


class TrainingRun:
    """A network and its optimiser in mid-training.

    slow: factors of the rate, by a part of the parameters' names, for what has learned already.
    identity: what must be equal for a checkpoint at `path` to be this run's; plain values.
    """

    def __init__(
        self,
        net: nn.Module,
        identity: Mapping[str, Any],
        path: Path,
        pace: Pace,
        *,
        slow: Mapping[str, float] | None = None,
    ) -> None:
        self.net, self.pace = net, pace
        self._identity, self._path = dict(identity), path
        self._learnt = [p for p in net.parameters() if p.requires_grad]
        self._optimiser = torch.optim.AdamW(_groups(net, pace, slow or {}), lr=pace.rate)
        self._mean = [p.detach().clone() for p in self._learnt] if pace.average else []
        self.step, self.seconds = 0, 0.0

    def fit(
        self,
        loss_of: Callable[[int], Tensor],
        progress: Progress,
        *,
        validate: Callable[[], str] = lambda: "",
    ) -> None:
        """Do the steps that are left. validate: a few words about the network as it is now.

        Ctrl-C saves where it is, and goes on to the caller.
        """
        pace = self.pace
        task = progress.add_task("train", total=pace.steps, completed=self.step, note="")
        started_s, seconds_before = time.monotonic(), self.seconds
        mean_loss, headline, first = 0.0, "", self.step + 1
        try:
            while self.step < pace.steps:
                loss = self._advance(loss_of(self.step))
                self.step += 1
                mean_loss = 0.99 * mean_loss + 0.01 * loss if self.step > first else loss
                self.seconds = seconds_before + time.monotonic() - started_s
                if self.step % pace.validate_every == 0 and self.step < pace.steps:
                    headline = validate()
                    progress.console.print(
                        f"step {self.step}: loss {mean_loss:.3f}, {headline}, {self.seconds:.0f} s"
                    )
                if self.step % pace.checkpoint_every == 0:
                    self.save()
                progress.update(task, advance=1, note=f"loss {mean_loss:.3f}  {headline}")
        except KeyboardInterrupt:
            self.save()
            raise
        self.save()

    def averaged(self) -> dict[str, Tensor]:
        """The network's state_dict, with the running means in place of what was learnt."""
        state = self.net.state_dict()
        names = [name for name, p in self.net.named_parameters() if p.requires_grad]
        return {**state, **dict(zip(names, self._mean, strict=True))} if self._mean else state

    def save(self) -> None:
        """Write the checkpoint; a kill at any moment leaves the old or the new one."""
        state = {
            "run": self._identity,
            "step": self.step,
            "seconds": self.seconds,
            "net": self.net.state_dict(),
            "mean": self._mean,
            "optimiser": self._optimiser.state_dict(),
        }
        save_state(state, self._path)

    def load(self) -> None:
        """Go on from the checkpoint, if there is one. Raises ConfigError for another run's."""
        if not self._path.exists():
            return
        state = torch.load(self._path, weights_only=True)
        if state.get("run") != self._identity or "mean" not in state:
            raise ConfigError(
                f"{self._path}: belongs to a run with another seed or other settings",
                hint="choose another --out, or start anew with --fresh",
            )
        self.net.load_state_dict(state["net"])
        self._mean = state["mean"]
        self._optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = state["step"], state["seconds"]

    def _advance(self, loss: Tensor) -> float:
        pace = self.pace
        for group in self._optimiser.param_groups:
            group["lr"] = group["factor"] * pace.rate * schedule(self.step, pace)
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._learnt, pace.clip_norm)
        self._optimiser.step()
        if self._mean:
            # Early means forget faster, or the first random weights would stay in them for long.
            decay = min(pace.average, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self._mean, [p.detach() for p in self._learnt], 1 - decay)
        return float(loss.detach())


def schedule(step: int, pace: Pace) -> float:
    """Linear warm-up, then a half cosine down to nothing; a factor of the learning rate."""
    if step < pace.warm_up_steps:
        return (step + 1) / pace.warm_up_steps
    left = (step - pace.warm_up_steps) / max(1, pace.steps - pace.warm_up_steps)
    return 0.5 * (1 + float(np.cos(np.pi * left)))


def _groups(net: nn.Module, pace: Pace, slow: Mapping[str, float]) -> list[dict[str, Any]]:
    """What has two axes or more decays, the rest with decay_all only, and what is `slow` never."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, p in net.named_parameters():
        factor = next((f for part, f in slow.items() if part in name), 1.0)
        if p.requires_grad:
            decays = factor == 1 and (p.ndim > 1 or pace.decay_all)
            key = (factor, pace.decay if decays else 0.0)
            groups.setdefault(key, []).append(p)
    return [
        {"params": params, "weight_decay": decay, "factor": factor}
        for (factor, decay), params in groups.items()
    ]


def save_state(state: Any, path: Path) -> None:
    """Write by torch.save; a kill at any moment leaves the old or the new file."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def progress_bar(console: Console) -> Progress:
    """Bars whose tasks have a `note`."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )
