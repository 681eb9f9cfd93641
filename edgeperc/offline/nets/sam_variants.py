"""Which network of SAM's family a file of weights is, and loading it into ours, or why not.

    weights = read_checkpoint(Path("sam2.1_hiera_tiny.pt"))
    net = load_published(weights, "sam2.1-hiera-tiny")

What a file is shows in its weights alone: names tell the encoder; its width, its number of blocks
and the channels of its stages the size; two entries that only SAM 2.1 has the version.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from edgeperc.errors import ModelError
from edgeperc.offline.checkpoint import Weights
from edgeperc.offline.nets import sam, sam2
from edgeperc.offline.nets.sam import Sam, SamConfig
from edgeperc.offline.nets.sam2 import Sam2, Sam2Config

_FAMILIES = {
    "image_encoder.trunk.": "SAM 2",
    "image_encoder.patch_embed.seq.": "MobileSAM",
    "image_encoder.blocks.": "SAM",
}
"""Start of a name -> whose encoder has it."""

_STRANGERS = {
    "vision_encoder.": "has Hugging Face's names",
    "module.": "has the names of a training run on several devices",
    "detector.": "is of SAM 3",
}
"""Start of a name -> what files with it are, which are not read here."""

_ONLY_IN_21 = ("no_obj_embed_spatial", "obj_ptr_tpos_proj.weight")


@dataclass(frozen=True)
class Signature:
    """What tells one network from another. channels: of the encoder's stages, where it has any."""

    family: str
    embed: int
    blocks: int
    channels: tuple[int, ...] = ()
    version_21: bool = False

    def __str__(self) -> str:
        stages = f" in stages of {', '.join(map(str, self.channels))}" if self.channels else ""
        family = "SAM 2.1" if self.version_21 else self.family
        return f"{family} of width {self.embed} and {self.blocks} blocks{stages}"


def architectures() -> dict[str, SamConfig | Sam2Config]:
    """The published networks, by the names of their cards."""
    return {**sam.VARIANTS, **sam2.VARIANTS}


def identify(state: Mapping[str, Tensor]) -> str:
    """Name of the published network that a table of weights belongs to.

    Raises ModelError if it is none, with what was seen.
    """
    found = signature(state)
    for name, config in architectures().items():
        if _signature_of(config) == found:
            return name
    raise ModelError(
        f"the checkpoint is of {found}, which is none of the published networks",
        hint=f"known are {', '.join(architectures())}",
    )


def load_published(weights: Weights, name: str) -> Sam | Sam2:
    """The network `name` with the weights of a file, ready to answer.

    Raises ModelError, in one sentence, if the file is of another network, lacks an entry, has one
    too many, or one of another shape or with values that are not finite.
    """
    if name not in architectures():
        raise ModelError(
            f"unknown architecture '{name}'", hint=f"known are {', '.join(architectures())}"
        )
    config = architectures()[name]
    _refuse_other(weights.state, name, _signature_of(config))
    layout = _layout(config)
    _refuse_names([key for key in layout if key not in weights.state], "lacks")
    _refuse_names(sorted(weights.state.keys() - layout.keys()), "has unknown key")
    net = _network(config)
    state = {key: _fitting(key, weights.state[key], own) for key, own in layout.items()}
    net.load_state_dict(state, strict=True, assign=True)
    return net.eval()


def signature(state: Mapping[str, Tensor]) -> Signature:
    """What a table of weights shows of its network. Raises ModelError if it is of another kind."""
    found = (family for start, family in _FAMILIES.items() if _any(state, start))
    family = next(found, None)
    if family is None:
        raise _stranger(state)
    if family == "SAM":
        embed = _shape(state, "image_encoder.patch_embed.proj.weight")[0]
        return Signature(family, embed, _numbered(state, "image_encoder.blocks"))
    if family == "MobileSAM":
        embed = _shape(state, "image_encoder.patch_embed.seq.2.c.weight")[0]
        merged = [f"image_encoder.layers.{stage}.downsample.conv1.c.weight" for stage in range(3)]
        blocks = sum(_numbered(state, f"image_encoder.layers.{stage}.blocks") for stage in range(4))
        return Signature(family, embed, blocks, tuple(_shape(state, key)[0] for key in merged))
    embed = _shape(state, "image_encoder.trunk.patch_embed.proj.weight")[0]
    levels = range(_numbered(state, "image_encoder.neck.convs"))
    sides = [f"image_encoder.neck.convs.{level}.conv.weight" for level in levels]
    channels = tuple(_shape(state, key)[1] for key in sides)
    blocks = _numbered(state, "image_encoder.trunk.blocks")
    return Signature(family, embed, blocks, channels, _is_version_21(state))


def _is_version_21(state: Mapping[str, Tensor]) -> bool:
    there, lacking = (
        [key for key in _ONLY_IN_21 if (key in state) is wanted] for wanted in (True, False)
    )
    if there and lacking:
        raise ModelError(
            f"the checkpoint has {there[0]} but not {lacking[0]}: neither SAM 2 nor SAM 2.1"
        )
    return bool(there)


def _refuse_other(state: Mapping[str, Tensor], name: str, wanted: Signature) -> None:
    """Raise ModelError if these are weights of another network than the card's."""
    found = signature(state)
    if found == wanted:
        return
    other = identify(state)
    if replace(found, version_21=wanted.version_21) == wanted:
        versions = [f"SAM 2{'.1' * each.version_21}" for each in (found, wanted)]
        what = f"the checkpoint is of {versions[0]}, the card '{name}' is of {versions[1]}"
    else:
        what = f"the checkpoint is of {other}, the card is '{name}'"
    raise ModelError(what, hint=f"edgeperc models import {other} --checkpoint FILE")


def _refuse_names(keys: list[str], what: str) -> None:
    if keys:
        more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        raise ModelError(
            f"the checkpoint {what} {keys[0]}{more}",
            hint="download it again from where its card says; files that others trained may differ",
        )


def _fitting(key: str, values: Tensor, own: Tensor) -> Tensor:
    """An entry as ours keeps it. Raises ModelError for another shape, or what is not finite."""
    if values.shape != own.shape:
        raise ModelError(
            f"the checkpoint's {key} is {tuple(values.shape)}, must be {tuple(own.shape)}"
        )
    if not torch.isfinite(values).all():
        raise ModelError(f"the checkpoint's {key} holds values that are not finite")
    return values.to(own.dtype)


@cache
def _signature_of(config: SamConfig | Sam2Config) -> Signature:
    return signature(_layout(config))


def _layout(config: SamConfig | Sam2Config) -> dict[str, Tensor]:
    """Names and shapes of a network's weights, without any values."""
    with torch.device("meta"):
        return dict(_network(config).state_dict())


def _network(config: SamConfig | Sam2Config) -> Sam | Sam2:
    return Sam(config) if isinstance(config, SamConfig) else Sam2(config)


def _any(names: Iterable[str], start: str) -> bool:
    return any(name.startswith(start) for name in names)


def _numbered(names: Iterable[str], parent: str) -> int:
    """How many parts `parent.0`, `parent.1`, … there are."""
    part = re.compile(re.escape(parent) + r"\.(\d+)\.")
    return len({found[1] for name in names if (found := part.match(name))})


def _shape(state: Mapping[str, Tensor], key: str) -> tuple[int, ...]:
    """Shape of an entry that has two axes at least. Raises ModelError if it is not there."""
    if key not in state or state[key].dim() < 2:
        raise ModelError(f"the checkpoint lacks {key}, or it is no table")
    return tuple(state[key].shape)


def _stranger(state: Mapping[str, Tensor]) -> ModelError:
    told = next((what for start, what in _STRANGERS.items() if _any(state, start)), None)
    return ModelError(
        f"the checkpoint {told}"
        if told
        else f"the checkpoint, with {next(iter(state))}, is not "
        "of SAM, MobileSAM, SAM 2 or SAM 2.1",
        hint="take the file that its authors published: sam_vit_*.pth, mobile_sam.pt, sam2*.pt",
    )
