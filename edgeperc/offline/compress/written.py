"""What was written of a compressed network, and how far its files may be from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypedDict

from edgeperc.config import FileEntry
from edgeperc.offline.compress.ledger import Ledger

AGREEMENT = 0.99
"""Least agreement of files and simulated network on held-out samples; less only where a recipe says
so. Of a promptable network it is the IoU of the masks that a user gets, over all pixels; of a
semantic one the share of pixels with the same label."""


@dataclass(slots=True)
class Written:
    """What was written. kinds: role -> how many products and convolutions run on codes, of all.
    agreement: with the simulated network; wanted: what it has to be. entries: of the card.
    convolutions: where their input is quantized. in_doubles: all sums in double precision.
    scores: of the network with its biases in whole units, as a file in integers has them; empty
    where the file has them as the simulated network has.
    """

    entries: list[FileEntry] = field(default_factory=list)
    kinds: dict[str, dict[str, int]] = field(default_factory=dict)
    agreement: float = 0.0
    wanted: float = AGREEMENT
    convolutions: str = ""
    in_doubles: bool = False
    scores: dict[str, float] = field(default_factory=dict)


class About(TypedDict):
    """Of a card."""

    summary: str
    source: str
    training: str


def about(subject: str, name: str, ledger: Ledger) -> About:
    """The sentences of a card that say where a network comes from."""
    return {
        "summary": f"{name}, compressed by recipe {ledger.recipe}",
        "source": f"edgeperc compress {subject} --recipe {ledger.recipe}",
        "training": f"compressed: {ledger.samples} samples ({ledger.source}), seed {ledger.seed}",
    }
