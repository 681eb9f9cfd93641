"""Train a small fusion network on the twin, from nothing, and what it is compared with.

    train("mambaseg-nano", Path("out/mambaseg-nano"), seed=0)

`mambaseg-nano-frames` and `mambaseg-nano-events` are the same network with the other input always
zero. Every step draws its batch from (seed, step), so a run that was killed goes on from its last
checkpoint as if nothing had happened. What it learns from is drawn once and kept in `cache/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

from edgeperc.errors import ConfigError
from edgeperc.offline.batches import class_weights
from edgeperc.offline.datasets import TRAINING_STREETS, TWIN_WINDOWS_A_STREET
from edgeperc.offline.fusion_batches import Blind, Modality, Tensors, crops
from edgeperc.offline.fusion_conditions import CONDITIONS, TRAINED
from edgeperc.offline.fusion_pairs import cached_pairs
from edgeperc.offline.nets.mambaseg import VARIANTS, MambaSeg
from edgeperc.offline.samples import Dataset
from edgeperc.offline.score import Scores, confusion_matrix, score
from edgeperc.offline.train import VALIDATION_STREETS, label_loss, settle_statistics
from edgeperc.offline.training_run import Pace, TrainingRun, progress_bar, save_state
from edgeperc.places import find_card
from edgeperc.twin.scene import CLASSES


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a network is trained. A crop keeps the full height: up and down mean something here.

    variant: of `mambaseg.VARIANTS`, and the model whose card says what it eats. balance: exponent
    of a class's share of pixels in its loss weight. settle_batches: batches over which batch norm's
    statistics are averaged at the end. tested_windows: of each validation street and condition.
    """

    variant: str = "mambaseg-nano"
    blind: Blind = field(default_factory=Blind)
    steps: int = 3000
    batch: int = 4
    crop_px: int = 176
    rate: float = 2e-3
    decay: float = 0.01
    average: float = 0.998
    warm_up_steps: int = 100
    balance: float = 0.5
    checkpoint_every: int = 50
    validate_every: int = 500
    settle_batches: int = 40
    streets: int = len(TRAINING_STREETS)
    windows_a_street: int = TWIN_WINDOWS_A_STREET
    validation_streets: int = 3
    tested_windows: int = 8


SETTINGS = {
    "mambaseg-nano": Settings(),
    "mambaseg-nano-frames": Settings(blind=Blind(modality="frames")),
    "mambaseg-nano-events": Settings(blind=Blind(modality="events")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What came out. weights: a state_dict by torch.save. by_condition: on validation streets.

    model: whose card the weights are exported by.
    """

    weights: Path
    scores: Scores
    by_condition: dict[str, Scores]
    seconds: float
    model: str


def train(
    name: str,
    out_dir: Path,
    *,
    seed: int = 0,
    steps: int | None = None,
    resume: bool = True,
    threads: int = 2,
    settings: Settings | None = None,
    cache: Path | None = None,
    console: Console | None = None,
) -> Trained:
    """Train a network into `out_dir`; goes on from the checkpoint there, unless resume is False.

    steps: instead of the number in the settings, which are those of `name` unless given. cache:
    folder of drawn pairs that runs share; `cache` in out_dir if None. Raises ConfigError for a name
    that cannot be trained or a checkpoint of another run.
    """
    settings = settings or _settings(name)
    settings = replace(settings, steps=steps or settings.steps)
    torch.set_num_threads(threads)
    out_dir.mkdir(parents=True, exist_ok=True)
    tensors = Tensors(find_card(settings.variant).card)
    with progress_bar(console or Console()) as progress:
        data, validation = _data(cache or out_dir / "cache", settings, threads, progress)
        torch.manual_seed(seed)
        net = MambaSeg(replace(VARIANTS[settings.variant], classes=len(CLASSES)))
        weights = class_weights(data, settings.balance)
        batch = partial(_batch, data, tensors, settings, seed)

        def loss_of(step: int) -> Tensor:
            net.train()
            torch.manual_seed(seed * 1_000_003 + step)  # of what the head drops
            frames, voxels, labels = batch(step)
            return label_loss(net(frames, voxels), labels, weights)

        identity = {"seed": seed, **asdict(settings)}
        run = TrainingRun(net, identity, out_dir / "checkpoint.pt", _pace(settings))
        if resume:
            run.load()
        look = partial(by_condition, net, tensors, modality=settings.blind.modality)
        run.fit(loss_of, progress, validate=lambda: _in_words(look(validation)))
        net.load_state_dict(run.averaged())
        settle_statistics(net, [batch(-1 - k)[:2] for k in range(settings.settle_batches)])
        found = look(validation)
        progress.console.print(condition_table(f"{name} on validation streets", found))
    path = out_dir / "weights.pt"
    save_state(net.state_dict(), path)
    return Trained(
        weights=path,
        scores=found["all"],
        by_condition=found,
        seconds=run.seconds,
        model=settings.variant,
    )


@torch.no_grad()
def by_condition(
    net: MambaSeg,
    tensors: Tensors,
    data: dict[str, Dataset],
    *,
    modality: Modality = "both",
) -> dict[str, Scores]:
    """Scores of whole pictures under each condition, and under "all" of them together."""
    net.eval()
    has = Blind(modality=modality, without_frame=0, without_events=0).draw(np.random.default_rng(0))
    found = {}
    total = np.zeros((len(CLASSES),) * 2, np.int64)
    for name, samples in data.items():
        confusion = np.zeros_like(total)
        for sample in samples:
            inputs = (torch.from_numpy(each)[None] for each in tensors.inputs(sample, has))
            answer = net(*inputs)[0].argmax(0).numpy().astype(np.uint8)
            confusion += confusion_matrix(tensors.truth(sample.labels), answer, len(CLASSES))
        found[name] = score(confusion, CLASSES)
        total += confusion
    return {**found, "all": score(total, CLASSES)}


def condition_table(title: str, found: dict[str, Scores]) -> Table:
    """MIoU and accuracy in percent, one line a condition."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in ("condition", "mIoU %", "accuracy %"):
        table.add_column(column, justify="left" if column == "condition" else "right")
    for name, scores in found.items():
        seen = "" if name in TRAINED or name == "all" else " (never trained on)"
        table.add_row(name + seen, f"{100 * scores.miou:.1f}", f"{100 * scores.accuracy:.1f}")
    return table


def _batch(
    data: Dataset, tensors: Tensors, settings: Settings, seed: int, step: int
) -> tuple[Tensor, Tensor, Tensor]:
    key = (seed, step if step >= 0 else (1 << 30) - step)
    return crops(data, tensors, key, settings.batch, settings.crop_px, settings.blind)


def _data(
    cache: Path, settings: Settings, processes: int, progress: Progress
) -> tuple[Dataset, dict[str, Dataset]]:
    """What is learnt from, and what is looked at under each condition."""
    streets = TRAINING_STREETS[: settings.streets]
    watched = VALIDATION_STREETS[: settings.validation_streets]
    total = len(streets) + len(CONDITIONS) * len(watched)
    task = progress.add_task("draw streets", total=total, note="")

    def drawn(seeds: Sequence[int], conditions: Sequence[str], windows: int) -> Dataset:
        return cached_pairs(
            seeds,
            conditions,
            cache,
            windows_a_street=windows,
            processes=processes,
            on_street=lambda: progress.advance(task),
        )

    training = drawn(streets, TRAINED, settings.windows_a_street)
    return training, {c: drawn(watched, [c], settings.tested_windows) for c in CONDITIONS}


def _in_words(found: dict[str, Scores]) -> str:
    return "mIoU % " + ", ".join(f"{name} {100 * s.miou:.1f}" for name, s in found.items())


def _pace(settings: Settings) -> Pace:
    return Pace(
        steps=settings.steps,
        rate=settings.rate,
        decay=settings.decay,
        average=settings.average,
        warm_up_steps=settings.warm_up_steps,
        checkpoint_every=settings.checkpoint_every,
        validate_every=settings.validate_every,
    )


def _settings(name: str) -> Settings:
    if name not in SETTINGS:
        raise ConfigError(f"cannot train '{name}'", hint=f"can train: {', '.join(SETTINGS)}")
    return SETTINGS[name]
