"""Train the small networks for pictures on the twin's avenues: boxes and regions.

    train("finder-twin", Path("out/finder-twin"), seed=0)

As in `edgeperc.offline.train`, every step draws its batch from (seed, step), so a run that was
killed goes on from its last checkpoint.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from edgeperc.detection.decode import finder
from edgeperc.detection.merge import suppress
from edgeperc.offline.box_loss import box_loss
from edgeperc.offline.nets.finder import Finder, Regions
from edgeperc.offline.samples import IGNORE
from edgeperc.offline.score import Scores, confusion_matrix, score
from edgeperc.offline.score_boxes import BoxScores, BoxTally, Things
from edgeperc.offline.sight_batches import box_batch, region_batch
from edgeperc.offline.sights import (
    CUTS,
    LOOKS,
    SIDE_PX,
    TRAINING_AVENUES,
    VALIDATION_AVENUES,
    WIDE,
    Sights,
    cached_sights,
)
from edgeperc.offline.training_run import Pace, TrainingRun, progress_bar, save_state
from edgeperc.twin.avenue import KINDS
from edgeperc.twin.plots import REGIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a network is trained. avenues, looks, cuts: how much of the twin is drawn to learn
    from.
    """

    channels: tuple[int, ...]
    steps: int
    batch: int
    rate: float = 3e-3
    decay: float = 1e-3
    warm_up_steps: int = 100
    clip_norm: float = 5.0
    checkpoint_every: int = 200
    validate_every: int = 1000
    avenues: int = len(TRAINING_AVENUES)
    validation_avenues: int = len(VALIDATION_AVENUES)
    looks: int = LOOKS
    cuts: int = CUTS


SETTINGS = {
    "finder-twin": Settings(channels=(16, 24, 32, 48, 64), steps=8000, batch=8, rate=2e-3),
    "regions-twin": Settings(
        channels=(12, 16, 24, 32, 40), steps=1500, batch=8, validate_every=500
    ),
}


class Scored(Protocol):
    """Scores of one kind or another."""

    def table(self, title: str) -> Any:
        """A table for the terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What came out. weights: a state_dict by torch.save, with the settings it was made by."""

    weights: Path
    scores: Scored
    seconds: float


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
    ConfigError for a checkpoint of another run.
    """
    settings = settings or SETTINGS[name]
    settings = replace(settings, steps=steps or settings.steps)
    torch.set_num_threads(threads)
    out_dir.mkdir(parents=True, exist_ok=True)
    with progress_bar(console or Console()) as progress:
        data, validation = _sights(out_dir / "cache", settings, threads, progress)
        torch.manual_seed(seed)
        task: Any = (_Boxes if name.startswith("finder") else _Regions)(settings)
        net = task.net.to(memory_format=torch.channels_last)
        identity = {"name": name, "seed": seed, **asdict(settings)}
        run = TrainingRun(net, identity, out_dir / "checkpoint.pt", _pace(settings))
        if resume:
            run.load()

        def loss_of(step: int) -> Tensor:
            net.train()
            loss: Tensor = task.loss(net, data, (seed, step), settings.batch)
            return loss

        run.fit(
            loss_of,
            progress,
            validate=lambda: str(task.headline(task.validate(net, validation))),
        )
    weights = out_dir / "weights.pt"
    save_state({"channels": settings.channels, "net": net.state_dict()}, weights)
    scores = task.validate(net, validation)
    return Trained(weights=weights, scores=scores, seconds=run.seconds)


class _Boxes:
    """What Finder learns, and how it is scored."""

    def __init__(self, settings: Settings) -> None:
        self.net = Finder(len(KINDS), settings.channels)

    def loss(self, net: nn.Module, data: Sights, key: tuple[int, int], count: int) -> Tensor:
        batch = box_batch(data, key, count)
        return box_loss(net(batch.pictures), batch)

    def validate(self, net: nn.Module, data: Sights) -> BoxScores:
        return validate_boxes(net, data)

    def headline(self, scores: BoxScores) -> str:
        return scores.headline


class _Regions:
    """What Regions learns, and how it is scored."""

    def __init__(self, settings: Settings) -> None:
        self.net = Regions(len(REGIONS), settings.channels)

    def loss(self, net: nn.Module, data: Sights, key: tuple[int, int], count: int) -> Tensor:
        pictures, regions = region_batch(data, key, count)
        quarter = regions[:, 2::4, 2::4]
        return F.cross_entropy(net(pictures), quarter, ignore_index=IGNORE)

    def validate(self, net: nn.Module, data: Sights) -> Scores:
        return validate_regions(net, data)

    def headline(self, scores: Scores) -> str:
        return f"mIoU {100 * scores.miou:.1f} %"


def _pace(settings: Settings) -> Pace:
    return Pace(
        steps=settings.steps,
        rate=settings.rate,
        decay=settings.decay,
        decay_all=True,
        warm_up_steps=settings.warm_up_steps,
        clip_norm=settings.clip_norm,
        checkpoint_every=settings.checkpoint_every,
        validate_every=settings.validate_every,
    )


@torch.no_grad()
def validate_boxes(net: nn.Module, data: Sights, *, score: float = 0.4) -> BoxScores:
    """Scores of a Finder on whole sights, as many as there are."""
    net.eval()
    tally = BoxTally(KINDS, score)
    for index in range(len(data)):
        output = net(_tensor(data.images[index])).numpy()
        found = suppress(finder(output, 0.03, SIDE_PX, SIDE_PX), iou=0.5)
        boxes, class_ids, visible = data.things(index)
        usable = np.ones(len(boxes), np.bool_)
        truth = Things(boxes=boxes, class_ids=class_ids, visible=visible, usable=usable)
        tally.add(truth, found.boxes, found.scores, found.class_ids, found.variance)
    return tally.scores()


@torch.no_grad()
def validate_regions(net: nn.Module, data: Sights) -> Scores:
    """Scores of a Regions on the wide camera's sights."""
    net.eval()
    confusion = np.zeros((len(REGIONS),) * 2, np.int64)
    for index in np.flatnonzero(data.sensors == WIDE):
        logits = _at_full_size(net(_tensor(data.images[index])))
        answer = logits[0].argmax(0).numpy().astype(np.uint8)
        confusion += confusion_matrix(data.regions[index], answer, len(REGIONS))
    return score(confusion, REGIONS)


def _tensor(image: np.typing.NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(image.astype(np.float32) / 255)[None, None]


def _at_full_size(logits: Tensor) -> Tensor:
    return F.interpolate(logits, scale_factor=4.0, mode="nearest")


def _sights(
    cache: Path, settings: Settings, processes: int, progress: Progress
) -> tuple[Sights, Sights]:
    avenues = (
        TRAINING_AVENUES[: settings.avenues],
        VALIDATION_AVENUES[: settings.validation_avenues],
    )
    task = progress.add_task("draw avenues", total=sum(map(len, avenues)), note="")
    draw = partial(
        cached_sights,
        folder=cache,
        looks=settings.looks,
        cuts=settings.cuts,
        processes=processes,
        on_avenue=lambda: progress.advance(task),
    )
    return draw(avenues[0]), draw(avenues[1])
