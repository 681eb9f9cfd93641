"""From a file of weights to a subject."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgeperc.errors import ConfigError, ModelError
from edgeperc.offline.checkpoint import read_checkpoint
from edgeperc.offline.compress.adapters import Subject
from edgeperc.offline.compress.adapters.sam import SamSubject
from edgeperc.offline.compress.adapters.sam2 import Sam2Subject
from edgeperc.offline.compress.adapters.sltnet import SltnetSubject, folded
from edgeperc.offline.export_prompt import load_net
from edgeperc.offline.nets.sam import Sam
from edgeperc.offline.nets.sam2 import Sam2
from edgeperc.offline.nets.sam_variants import architectures, identify, load_published
from edgeperc.offline.nets.sltnet import SLTNet
from edgeperc.offline.nets.sltnet_keys import load_sltnet
from edgeperc.places import sha256


def subject_of(model: str, weights: Path | None) -> Subject:
    """See `open_subject`."""
    known = architectures()
    if weights is None and not Path(model).is_file():
        published = model in known
        raise ConfigError(
            f"'{model}' is no file of weights",
            hint=f"where are its weights? --weights FILE, of {model}"
            if published
            else f"give the file that `edgeperc train` wrote, or one of {', '.join(known)}",
        )
    if weights is not None and model in known:
        return subject_for(load_published(read_checkpoint(weights), model))
    path = weights or Path(model)
    name = path.stem if weights is None else model
    net = _network(path)
    return (
        folded(net, name, sha256(path)) if isinstance(net, SLTNet) else subject_for(net, name=name)
    )


def subject_for(net: nn.Module, *, name: str = "") -> Subject:
    """The subject of a network. name: of one that does not know its own. Raises ConfigError."""
    if isinstance(net, Sam2):
        return Sam2Subject(net)
    if isinstance(net, Sam):
        return SamSubject(net)
    if isinstance(net, SLTNet):
        return SltnetSubject(net, name=name or "sltnet")
    raise ConfigError(
        f"{type(net).__name__}: the toolbox knows no such network",
        hint="SAM, SAM 2 and SLTNet are in edgeperc/offline/compress/adapters",
    )


def _network(path: Path) -> nn.Module:
    if _is_trained(path):
        return load_net(path)
    weights = read_checkpoint(path)
    try:
        name = identify(weights.state)
    except ModelError:
        return load_sltnet(weights)
    return load_published(weights, name)


def _is_trained(path: Path) -> bool:
    """Whether `edgeperc train promptable` wrote it."""
    try:
        held: Any = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
        return False
    return isinstance(held, dict) and {"config", "net"} <= set(held)
