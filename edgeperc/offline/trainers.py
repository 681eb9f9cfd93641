"""What can be trained here, and by which module each is trained and exported."""

from __future__ import annotations

from inspect import Parameter, signature
from pathlib import Path
from typing import Any, Protocol

from edgeperc.config import ModelCard
from edgeperc.errors import ConfigError
from edgeperc.offline import export as sltnet_export
from edgeperc.offline import (
    export_efficient,
    export_finder,
    export_fusion,
    train_bypass,
    train_finder,
    train_fusion,
    train_promptable,
)
from edgeperc.offline import train as train_sltnet

TRAINERS = {
    **dict.fromkeys(train_sltnet.SETTINGS, train_sltnet),
    **dict.fromkeys(train_finder.SETTINGS, train_finder),
    **dict.fromkeys(train_fusion.SETTINGS, train_fusion),
    **dict.fromkeys(train_promptable.SETTINGS, train_promptable),
    **dict.fromkeys(train_bypass.SETTINGS, train_bypass),
}
"""Name of a model -> module with `train`."""


class Report(Protocol):
    """What an export did."""

    def summary(self) -> str:
        """A few lines for the terminal."""


def train(
    name: str,
    out_dir: Path,
    *,
    data: Path | None = None,
    weights: Path | None = None,
    **options: Any,
) -> Any:
    """Train a network by its name; see `train` of its module.

    data: folder of recorded data, for those that learn from any. weights: of a trained network, for
    what is added to one. Raises ConfigError for an unknown name, or data or weights that are
    missing or not wanted.
    """
    if name not in TRAINERS:
        raise ConfigError(f"cannot train '{name}'", hint=f"can train: {', '.join(TRAINERS)}")
    taken = signature(TRAINERS[name].train).parameters
    wants_data = "data" in taken
    needs_data = wants_data and taken["data"].default is Parameter.empty
    if (needs_data and data is None) or (wants_data and data is not None and not data.is_dir()):
        raise ConfigError(
            f"'{name}' learns from recorded pictures: {data or '--data'} is no folder",
            hint="--data FOLDER with bsds500, camvid and davis in it, any of them",
        )
    if data is not None and not wants_data:
        raise ConfigError(f"'{name}' learns from the twin alone", hint="leave out --data")
    if data is not None:
        options["data"] = data
    if weights is not None and "weights" not in taken:
        raise ConfigError(f"'{name}' builds on no other network", hint="leave out --weights")
    if weights is not None:
        options["weights"] = weights
    return TRAINERS[name].train(name, out_dir, **options)


def export_trained(card: ModelCard, weights: Path, out_dir: Path) -> Report:
    """Export what `train` wrote, by the kind of network that the card describes."""
    if card.task == "promptable":
        return export_efficient.export_trained(card, weights, out_dir)
    if card.frames is not None:
        return export_fusion.export_trained(card, weights, out_dir)
    if card.input.kind == "frame":
        return export_finder.export_trained(card, weights, out_dir)
    return sltnet_export.export_trained(card, weights, out_dir)
