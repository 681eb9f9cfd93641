"""What a fusion network is trained on: pairs of the twin as tensors, cut, mirrored and blinded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeperc.config import ModelCard
from edgeperc.fusion import FusionInput
from edgeperc.offline.samples import IGNORE, Dataset, Sample
from edgeperc.packet import Pair
from edgeperc.represent import RECIPES

Modality = Literal["both", "frames", "events"]
Batch = tuple[Tensor, Tensor, Tensor]
"""Frames (B, C, h, w) and voxel grids (B, bins, h, w), float32, and labels (B, h, w) int64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blind:
    """Which inputs are zeros. modality: what is left in every sample. without_frame,
    without_events: shares of the samples that lack one, as where a sensor died.
    """

    modality: Modality = "both"
    without_frame: float = 0.1
    without_events: float = 0.1

    def draw(self, rng: np.random.Generator) -> tuple[bool, bool]:
        """Whether a sample has its frame, and its events."""
        chance = rng.random()
        if self.modality != "both":
            return self.modality == "frames", self.modality == "events"
        if chance < self.without_frame:
            return False, True
        return True, chance < 1 - self.without_events


class Tensors:
    """Samples to what the network of a card eats, as the daemon does it, and what it should say."""

    def __init__(self, card: ModelCard) -> None:
        size_px = card.input.width_px, card.input.height_px
        self._input = FusionInput(*size_px, card)
        recipe = RECIPES[card.input.represent](*size_px, card.input)
        self._nearest = tuple(
            np.where(share < 0.5, lower, upper).astype(np.intp)
            for lower, upper, share in recipe.taps
        )
        self.shape = self._input.shape[1:]

    def inputs(
        self, sample: Sample, has: tuple[bool, bool] = (True, True)
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Frame and voxel grid, copies; has: whether the frame and the events are there."""
        frame = sample.frame if has[0] else None
        stamp = sample.events.stamp if sample.frame is None else sample.frame.stamp
        pair = Pair(stamp=stamp, frame=frame, events=sample.events)
        image, voxels = (each.copy() for each in self._input(pair))
        return image, voxels if has[1] else np.zeros_like(voxels)

    def truth(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Labels (H, W) of the sensor at the network's pixels, (h, w); IGNORE beyond the sensor."""
        truth = np.full(self.shape, IGNORE, np.uint8)
        rows, columns = self._nearest
        truth[: rows.size, : columns.size] = labels[rows[:, None], columns]
        return truth


def crops(
    data: Dataset, tensors: Tensors, key: tuple[int, int], count: int, width_px: int, blind: Blind
) -> Batch:
    """Crops of random samples, half of them mirrored: the same for the same key (seed, step)."""
    rng = np.random.default_rng(key)
    made = [
        _crop(data.read(int(k)), tensors, rng, width_px, blind)
        for k in rng.integers(0, len(data), count)
    ]
    frames, voxels, labels = (torch.from_numpy(np.stack(each)) for each in zip(*made, strict=True))
    return frames, voxels, labels.long()


def _crop(
    sample: Sample, tensors: Tensors, rng: np.random.Generator, width_px: int, blind: Blind
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]]:
    frame, voxels = tensors.inputs(sample, blind.draw(rng))
    truth = tensors.truth(sample.labels)
    start = int(rng.integers(0, truth.shape[1] - width_px + 1))
    step = -1 if rng.random() < 0.5 else 1
    cut = np.arange(start, start + width_px)[::step]
    return frame[..., cut], voxels[..., cut], truth[:, cut]
