"""The kinds of networks that are written as artifacts, and which of them a network is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeperc.config import ModelCard
from edgeperc.errors import ModelError
from edgeperc.offline.compress import artifact_promptable, artifact_semantic
from edgeperc.offline.compress.adapters import Sample, Subject
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.ledger import Ledger
from edgeperc.offline.compress.written import Written
from edgeperc.offline.nets.sam import Sam
from edgeperc.offline.nets.sam2 import Sam2
from edgeperc.offline.nets.sltnet_folded import FoldedSLTNet


class Kind(Protocol):
    """What a kind of network is written as. TIMED: role of the file whose speed is reported.
    MEASURE: of agreement, in words that a number follows.
    """

    TIMED: str
    MEASURE: str

    def card_of(self, ctx: Context, ledger: Ledger) -> ModelCard:
        """The card, without files."""

    def write_files(
        self, ctx: Context, card: ModelCard, folder: Path, *, opset: int, wanted: float
    ) -> Written:
        """Write all files of the network, and hold them to it."""

    def write_exact(
        self, exact: nn.Module, folder: Path, samples: Sequence[Sample]
    ) -> dict[str, int]:
        """Write the network as it was before, and say how large its files are, by role."""

    def alike(
        self, exact: dict[str, Tensor], answer: dict[str, Tensor], sample: Sample
    ) -> tuple[int, int]:
        """How many pixels are answered as in full precision, of how many."""

    def drawn(
        self, ctx: Context, nets: Mapping[str, nn.Module], sample: Sample
    ) -> NDArray[np.uint8]:
        """What several networks answer to a sample, beside each other, (H, W, 3) RGB."""


def kind_of(subject: Subject) -> Kind:
    """What an artifact of this network is: to be asked before any pass has run.

    Raises ModelError for networks of which none can be made.
    """
    if isinstance(subject.net, Sam | Sam2):
        return artifact_promptable
    if isinstance(subject.net, FoldedSLTNet) and getattr(subject, "card", None) is not None:
        return artifact_semantic
    raise ModelError(
        f"{subject.name}: only promptable networks, and SLTNet folded for inference, can be written"
        " as an artifact so far",
        hint="--dry-run shows what each site would get; see docs/compression.md",
    )
