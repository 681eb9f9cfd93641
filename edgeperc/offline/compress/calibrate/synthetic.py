"""Pictures to calibrate with, made by the network itself: no picture is read.

    samples = synthesise(subject, count=16, seed=0, progress=progress)

A picture of noise is changed, as weights are in training, until the network sees patches that
differ (`patch_entropy`), objects where a box points at one (`evolve`), and neighbours as alike as
in photographs. It then goes the way of photographs: 8 bits, and the preprocessing that the subject
gives any picture. This is our class-free variant of DFQ-SAM, not DFQ-SAM. Sources: Li et al. 2024
(DFQ-SAM, arXiv 2410.01813), section 3; Li et al. 2022 (PSAQ-ViT, arXiv 2203.02250), section 3.2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress, TaskID
from torch import Tensor, nn

from edgeperc.errors import ConfigError
from edgeperc.offline.compress.adapters import Sample, Subject
from edgeperc.offline.compress.calibrate.evolve import (
    ellipses,
    evolve,
    grid_clicks,
    largest_region,
    stability,
    sureness,
    worth,
)
from edgeperc.offline.compress.calibrate.patch_entropy import PatchTaps
from edgeperc.offline.compress.calibrate.pictures import (
    View,
    coloured,
    normalised,
    pixels_of,
    step_rms,
)
from edgeperc.offline.compress.calibrate.seen import Seen, selected
from edgeperc.offline.contact_sheet import layered
from edgeperc.offline.drawn_prompts import box_prompt
from edgeperc.offline.examples import Example
from edgeperc.offline.mask_loss import answer_loss
from edgeperc.offline.nets.sam import Sam
from edgeperc.offline.nets.sam2 import Sam2
from edgeperc.offline.training_run import Pace, save_state, schedule

ITERATIONS = 90
JITTER = (0.06, 0.06, 0.12)
"""Of each phase: how far the picture is shifted at most, as a share of its side."""
RATE, BETAS, WARM_UP = 0.2, (0.5, 0.9), 0.2
"""Of Adam, which starts anew with each phase; WARM_UP is a share of the phase."""
MASK, ENTROPY, SMOOTH = 1.0, 0.05, 5.0
"""Weights of the losses."""
STEP_RMS = (0.285, 0.342)
"""Neighbouring values of a normalised picture differ by so much: PSAQ-ViT's total variation of 2500
to 3000 in 32 pictures of 224 x 224, as a root mean square."""
OBJECTS, PROMPTED = 3, 2
"""Labels of a picture, and how many of them an iteration asks for."""
EVOLVE_EVERY, CLICKS = 5, 3
"""The labels of the first phase change every so many iterations; CLICKS x CLICKS are asked for."""
KEEP_EVERY = 10
_NO_TASK = TaskID(-1)
BATCH_PIXELS = 16 * 256 * 256
"""So many pixels at a time: 16 pictures of 256 x 256, or one of 1024 x 1024."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many pictures are made, from which seed, and for how long."""

    count: int
    seed: int
    iterations: int

    def phase(self, step: int) -> tuple[int, int, int]:
        """Of a step: which phase it is in, how far in it, and how long the phase is."""
        ends = [self.iterations * (k + 1) // len(JITTER) for k in range(len(JITTER))]
        number = next(k for k, end in enumerate(ends) if step < end)
        start = ends[number - 1] if number else 0
        return number, step - start, ends[number] - start


def synthesise(
    subject: Subject,
    count: int,
    seed: int,
    progress: Progress | None = None,
    *,
    iterations: int = ITERATIONS,
    keep: Path | None = None,
) -> list[Sample]:
    """Samples of synthesised pictures; the same for the same subject, count, seed and iterations.

    They are prompted for what the network sees in them, which is no truth to score answers with.
    keep: a file to go on from after a kill. Raises what `synthesise_examples` does.
    """
    examples = synthesise_examples(subject, count, seed, progress, iterations=iterations, keep=keep)
    samples = subject.samples(examples, seed=seed)
    return [{k: v for k, v in sample.items() if k != "truth"} for sample in samples]


def synthesise_examples(
    subject: Subject,
    count: int,
    seed: int,
    progress: Progress | None = None,
    *,
    iterations: int = ITERATIONS,
    keep: Path | None = None,
) -> list[Example]:
    """The pictures themselves, each with one map of the objects that the network sees in it.

    Raises ConfigError for a subject that is not promptable, fewer than one picture or iterations
    than phases, or a file `keep` of another run; ModelError for an encoder without attention.
    """
    net = subject.net
    if not isinstance(net, Sam | Sam2):
        raise ConfigError(
            f"'{subject.name}' cannot make its own pictures: it is not promptable",
            hint='calibrate it with source "real", or with "noise"',
        )
    if count < 1 or iterations < len(JITTER):
        raise ConfigError(
            f"{count} pictures in {iterations} iterations cannot be synthesised",
            hint=f"at least one picture, at least {len(JITTER)} iterations",
        )
    plan = Plan(count=count, seed=seed, iterations=iterations)
    with _frozen(net):
        making = Making(net, plan, keep)
        making.run(progress)
    return making.examples()


class Making:
    """Pictures in the making, batch after batch; kept through a kill."""

    def __init__(self, net: Sam | Sam2, plan: Plan, keep: Path | None) -> None:
        self._net, self._plan, self._keep = net, plan, keep
        self._side_px = net.config.picture_px
        self._batch = max(1, min(plan.count, BATCH_PIXELS // self._side_px**2))
        rng, generator = self._random(-1)
        shape = (plan.count, 3, self._side_px, self._side_px)
        self._low, self._high = (normalised(level) for level in (0.0, 255.0))
        noise = coloured(torch.randn(shape, generator=generator))
        self.pictures = noise.clamp(self._low, self._high)
        self.labels = torch.from_numpy(
            np.stack([ellipses(OBJECTS, self._side_px, rng) for _ in range(plan.count)])
        )
        self._smoothness = torch.from_numpy(rng.uniform(*STEP_RMS, plan.count)).float()
        self._adam: dict[str, Any] | None = None
        self.done = 0
        self._load()

    @property
    def total(self) -> int:
        """Iterations of all batches."""
        return -(-self._plan.count // self._batch) * self._plan.iterations

    def run(self, progress: Progress | None) -> None:
        """Do the iterations that are left."""
        task = _NO_TASK
        if progress:
            task = progress.add_task("synthesise", total=self.total, completed=self.done, note="")
        while self.done < self.total:
            batch, step = divmod(self.done, self._plan.iterations)
            rows = slice(batch * self._batch, min((batch + 1) * self._batch, self._plan.count))
            loss = self._iterate(rows, step)
            self.done += 1
            if self.done % KEEP_EVERY == 0 or self.done == self.total:
                self._save()
            if progress:
                progress.update(task, advance=1, note=f"loss {loss:.3f}")

    def examples(self) -> list[Example]:
        """8-bit pictures (S, S, 3) RGB and the numbers of their labels."""
        made = []
        for index, (picture, labels) in enumerate(zip(self.pictures, self.labels, strict=True)):
            masks = {number + 1: each.numpy() for number, each in enumerate(labels)}
            numbers = layered(masks, picture.shape[1:]).astype(np.int32)
            name = f"synthetic-{self._plan.seed}-{index}"
            made.append(Example(name=name, picture=pixels_of(picture), maps=(numbers,)))
        return made

    def _iterate(self, rows: slice, step: int) -> float:
        phase, since, length = self._plan.phase(step)
        rng, generator = self._random(self.done)
        view = self._view(rng, JITTER[phase])
        pictures = self.pictures[rows].clone().requires_grad_()
        adam = torch.optim.Adam([pictures], lr=RATE, betas=BETAS)
        if since and self._adam:
            adam.load_state_dict(self._adam)
        pace = Pace(steps=length, rate=RATE, warm_up_steps=round(WARM_UP * length))
        adam.param_groups[0]["lr"] = RATE * schedule(since, pace)
        with PatchTaps(self._net.image_encoder, picture_px=self._side_px) as taps:
            seen = Seen(self._net, view.of(pictures))
        if phase == 0 and since % EVOLVE_EVERY == 0 and since:
            self.labels[rows] = view.undone(self._evolved(seen, view.of(self.labels[rows]), rng))
        loss = MASK * self._mask_loss(seen, view.of(self.labels[rows]), rng)
        loss = loss - ENTROPY * taps.entropy(len(pictures), generator).sum()
        loss = loss + SMOOTH * (step_rms(pictures) - self._smoothness[rows]).abs().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        self._adam = adam.state_dict()
        self.pictures[rows] = pictures.detach().clamp(self._low, self._high)
        return float(loss.detach()) / len(pictures)

    def _mask_loss(self, seen: Seen, labels: Tensor, rng: np.random.Generator) -> Tensor:
        """Box prompts for some labels of each picture; the sum over the pictures."""
        count = len(labels)
        chosen = rng.permuted(np.tile(np.arange(OBJECTS), (count, 1)), axis=1)[:, :PROMPTED]
        owner = torch.arange(count).repeat_interleave(PROMPTED)
        masks = labels[owner, torch.from_numpy(chosen).flatten()].numpy()
        truth = torch.from_numpy(np.stack([largest_region(mask) for mask in masks]))
        answered = seen.answer(owner, *box_prompt(truth))
        single = torch.zeros(len(truth), dtype=torch.bool)
        return answer_loss(answered, truth, single) * count

    @torch.no_grad()
    def _evolved(self, seen: Seen, labels: Tensor, rng: np.random.Generator) -> Tensor:
        clicks = grid_clicks(CLICKS, self._side_px, rng)
        current, answers = [], []
        for index, masks in enumerate(labels.numpy()):
            current.append(np.stack([largest_region(mask) for mask in masks]))
            boxes = box_prompt(torch.from_numpy(current[-1]))
            points, kinds = (torch.cat(pair) for pair in zip(clicks, boxes, strict=True))
            owner = torch.full((len(points),), index)
            answers.append(selected(seen.answer(owner, points, kinds), kinds))
        logits, ious = (torch.cat(parts) for parts in zip(*answers, strict=True))
        least = sureness(ious, stability(logits))
        following = [
            evolve(masks, *worth(*answer, self._side_px, least), rng)
            for masks, answer in zip(current, answers, strict=True)
        ]
        return torch.from_numpy(np.stack(following))

    def _view(self, rng: np.random.Generator, share: float) -> View:
        most = round(share * self._side_px)
        rows, columns = rng.integers(-most, most + 1, 2)
        return View(int(rows), int(columns), bool(rng.random() < 0.5))

    def _random(self, iteration: int) -> tuple[np.random.Generator, torch.Generator]:
        """Of each iteration its own, so that a run that was killed ends as if it was not."""
        rng = np.random.default_rng((self._plan.seed, iteration + 1))
        return rng, torch.Generator().manual_seed(int(rng.integers(2**31)))

    def _save(self) -> None:
        if self._keep is None:
            return
        state = {
            "run": self._identity(),
            "done": self.done,
            "pictures": self.pictures,
            "labels": self.labels,
            "adam": self._adam,
        }
        self._keep.parent.mkdir(parents=True, exist_ok=True)
        save_state(state, self._keep)

    def _load(self) -> None:
        if self._keep is None or not self._keep.exists():
            return
        state = torch.load(self._keep, weights_only=True)
        if state["run"] != self._identity():
            raise ConfigError(
                f"{self._keep}: pictures of another network, seed, or number of them",
                hint="remove it to start anew",
            )
        self.done, self._adam = state["done"], state["adam"]
        self.pictures, self.labels = state["pictures"], state["labels"]

    def _identity(self) -> dict[str, Any]:
        plan = self._plan
        return {
            "weights": _digest(self._net),
            "count": plan.count,
            "seed": plan.seed,
            "iterations": plan.iterations,
        }


def _digest(net: nn.Module) -> str:
    total = hashlib.sha256()
    for values in net.state_dict().values():
        total.update(values.contiguous().numpy().tobytes())
    return total.hexdigest()


@contextmanager
def _frozen(net: nn.Module) -> Iterator[None]:
    """No gradient for the weights meanwhile."""
    learnt = [p for p in net.parameters() if p.requires_grad]
    for parameter in learnt:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learnt:
            parameter.requires_grad_(True)
