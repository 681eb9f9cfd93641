"""The file of a compressed SLTNet, folded for inference, for `artifact`.

Weights are stored as int8 and computed with as floats, which makes the file small and no faster:
neurons stay comparisons with zero (`Greater`) in float32. A spike is 0 or 1, which every grid
holds exactly; what a weight's rounding moves are the potentials, and a spike that turns over there
is one in the file and in the simulated network alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeperc.config import ModelCard
from edgeperc.errors import ModelError
from edgeperc.inference.session import Session
from edgeperc.offline.compress.adapters import Sample
from edgeperc.offline.compress.adapters.sltnet import SltnetSubject
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.export_qdq import prepared
from edgeperc.offline.compress.int8_graph import TRACED_OPSET, in_integers, with_opset
from edgeperc.offline.compress.ledger import Ledger
from edgeperc.offline.compress.written import Written, about
from edgeperc.offline.export import export_onnx, file_entry
from edgeperc.offline.onnx_part import Part, traced
from edgeperc.packet import Stamp
from edgeperc.render.drawing import draw
from edgeperc.result import LabelMap, ModelRef

TIMED = "network"
MEASURE = "as many pixels get the same label:"


def card_of(ctx: Context, ledger: Ledger) -> ModelCard:
    """The card of the network that was compressed, with its classes and input."""
    card = _subject(ctx).card
    assert card is not None  # `artifact.kind_of` refuses those without
    return msgspec.structs.replace(
        card,
        name=f"{card.name}-{ledger.recipe}",
        files=(),
        checkpoint=None,
        accuracy=(),
        **about(ctx.subject.name, card.name, ledger),
    )


def write_files(
    ctx: Context, card: ModelCard, folder: Path, *, opset: int, wanted: float
) -> Written:
    """Write the network, and compare its labels with those of the simulated one."""
    voxel = torch.zeros(1, _subject(ctx).bins, *_subject(ctx).picture_px)
    path = folder / "network.onnx"
    with prepared(ctx.sim.net) as (net, rows):
        part = Part(role="network", net=net, inputs={"voxel": voxel}, outputs=("logits",))
        model, counts = in_integers(traced(part, folder, opset=TRACED_OPSET)[0], rows)
    onnx.save(with_opset(model, opset), str(path))
    return Written(
        entries=[file_entry(path, "network")],
        kinds={"network": {**counts, "in integers": 0}},  # convolutions, whose sums stay floats
        agreement=agreement(ctx.net, path, ctx.held_out),
        wanted=wanted,
        convolutions="in float",
    )


def agreement(net: nn.Module, path: Path, samples: Sequence[Sample]) -> float:
    """Share of pixels that a file and a network give the same label."""
    session = Session(path, threads=1)
    same = total = 0
    for sample in samples:
        (logits,) = session.run(sample["voxel"].numpy())
        equal = torch.from_numpy(logits[0].argmax(0)) == _labels(net, sample)
        same, total = same + int(equal.sum()), total + equal.numel()
    return same / total if total else 1.0


def write_exact(exact: nn.Module, folder: Path, samples: Sequence[Sample]) -> dict[str, int]:
    """Write the network as `edgeperc models import` does; its size in bytes by role."""
    net: Any = exact
    path = folder / "network.onnx"
    export_onnx(net, path, *samples[0]["voxel"].shape[-2:])
    return {"network": path.stat().st_size}


def alike(exact: dict[str, Tensor], answer: dict[str, Tensor], sample: Sample) -> tuple[int, int]:
    """How many pixels have the label of full precision, of how many."""
    equal = exact["masks"].argmax(1) == answer["masks"].argmax(1)
    return int(equal.sum()), equal.numel()


def drawn(ctx: Context, nets: Mapping[str, nn.Module], sample: Sample) -> NDArray[np.uint8]:
    """The labels of several networks beside each other, over where events were, (H, W, 3) RGB."""
    seen = sample["voxel"][0].abs().sum(0).numpy() > 0
    grey = np.repeat(np.where(seen, 255, 96).astype(np.uint8)[..., None], 3, axis=2)
    card = _subject(ctx).card
    classes = card.classes if card else ()
    stamp = Stamp(source="held out", seq=0, start_ns=0, end_ns=0)
    pictures = []
    for name, net in nets.items():
        found = LabelMap(
            stamp=stamp,
            labels=_labels(net, sample).numpy().astype(np.uint8),
            classes=classes,
            model=ModelRef(name=name),
        )
        pictures.append(draw(grey, [found]))
    return np.concatenate(pictures, axis=1)


@torch.no_grad()
def _labels(net: nn.Module, sample: Sample) -> Tensor:
    logits: Tensor = net(sample["voxel"])[0]
    return logits.argmax(0)


def _subject(ctx: Context) -> SltnetSubject:
    if not isinstance(ctx.subject, SltnetSubject):
        raise ModelError(f"{ctx.subject.name}: is no network for events")
    return ctx.subject
