"""One step of learning to answer prompts: stills that are corrected, clips that are tracked."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor, nn

from edgeperc.offline.clip_data import ClipData, Mixture
from edgeperc.offline.clips import Clip
from edgeperc.offline.detector_start import start_from_detector
from edgeperc.offline.drawn_prompts import (
    box_prompt,
    click_prompt,
    correction,
    first_prompt,
    no_prompt,
)
from edgeperc.offline.mask_loss import answer_loss, answered, covered
from edgeperc.offline.nets.mask_decoder import DecoderAttention
from edgeperc.offline.nets.sam2 import Decoded, Features, Sam2, Sam2Config
from edgeperc.offline.nets.taps import Attention
from edgeperc.offline.training_bank import TrainingBank
from edgeperc.picture import IMAGENET_MEAN, IMAGENET_STD

MEAN, STD = IMAGENET_MEAN, IMAGENET_STD


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much a step looks at. clip_share: of the steps from `first_clip` on, those that track."""

    stills: int = 4
    objects: int = 10
    corrections: int = 2
    clips: int = 2
    frames: int = 4
    clip_objects: int = 3
    clip_share: float = 0.45
    first_clip: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptScores:
    """Mean IoU on held-out data: of one click and of a box on photographs, of tracked clips."""

    click_miou: float
    box_miou: float
    track_miou: float

    def table(self, title: str) -> Table:
        """One line a task."""
        table = Table("task", "mIoU", title=title, box=None)
        for name, value in asdict(self).items():
            table.add_row(name.removesuffix("_miou"), f"{100 * value:.1f} %")
        return table

    def __str__(self) -> str:
        parts = (f"{k.removesuffix('_miou')} {100 * v:.1f} %" for k, v in asdict(self).items())
        return ", ".join(parts)


class PromptingTask(nn.Module):
    """The network and what a step of it costs; begins with a detector's pyramid if there is one."""

    def __init__(self, network: Sam2Config, source: ClipData, load: Load, seed: int) -> None:
        super().__init__()
        self.net = Sam2(network)
        self._source, self._load, self._seed = source, load, seed
        for module in self.net.modules():
            if isinstance(module, Attention):  # its gradient is twice as fast as the fused one's
                module.written_out = True
        start_alike(self.net)
        if network.pyramid and source.detector:
            pyramid = self.net.image_encoder.trunk.pyramid
            start_from_detector(pyramid, source.detector, MEAN, STD)

    def loss(self, step: int) -> Tensor:
        """What to learn from in step `step`."""
        rng = np.random.default_rng((self._seed, step))
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        self.net.train()
        load = self._load
        tracks = rng.random() < load.clip_share and step >= load.first_clip
        frames = load.frames if tracks else 1
        clips = self._source.training.clips(
            rng,
            count=load.clips if frames > 1 else load.stills,
            frames=frames,
            objects=load.clip_objects if frames > 1 else load.objects,
        )
        pictures = np.concatenate([clip.pictures for clip in clips])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = self.net.encode(as_tensor(pictures))
        episode = Episode(self.net, features, clips)
        return episode.loss(generator, corrections=load.corrections)


@torch.no_grad()
def start_alike(net: Sam2) -> None:
    """Let the decoder's attention begin with equal projections of queries and keys, and large ones.

    Then each place looks at the prompts near it from the first step on.
    """
    for module in net.sam_mask_decoder.modules():
        if isinstance(module, DecoderAttention):
            module.q_proj.weight.mul_(2.5)
            module.k_proj.weight.copy_(module.q_proj.weight)


class Episode:
    """Objects of a few clips, prompted in the first picture and tracked through the others."""

    def __init__(self, net: Sam2, features: Features, clips: list[Clip]) -> None:
        self._net, self._features = net, features
        self._truth = torch.from_numpy(np.concatenate([clip.masks for clip in clips]))
        counts = torch.tensor([len(clip.masks) for clip in clips])
        self._owner = torch.repeat_interleave(torch.arange(len(clips)), counts)
        self._frames = clips[0].pictures.shape[0]
        self._side_px = clips[0].pictures.shape[1]
        self._loss = torch.zeros(())

    def loss(self, generator: torch.Generator, *, corrections: int) -> Tensor:
        """Prompt, correct up to so many times, track; what all answers cost on average."""
        points, labels, is_click = first_prompt(self._truth[:, 0], generator)
        rounds = int(torch.randint(corrections + 1, (1,), generator=generator))
        self.track(points, labels, is_click, generator, rounds)
        total: Tensor = self._loss / self._frames
        return total

    def track(
        self,
        points: Tensor,
        labels: Tensor,
        is_click: Tensor,
        generator: torch.Generator | None = None,
        corrections: int = 0,
    ) -> list[Tensor]:
        """Logits (B, h, h) of every frame."""
        bank = TrainingBank(self._net)
        now = self._at(0)
        start = self._net.without_memory(now.embedding)
        many, mask_input = is_click, None
        for number in range(corrections + 1):
            decoded = self._answer(now, start, points, labels, mask_input, many, 0)
            mask, pointer = answered(decoded, many)
            if number < corrections and generator is not None:
                target = covered(self._truth[:, 0], mask.shape[-1]) > 0.5
                points, labels = correction(
                    points, labels, mask.detach() > 0, target, self._side_px, generator
                )
                mask_input = mask.detach()[:, None].clamp(-32, 32)
                many = torch.zeros_like(is_click)
        self._loss = self._loss / (corrections + 1)
        masks = [mask]
        for t in range(1, self._frames):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                bank.add(now.embedding, mask, pointer, decoded, from_points=t == 1)
                now = self._at(t)
                conditioned = bank.attend(now.embedding)
            points, labels = no_prompt(len(self._truth))
            many = torch.ones_like(is_click)
            decoded = self._answer(now, conditioned, points, labels, None, many, t)
            mask, pointer = answered(decoded, many)
            masks.append(mask)
        return masks

    def _answer(
        self,
        now: Features,
        embedding: Tensor,
        points: Tensor,
        labels: Tensor,
        mask_input: Tensor | None,
        many: Tensor,
        frame: int,
    ) -> Decoded:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            decoded = self._net.decode(embedding, now.high, points, labels, mask_input)
        self._loss = self._loss + answer_loss(decoded, self._truth[:, frame], many)
        return decoded

    def _at(self, frame: int) -> Features:
        """Each object's features of a frame."""
        rows = self._owner * self._frames + frame
        features = self._features
        fine, middle = features.high
        return Features(features.embedding[rows], (fine[rows], middle[rows]))


@torch.no_grad()
def validate_prompting(
    net: Sam2, held_out: Mixture, *, stills: int = 60, clips: int = 24
) -> PromptScores:
    """Mean IoU of one click and of a box on stills, and over 8 frames after a box on clips."""
    generator = torch.Generator().manual_seed(0)
    click: list[float] = []
    box: list[float] = []
    track: list[float] = []
    for seed in range(stills):
        clip = held_out.clips(np.random.default_rng((7, seed)), count=1, frames=1, objects=6)[0]
        features = net.encode(as_tensor(clip.pictures))
        truth = torch.from_numpy(clip.masks[:, 0])
        many = torch.ones(len(truth), dtype=torch.bool)
        for prompt, is_click, scores in (
            (click_prompt(truth, generator), many, click),
            (box_prompt(truth), ~many, box),
        ):
            masks = Episode(net, features, [clip]).track(*prompt, is_click)
            scores.extend(_ious(masks[0], truth))
    for seed in range(clips):
        clip = held_out.clips(np.random.default_rng((8, seed)), count=1, frames=8, objects=2)[0]
        features = net.encode(as_tensor(clip.pictures))
        truth = torch.from_numpy(clip.masks)
        is_click = torch.zeros(len(truth), dtype=torch.bool)
        masks = Episode(net, features, [clip]).track(*box_prompt(truth[:, 0]), is_click)
        for t, mask in enumerate(masks[1:], start=1):
            track += _ious(mask, truth[:, t])
    return PromptScores(
        click_miou=float(np.mean(click)),
        box_miou=float(np.mean(box)),
        track_miou=float(np.mean(track)),
    )


def as_tensor(pictures: NDArray[np.uint8]) -> Tensor:
    """(B, S, S, 3) uint8 RGB as the network eats it."""
    values = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    return (values - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def _ious(logits: Tensor, truth: Tensor) -> list[float]:
    side = truth.shape[-1]
    answer = F.interpolate(logits[:, None], (side, side), mode="bilinear")[:, 0] > 0
    both, either = (answer & truth).flatten(1).sum(1), (answer | truth).flatten(1).sum(1)
    there = truth.flatten(1).any(1)
    return [float(v) for v in (both / either.clamp(min=1))[there]]
