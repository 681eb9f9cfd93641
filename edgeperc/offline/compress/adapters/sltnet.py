"""SLTNet: classes of pixels from a voxel grid of events.

A network that is to be written is folded for inference first: `folded`. Thresholds of its neurons
and gates stay as they are; so do norms. Spikes are 0 or 1 and lie on every grid. What decides is
kept: the first convolution, which takes counts of events, and the classifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgeperc.config import ModelCard
from edgeperc.errors import ConfigError, ModelError
from edgeperc.offline.batches import INPUT
from edgeperc.offline.compress.adapters import Sample
from edgeperc.offline.datasets import TRAINING_STREETS, open_dataset, twin
from edgeperc.offline.examples import Example
from edgeperc.offline.fold import fold
from edgeperc.offline.nets.sltnet import SLTNet
from edgeperc.offline.nets.sltnet_folded import FoldedSLTNet
from edgeperc.offline.prune import prune
from edgeperc.offline.samples import IGNORE, Dataset
from edgeperc.offline.samples import Sample as Window
from edgeperc.offline.score import confusion_matrix, score
from edgeperc.places import find_card, names
from edgeperc.represent import RECIPES

KEEP_FP = ("stem.0.conv", "classifier")
KEEP_FOLDED = ("stem.0", "classifier")
CUT = ("voxel-grid", "sltnet-ddd17")
"""Recipes that leave a pixel where it is: what is beyond the sensor's edge is cut or padded."""
OWN = "sltnet-twin"
"""The card of networks that `edgeperc train` wrote."""


class SltnetSubject:
    """A spiking network for events. height_px, width_px: multiples of 8, of noise."""

    keep_fp: tuple[str, ...] = KEEP_FP

    def __init__(
        self,
        net: SLTNet | FoldedSLTNet,
        *,
        name: str = "sltnet",
        picture_px: tuple[int, int] = (200, 352),
        card: ModelCard | None = None,
    ) -> None:
        self.net: nn.Module = net.eval()
        self.name, self.picture_px, self.card = name, picture_px, card
        first: Any = net.stem[0]
        self.bins: int = getattr(first, "conv", first).in_channels
        if isinstance(net, FoldedSLTNet):
            self.keep_fp = (*KEEP_FOLDED, *_neurons(net))

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
        return [self._sample(each) for each in found.thinned(count)]

    def _sample(self, window: Window) -> Sample:
        """What the network takes of a window, as its card says, and the labels there."""
        spec = self.card.input if self.card else INPUT
        recipe = RECIPES[spec.represent](window.events.width_px, window.events.height_px, spec)
        voxel = recipe(window.events).copy()
        sample = {"voxel": torch.from_numpy(voxel)[None]}
        if spec.represent in CUT and window.rectify_map is None:
            truth = np.full(voxel.shape[1:], IGNORE, np.uint8)
            height, width = np.minimum(window.labels.shape, truth.shape)
            truth[:height, :width] = window.labels[:height, :width]
            sample["truth"] = torch.from_numpy(truth)[None]
        return sample

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


def folded(net: SLTNet, name: str, sha256: str) -> SltnetSubject:
    """A trained network as it is at inference, without what can never fire, with its card: the one
    of this name, else the one whose checkpoint it is, else that of our own.

    Raises ModelError if the network does not fit the card, or cannot be folded.
    """
    card = _card(name, sha256)
    small = prune(fold(net))[0]
    first: Any = small.stem[0]
    recipe = RECIPES[card.input.represent](card.input.width_px, card.input.height_px, card.input)
    bins, height, width = recipe.shape
    if (first.in_channels, small.classifier.out_channels) != (bins, len(card.classes)):
        raise ModelError(
            f"{name} has {first.in_channels} bins and {small.classifier.out_channels} classes, the "
            f"card '{card.name}' says {bins} and {len(card.classes)}",
            hint="--weights FILE, and the name of its card as MODEL; edgeperc models shows them",
        )
    return SltnetSubject(small, name=name, picture_px=(height, width), card=card)


def _card(name: str, sha256: str) -> ModelCard:
    cards = {each: find_card(each).card for each in names("models")}
    if name in cards:
        return cards[name]
    for card in cards.values():
        if card.checkpoint is not None and card.checkpoint.sha256 == sha256:
            return card
    return cards[OWN]


def _neurons(net: FoldedSLTNet) -> tuple[str, ...]:
    """Neurons on sums: a scale and a threshold for each channel."""
    return tuple(
        name
        for name, layer in net.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups > 1
    )
