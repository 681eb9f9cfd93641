"""What a network is to the toolbox: what it takes, how it is run and scored, what stays float.

    subject = open_subject("out/promptable/weights.pt")
    outputs = subject.run(subject.net, sample)

A subject is one module here; `SUBJECTS` says which kind of network has which.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

from torch import Tensor, nn

from edgeperc.offline.examples import Example

Sample: TypeAlias = dict[str, Tensor]
"""One calibration example, by name. SAM, SAM 2: picture (1, 3, S, S) normalised, points (B, P, 2)
px of the network's picture, labels (B, P), and where it is known truth (B, S, S) bool, the masks
that were pointed at. SLTNet: voxel (1, C, H, W), and truth (1, H, W) uint8."""


class Subject(Protocol):
    """A network and what the toolbox has to know of it.

    keep_fp: globs of sites that stay in full precision unless a recipe says otherwise. picture_px:
    height and width of what it takes.
    """

    name: str
    net: nn.Module
    keep_fp: tuple[str, ...]
    picture_px: tuple[int, int]

    def samples(self, source: Sequence[Example], *, seed: int = 0) -> list[Sample]:
        """What the network takes of pictures, with prompts drawn for the objects in them."""

    def noise(self, count: int, *, seed: int = 0) -> list[Sample]:
        """Inputs of Gaussian noise, as bright and as varied as pictures are."""

    def run(self, net: nn.Module, sample: Sample) -> dict[str, Tensor]:
        """What `net` answers, `masks` first. Gradients flow where they are wanted."""

    def score(self, net: nn.Module, held_out: Sequence[Sample]) -> dict[str, float]:
        """How right the answers are, of samples that have a truth; empty where none has."""


def open_subject(model: str, *, weights: Path | None = None) -> Subject:
    """The subject of a file of weights, or of a published network and its file of weights.

    Raises ConfigError for a name that is neither, ModelError for a file that does not fit.
    """
    from edgeperc.offline.compress.adapters.opening import subject_of

    return subject_of(model, weights)
