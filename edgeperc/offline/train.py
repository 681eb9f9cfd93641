"""Train the bundled network on the twin, from nothing, in less than half an hour on two cores.

    train("sltnet-twin", Path("out/sltnet-twin"), seed=0)

Every step draws its batch from (seed, step), so a run that was killed goes on from its last
checkpoint as if nothing had happened. What it learns from is drawn once and kept in `cache/`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from edgeperc.errors import ConfigError
from edgeperc.offline.batches import INPUT, class_weights, crops, network_pair, whole_pictures
from edgeperc.offline.datasets import (
    TRAINING_STREETS,
    TWIN_WINDOWS_A_STREET,
    cached_twin,
)
from edgeperc.offline.nets.lif import LIF
from edgeperc.offline.nets.sltnet import EARLY_LOSS_WEIGHT, SLTNet
from edgeperc.offline.samples import IGNORE, Dataset
from edgeperc.offline.score import Scores, confusion_matrix, score
from edgeperc.twin.scene import CLASSES

VALIDATION_STREETS = range(15_000, 15_010)
"""Watched during training; the streets that `evaluate` reports are others again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a network is trained. A crop keeps the full height: up and down mean something here.

    balance: exponent of a class's share of pixels in its loss weight; at 1 every class has the same
    say, at 0 every pixel. settle_batches: pairs of whole pictures over which BN statistics are
    averaged at the end.
    """

    width: int = 32
    steps: int = 2000
    batch: int = 4
    crop_px: int = 176
    rate: float = 3e-3
    warm_up_steps: int = 50
    clip_norm: float = 2.0
    balance: float = 0.75
    checkpoint_every: int = 50
    validate_every: int = 200
    settle_batches: int = 100
    streets: int = len(TRAINING_STREETS)
    validation_streets: int = 2
    windows_a_street: int = TWIN_WINDOWS_A_STREET


SETTINGS = {"sltnet-twin": Settings()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What came out. weights: a state_dict by torch.save. firing: LIF layer -> share of spikes."""

    weights: Path
    scores: Scores
    seconds: float
    firing: dict[str, float]


def train(
    name: str,
    out_dir: Path,
    *,
    seed: int = 0,
    steps: int | None = None,
    resume: bool = True,
    threads: int = 2,
    settings: Settings | None = None,
    console: Console | None = None,
) -> Trained:
    """Train a network into `out_dir`; goes on from the checkpoint there, unless resume is False.

    steps: instead of the number in the settings, which are those of `name` unless given. Raises
    ConfigError for a name that cannot be trained or a checkpoint of another run.
    """
    settings = settings or _settings(name)
    settings = replace(settings, steps=steps or settings.steps)
    torch.set_num_threads(threads)
    out_dir.mkdir(parents=True, exist_ok=True)
    with progress_bar(console or Console()) as progress:
        data, validation = _twin_data(out_dir / "cache", settings, threads, progress)
        run = _Run(settings, seed, out_dir / "checkpoint.pt", class_weights(data, settings.balance))
        if resume:
            run.load()
        try:
            run.fit(data, validation, progress)
        except KeyboardInterrupt:
            run.save()
            raise
        settle_statistics(run.net, whole_pictures(data, seed, settings.settle_batches))
    scores, firing = validate(run.net, validation)
    weights = out_dir / "weights.pt"
    save_state(run.net.state_dict(), weights)
    return Trained(weights=weights, scores=scores, seconds=run.seconds, firing=firing)


class _Run:
    """The state of a training run: network, optimiser, step and time spent."""

    def __init__(self, settings: Settings, seed: int, path: Path, weights: Tensor) -> None:
        torch.manual_seed(seed)
        self.settings, self.seed, self._path, self._weights = settings, seed, path, weights
        self.net = SLTNet(len(CLASSES), bins=INPUT.bins, width=settings.width)
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimiser = torch.optim.Adam(self.net.parameters(), lr=settings.rate)
        self.step, self.seconds = 0, 0.0

    def fit(self, data: Dataset, validation: Dataset, progress: Progress) -> None:
        """Do the steps that are left."""
        total = self.settings.steps
        task = progress.add_task("train", total=total, completed=self.step, note="")
        started_s, seconds_before = time.monotonic(), self.seconds
        mean_loss, miou, first = 0.0, "-", self.step + 1
        while self.step < total:
            loss = self._advance(data)
            self.step += 1
            mean_loss = 0.95 * mean_loss + 0.05 * loss if self.step > first else loss
            self.seconds = seconds_before + time.monotonic() - started_s
            if self.step % self.settings.validate_every == 0 and self.step < total:
                scores, _ = validate(self.net, validation)
                miou = f"{100 * scores.miou:.1f} %"
                progress.console.print(
                    f"step {self.step}: loss {mean_loss:.3f}, mIoU {miou}, {self.seconds:.0f} s"
                )
            if self.step % self.settings.checkpoint_every == 0:
                self.save()
            progress.update(task, advance=1, note=f"loss {mean_loss:.3f}  mIoU {miou}")
        self.save()

    def _advance(self, data: Dataset) -> float:
        settings = self.settings
        for group in self._optimiser.param_groups:
            group["lr"] = settings.rate * _schedule(self.step, settings)
        key = (self.seed, self.step)
        voxels, labels = crops(data, key, settings.batch, settings.crop_px)
        self.net.train()
        logits, early = self.net.forward_with_early(voxels)
        loss = _loss(logits, labels, self._weights)
        loss = loss + EARLY_LOSS_WEIGHT * _loss(early, labels, self._weights)
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), settings.clip_norm)
        self._optimiser.step()
        return float(loss.detach())

    def save(self) -> None:
        """Write the checkpoint; a kill at any moment leaves the old or the new one."""
        state = {
            "run": self._identity(),
            "step": self.step,
            "seconds": self.seconds,
            "net": self.net.state_dict(),
            "optimiser": self._optimiser.state_dict(),
        }
        save_state(state, self._path)

    def load(self) -> None:
        """Go on from the checkpoint, if there is one."""
        if not self._path.exists():
            return
        state = torch.load(self._path, weights_only=True)
        if state["run"] != self._identity():
            raise ConfigError(
                f"{self._path}: belongs to a run with another seed or other settings",
                hint="choose another --out, or start anew with --fresh",
            )
        self.net.load_state_dict(state["net"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = state["step"], state["seconds"]

    def _identity(self) -> dict[str, Any]:
        return {"seed": self.seed, **asdict(self.settings)}


def validate(net: SLTNet, data: Dataset) -> tuple[Scores, dict[str, float]]:
    """Scores on whole pictures, and the share of neurons that fire in each LIF layer."""
    net.eval()
    confusion = np.zeros((len(CLASSES),) * 2, np.int64)
    with torch.no_grad(), _firing_rates(net) as firing:
        for sample in data:
            grid, truth = network_pair(sample)
            logits = net(torch.from_numpy(grid)[None])
            answer = logits[0].argmax(0).numpy().astype(np.uint8)
            confusion += confusion_matrix(truth, answer, len(CLASSES))
    return score(confusion, CLASSES), {name: float(np.mean(v)) for name, v in firing.items()}


def settle_statistics(net: nn.Module, pictures: Iterator[Tensor]) -> None:
    """Replace BN's running averages, which chase the last few crops, by true averages."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    net.train()
    with torch.no_grad():
        for picture in pictures:
            net(picture)
    net.eval()
    for norm in norms:
        norm.momentum = 0.1


def _settings(name: str) -> Settings:
    if name not in SETTINGS:
        raise ConfigError(f"cannot train '{name}'", hint=f"can train: {', '.join(SETTINGS)}")
    return SETTINGS[name]


def _twin_data(
    cache: Path, settings: Settings, processes: int, progress: Progress
) -> tuple[Dataset, Dataset]:
    streets = (
        TRAINING_STREETS[: settings.streets],
        VALIDATION_STREETS[: settings.validation_streets],
    )
    task = progress.add_task("draw streets", total=sum(map(len, streets)), note="")
    training, validation = (
        cached_twin(
            seeds,
            cache,
            windows_a_street=settings.windows_a_street,
            processes=processes,
            on_street=lambda: progress.advance(task),
        )
        for seeds in streets
    )
    return training, validation


def _loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross-entropy, and what is missing to a perfect mIoU (soft Jaccard)."""
    entropy = F.cross_entropy(logits, labels, weight=weights, ignore_index=IGNORE)
    known = labels != IGNORE
    truth = F.one_hot(labels.where(known, 0), len(weights)).movedim(-1, 1) * known[:, None]
    answer = logits.softmax(1) * known[:, None]
    common = (truth * answer).sum((0, 2, 3))
    union = (truth + answer).sum((0, 2, 3)) - common
    present = truth.sum((0, 2, 3)) > 0
    return entropy + 1 - (common / union.clamp(min=1))[present].mean()


def _schedule(step: int, settings: Settings) -> float:
    """Linear warm-up, then a half cosine down to nothing; a factor of the learning rate."""
    if step < settings.warm_up_steps:
        return (step + 1) / settings.warm_up_steps
    left = (step - settings.warm_up_steps) / max(1, settings.steps - settings.warm_up_steps)
    return 0.5 * (1 + float(np.cos(np.pi * left)))


@contextmanager
def _firing_rates(net: nn.Module) -> Iterator[dict[str, list[float]]]:
    rates: dict[str, list[float]] = {}

    def watch(name: str) -> Any:
        return lambda _module, _inputs, spikes: rates.setdefault(name, []).append(
            float(spikes.mean())
        )

    hooks = [
        module.register_forward_hook(watch(name))
        for name, module in net.named_modules()
        if isinstance(module, LIF)
    ]
    try:
        yield rates
    finally:
        for hook in hooks:
            hook.remove()


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
