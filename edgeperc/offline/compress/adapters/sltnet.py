"""SLTNet: classes of pixels from a voxel grid of events.

Thresholds of its neurons, norms and gates are no sites, so they stay as they are. Spikes are 0 or
1 and lie on every grid. What decides is kept: the first convolution, which takes counts of events,
and the classifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgeperc.errors import ConfigError
from edgeperc.offline.batches import network_pair
from edgeperc.offline.compress.adapters import Sample
from edgeperc.offline.datasets import TRAINING_STREETS, open_dataset, twin
from edgeperc.offline.examples import Example
from edgeperc.offline.nets.sltnet import SLTNet
from edgeperc.offline.samples import Dataset
from edgeperc.offline.score import confusion_matrix, score

KEEP_FP = ("stem.0.conv", "classifier")


class SltnetSubject:
    """A spiking network for events. height_px, width_px: multiples of 8, of noise."""

    keep_fp: tuple[str, ...] = KEEP_FP

    def __init__(
        self, net: SLTNet, *, name: str = "sltnet", picture_px: tuple[int, int] = (200, 352)
    ) -> None:
        self.net: nn.Module = net.eval()
        self.name, self.picture_px = name, picture_px
        self.bins: int = net.stem[0].conv.in_channels  # type: ignore[union-attr,assignment]

    def samples(self, source: Sequence[Example], *, seed: int = 0) -> list[Sample]:
        """Raises ConfigError: pictures are no events, see `windows`."""
        raise ConfigError(
            f"'{self.name}' takes events, not pictures",
            hint="--data twin, or a folder of DDD17 or DSEC-Semantic",
        )

    def windows(self, data: str | Path | Dataset, count: int) -> list[Sample]:
        """Windows of a data set, as `edgeperc evaluate --data` takes it, spread evenly; of what
        there is to learn from. `twin` is the streets of the training.
        """
        if isinstance(data, Dataset):
            found = data
        elif str(data) == "twin":
            found = twin(TRAINING_STREETS)
        else:
            found = open_dataset(str(data), split="train")
        samples = []
        for each in found.thinned(count):
            voxel, truth = network_pair(each)
            samples.append(
                {"voxel": torch.from_numpy(voxel)[None], "truth": torch.from_numpy(truth)[None]}
            )
        return samples

    def noise(self, count: int, *, seed: int = 0) -> list[Sample]:
        """Gaussian grids."""
        generator = torch.Generator().manual_seed(seed)
        size = (1, self.bins, *self.picture_px)
        return [{"voxel": torch.randn(size, generator=generator)} for _ in range(count)]

    def run(self, net: nn.Module, sample: Sample) -> dict[str, Tensor]:
        """Answer masks (1, classes, H, W): logits of each class."""
        return {"masks": net(sample["voxel"])}

    @torch.no_grad()
    def score(self, net: nn.Module, held_out: Sequence[Sample]) -> dict[str, float]:
        """`miou` over all pixels with a truth, 0 to 1."""
        known = [sample for sample in held_out if "truth" in sample]
        if not known:
            return {}
        counts = []
        for sample in known:
            logits = net(sample["voxel"])[0]
            answer = logits.argmax(0).numpy().astype(np.uint8)
            truth = sample["truth"][0].numpy().astype(np.uint8)
            counts.append(confusion_matrix(truth, answer, len(logits)))
        names = [str(number) for number in range(len(counts[0]))]
        return {"miou": score(np.sum(counts, axis=0), names).miou}
