"""What can be trained here, and by which module each is trained and exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from edgeperc.config import ModelCard
from edgeperc.errors import ConfigError
from edgeperc.offline import export as sltnet_export
from edgeperc.offline import export_finder, train_finder
from edgeperc.offline import train as train_sltnet

TRAINERS = {
    **dict.fromkeys(train_sltnet.SETTINGS, train_sltnet),
    **dict.fromkeys(train_finder.SETTINGS, train_finder),
}
"""Name of a model -> module with `train`."""


class Report(Protocol):
    """What an export did."""

    def summary(self) -> str:
        """A few lines for the terminal."""


def train(name: str, out_dir: Path, **options: Any) -> Any:
    """Train a network by its name; see `train` of its module. Raises ConfigError for no name."""
    if name not in TRAINERS:
        raise ConfigError(f"cannot train '{name}'", hint=f"can train: {', '.join(TRAINERS)}")
    return TRAINERS[name].train(name, out_dir, **options)


def export_trained(card: ModelCard, weights: Path, out_dir: Path) -> Report:
    """Export what `train` wrote, by the kind of network that the card describes."""
    if card.input.kind == "frame":
        return export_finder.export_trained(card, weights, out_dir)
    return sltnet_export.export_trained(card, weights, out_dir)
