"""Train the bundled network on the twin, from nothing, in less than half an hour on two cores.

    train("sltnet-twin", Path("out/sltnet-twin"), seed=0)

Every step draws its batch from (seed, step), so a run that was killed goes on from its last
checkpoint as if nothing had happened. What it learns from is drawn once and kept in `cache/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import Progress
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
from edgeperc.offline.training_run import Pace, TrainingRun, progress_bar, save_state
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
        torch.manual_seed(seed)
        net = SLTNet(len(CLASSES), bins=INPUT.bins, width=settings.width)
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        identity = {"seed": seed, **asdict(settings)}
        run = TrainingRun(net, identity, out_dir / "checkpoint.pt", _pace(settings))
        if resume:
            run.load()
        run.fit(
            _loss_of(net, data, settings, seed),
            progress,
            validate=lambda: f"mIoU {100 * validate(net, validation)[0].miou:.1f} %",
        )
        pictures = whole_pictures(data, seed, settings.settle_batches)
        settle_statistics(net, ([picture] for picture in pictures))
    scores, firing = validate(net, validation)
    weights = out_dir / "weights.pt"
    save_state(net.state_dict(), weights)
    return Trained(weights=weights, scores=scores, seconds=run.seconds, firing=firing)


def _pace(settings: Settings) -> Pace:
    return Pace(
        steps=settings.steps,
        rate=settings.rate,
        decay=0.0,
        warm_up_steps=settings.warm_up_steps,
        clip_norm=settings.clip_norm,
        checkpoint_every=settings.checkpoint_every,
        validate_every=settings.validate_every,
    )


def _loss_of(net: SLTNet, data: Dataset, settings: Settings, seed: int) -> Callable[[int], Tensor]:
    weights = class_weights(data, settings.balance)

    def loss_of(step: int) -> Tensor:
        voxels, labels = crops(data, (seed, step), settings.batch, settings.crop_px)
        net.train()
        logits, early = net.forward_with_early(voxels)
        late_loss, early_loss = (label_loss(each, labels, weights) for each in (logits, early))
        return late_loss + EARLY_LOSS_WEIGHT * early_loss

    return loss_of


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


def settle_statistics(net: nn.Module, inputs: Iterable[Sequence[Tensor]]) -> None:
    """Replace BN's running averages, which chase the last few crops, by true averages.

    inputs: what the network is called with, time after time.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    net.train()
    with torch.no_grad():
        for each in inputs:
            net(*each)
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


def label_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross-entropy, and what is missing to a perfect mIoU (soft Jaccard)."""
    entropy = F.cross_entropy(logits, labels, weight=weights, ignore_index=IGNORE)
    known = labels != IGNORE
    truth = F.one_hot(labels.where(known, 0), len(weights)).movedim(-1, 1) * known[:, None]
    answer = logits.softmax(1) * known[:, None]
    common = (truth * answer).sum((0, 2, 3))
    union = (truth + answer).sum((0, 2, 3)) - common
    present = truth.sum((0, 2, 3)) > 0
    return entropy + 1 - (common / union.clamp(min=1))[present].mean()


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
