"""Write a folded SLTNet's weights as the arrays that `edgeperc.spiking` runs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeperc.config import FileEntry
from edgeperc.errors import ModelError
from edgeperc.offline.nets.sltnet_folded import (
    LMSB,
    FoldedSLTNet,
    Select,
    SpikingConv,
    SpikingConvTranspose,
    Stage,
    Transformer,
    Up,
)
from edgeperc.spiking.engine import FORMAT
from edgeperc.spiking.lanes import LANES
from edgeperc.spiking.spikes import WORD

Arrays = dict[str, NDArray[Any]]


def export_spiking(
    folded: FoldedSLTNet, out_dir: Path, name: str, height: int, width: int
) -> tuple[FileEntry, ...]:
    """Write `<name>.spiking.npz` for inputs of this size; pruned networks are welcome.

    Returns its [[files]] entry. Raises ModelError if the network does not suit the engine, which
    takes up to 32 time bins and 16 channels before the classifier; use the ONNX file then.
    """
    found = arrays(folded, height, width)
    bins, last = found["stem.0.weight"].shape[1], found["classifier.weight"].shape[1]
    if bins > WORD or last > LANES:
        raise ModelError(
            f"{bins} time bins and {last} channels before the classifier: the spiking engine takes "
            f"up to {WORD} and {LANES}",
            hint="run this network with engine = 'onnx'",
        )
    path = out_dir / f"{name}.spiking.npz"
    np.savez_compressed(path, **found)  # type: ignore[arg-type]
    content = path.read_bytes()
    return (
        FileEntry(
            path=path.name,
            role="spiking",
            sha256=hashlib.sha256(content).hexdigest(),
            bytes=len(content),
        ),
    )


@torch.no_grad()
def arrays(folded: FoldedSLTNet, height: int, width: int) -> Arrays:
    """The network by layer and parameter, float32; `edgeperc.spiking` says what reads them."""
    found: dict[str, Any] = {
        "format": FORMAT,
        "size": [height, width],
        **_under("attention", _conv(folded.attention.conv)),
        **_under("head", _neurons(folded.head)),
        **_under("classifier", _conv(folded.classifier)),
    }
    for i, conv in enumerate(folded.stem):
        found |= _under(f"stem.{i}", _conv(conv))
    for i, layer in enumerate(folded.transformers):
        found |= _under(f"transformers.{i}", _transformer(layer))
    for n in (1, 2, 3):
        found |= _under(f"stage{n}", _stage(folded.get_submodule(f"stage{n}")))
        found |= _under(f"skip{n}", _skip(folded.get_submodule(f"skip{n}")))
        found |= _under(f"up{n}", _up(folded.get_submodule(f"up{n}")))
    return {key: _array(value) for key, value in found.items()}


def _array(value: Any) -> NDArray[Any]:
    result = np.asarray(value.detach().numpy() if isinstance(value, Tensor) else value)
    return result.astype(np.float32) if result.dtype == np.float64 else result


def _under(name: str, part: dict[str, Any]) -> dict[str, Any]:
    return {f"{name}.{key}": value for key, value in part.items()}


def _conv(conv: Any) -> dict[str, Any]:
    return {"weight": conv.weight} | ({} if conv.bias is None else {"bias": conv.bias})


def _neurons(conv: SpikingConv) -> dict[str, Any]:
    return {"scale": conv.weight.flatten(), "shift": conv.get_parameter("bias")}


def _stage(stage: Any) -> dict[str, Any]:
    assert isinstance(stage, Stage)
    found = _under("conv", _conv(stage.conv))
    pool, pooled = _pool(stage)
    found["pooled"] = pooled
    if stage.fire is not None:
        found |= _under("fire", _neurons(stage.fire))
    else:
        # The convolution fires itself: its potentials are compared as they are.
        learnt = torch.ones(stage.conv.out_channels)
        found["fire.scale"] = torch.cat([learnt, pool[0]])
        found["fire.shift"] = torch.cat([0 * learnt, pool[1]])
    for i, block in enumerate(stage.blocks):
        found |= _under(f"blocks.{i}", _lmsb(block))
    return found


def _pool(stage: Stage) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Scale and shift of the pool's neurons, and which input channels it keeps."""
    channels = torch.arange(0 if stage.pool is None else stage.conv.in_channels)
    steps: Any = stage.pool if isinstance(stage.pool, nn.Sequential) else []
    scale, shift = torch.ones(len(channels)), torch.full((len(channels),), -0.5)
    for step in steps:
        if isinstance(step, Select):
            channels = channels[step.keep]
            scale, shift = scale[step.keep], shift[step.keep]
        elif isinstance(step, SpikingConv):
            scale, shift = step.weight.flatten(), step.get_parameter("bias")
        elif not isinstance(step, nn.MaxPool2d):
            raise TypeError(f"no spiking form of a {type(step).__name__} in a pool")
    return (scale, shift), channels


def _lmsb(block: Any) -> dict[str, Any]:
    assert isinstance(block, LMSB)
    steps: list[Any] = list(block.spikes)
    *select, entry, tall, wide = steps
    scale, shift, weight = entry.weight.flatten(), entry.bias, tall.weight
    if select:
        # Neurons that were taken out come back as ones that never fire and that nobody reads.
        (keep,) = (step.keep for step in select)
        channels = block.expand.out_channels
        scale, shift = _spread(scale, keep, channels, 0.0), _spread(shift, keep, channels, -1.0)
        weight = _spread(weight.transpose(0, 1), keep, channels, 0.0).transpose(0, 1)
    found: dict[str, Any] = {"fire.scale": scale, "fire.shift": shift}
    found |= _under("tall", {"weight": weight, "bias": tall.bias})
    found |= _under("wide", _conv(wide))
    for name, branch in (("near", block.near), ("far", block.far)):
        if branch is not None:
            found |= _under(name, _branch(branch))
    found |= _under("mix", _neurons(block.fire))
    return found | _under("expand", _conv(block.expand))


def _branch(branch: Any) -> dict[str, Any]:
    tall, wide, gate = branch
    return {
        **_under("tall", _conv(tall)),
        **_under("wide", _conv(wide)),
        "gate": gate.conv.weight.flatten(),
        "dilation": tall.dilation[0],
    }


def _spread(values: Tensor, keep: Tensor, size: int, elsewhere: float) -> Tensor:
    """`values` at the indices `keep` of a longer first axis."""
    result = values.new_full((size, *values.shape[1:]), elsewhere)
    result[keep] = values
    return result


def _transformer(layer: Any) -> dict[str, Any]:
    assert isinstance(layer, Transformer)
    width = layer.project.out_channels
    if isinstance(layer.fire1, SpikingConv):
        found = _under("fire1", _neurons(layer.fire1))
    else:  # it reads spikes, 0 or 1
        found = {"fire1.scale": torch.ones(width), "fire1.shift": torch.full((width,), -0.5)}
    for name in ("qkv", "project", "fc1", "fc2"):
        found |= _under(name, _conv(getattr(layer, name)))
    return found | _under("fire2", _neurons(layer.fire2))


def _skip(skip: Any) -> dict[str, Any]:
    tall, wide, enhance = skip
    found = _under("tall", _conv(tall)) | _under("wide", _conv(wide))
    found |= _under("pixel", _conv(enhance.pixel)) | _under("mix", _conv(enhance.mix))
    if enhance.channel is not None:
        squeeze, excite = enhance.channel
        found |= _under("squeeze", _conv(squeeze)) | _under("excite", _conv(excite))
    return found


def _up(up: Any) -> dict[str, Any]:
    assert isinstance(up, Up)
    found = _under("conv", _conv(up.conv))
    found["fires"] = isinstance(up.conv, SpikingConvTranspose)
    return found if up.block is None else found | _under("block", _lmsb(up.block))
