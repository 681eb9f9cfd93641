"""The files of a compressed SAM, SAM 2 or network of their parts, for `artifact`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeperc import masks
from edgeperc.config import Input, ModelCard, PromptTable
from edgeperc.inference.session import Session
from edgeperc.offline.compress.adapters import Sample, Subject
from edgeperc.offline.compress.adapters.prompts import MEAN, STD
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.doubles import Doubles
from edgeperc.offline.compress.export_qdq import prepared
from edgeperc.offline.compress.graph import tensorrt
from edgeperc.offline.compress.graph.doubles import in_doubles
from edgeperc.offline.compress.graph.editing import Graph
from edgeperc.offline.compress.graph.weights import Rows
from edgeperc.offline.compress.int8_graph import (
    KINDS,
    TRACED_OPSET,
    in_integers,
    observed,
    with_opset,
)
from edgeperc.offline.compress.ledger import Ledger
from edgeperc.offline.compress.written import Written, about
from edgeperc.offline.drawn_prompts import ABSENT, FOREGROUND
from edgeperc.offline.export import file_entry
from edgeperc.offline.golden import golden
from edgeperc.offline.nets.sam import Sam
from edgeperc.offline.nets.sam2 import Sam2
from edgeperc.offline.onnx_part import Part, traced, write_part
from edgeperc.offline.prompt_parts import constants, parts, written_out
from edgeperc.packet import Stamp
from edgeperc.picture import LONGEST, STRETCH
from edgeperc.render.drawing import draw
from edgeperc.result import Instances, ModelRef

OBSERVED = 8
"""Samples by which the range of what a convolution gives is chosen."""
COMPRESSED = ("encoder", "decoder")
"""Roles whose graphs are put into integers; the memory stays as it is."""
TIMED = "encoder"
MEASURE = "masks overlap by"
DRAWN = 4
"""Masks of a picture in the report."""


def card_of(ctx: Context, ledger: Ledger) -> ModelCard:
    """The card of a compressed promptable network."""
    net = cast("Sam | Sam2", ctx.subject.net)
    side = net.config.picture_px
    represent = STRETCH if isinstance(net, Sam2) else LONGEST
    return ModelCard(
        name=f"{net.config.name}-{ledger.recipe}",
        task="promptable",
        licence="as the network that it was made of",
        classes=(),
        input=Input(
            kind="frame",
            represent=represent,
            width_px=side,
            height_px=side,
            mean=MEAN,
            std=STD,
        ),
        prompt=table_of(net),
        **about(ctx.subject.name, net.config.name, ledger),
    )


def table_of(net: Sam | Sam2) -> PromptTable:
    """[prompt] of a network's card."""
    side = net.config.picture_px
    if isinstance(net, Sam):
        return PromptTable(kind="image", picture_px=side)
    frames, pointers = net.config.memory_frames, net.config.max_pointers
    return PromptTable(kind="video", picture_px=side, memory_frames=frames, max_pointers=pointers)


def write_files(
    ctx: Context, card: ModelCard, folder: Path, *, opset: int, wanted: float
) -> Written:
    """Write all graphs, constants and the golden answers into a folder.

    In integers and single precision; if the files do not agree so, in double precision.
    """
    written = _written(ctx, card, folder, opset=opset, wanted=wanted, doubles=False)
    if written.agreement < wanted and ctx.target == "onnxruntime":
        written = _written(ctx, card, folder, opset=opset, wanted=wanted, doubles=True)
    return written


def _written(
    ctx: Context, card: ModelCard, folder: Path, *, opset: int, wanted: float, doubles: bool
) -> Written:
    whole = not doubles
    with prepared(ctx.sim.net, whole_biases=whole) as (net, rows), written_out(net):
        network = cast("Sam | Sam2", net)
        if doubles:
            written = _in_doubles(ctx, network, card, rows, folder, opset, wanted)
        else:
            written = _graphs(ctx, network, card, rows, folder, opset, wanted)
        with Doubles() if doubles else nullcontext():
            answers = golden(card, network)
        if not doubles and written.agreement >= wanted:
            with Doubles():
                written.scores = ctx.subject.score(network, ctx.held_out)
        for role, arrays in (
            ("constants", constants(network, _table(card))),
            ("golden", answers),
        ):
            if arrays:
                np.savez_compressed(folder / f"{role}.npz", **cast(Any, arrays))
                written.entries.append(file_entry(folder / f"{role}.npz", role))
    return written


def alike(exact: dict[str, Tensor], answer: dict[str, Tensor], sample: Sample) -> tuple[int, int]:
    """Pixels of the masks that a user gets that are in full precision's too, of those in either."""
    both = either = 0
    for index in range(len(sample["points"])):
        which = _chosen(exact, sample, index)
        wanted, found = exact["masks"][index, which] > 0, answer["masks"][index, which] > 0
        both += int((found & wanted).sum())
        either += int((found | wanted).sum())
    return both, either


def write_exact(exact: nn.Module, folder: Path, samples: Sequence[Sample]) -> dict[str, int]:
    """Write encoder and decoder of the network as it was; their sizes in bytes by role."""
    net = cast("Sam | Sam2", exact)
    sizes = {}
    with written_out(net):
        for part in parts(net, table_of(net)):
            if part.role not in COMPRESSED:
                break
            sizes[part.role] = write_part(part, folder)[0].bytes
    return sizes


@torch.no_grad()
def drawn(ctx: Context, nets: Mapping[str, nn.Module], sample: Sample) -> NDArray[np.uint8]:
    """The masks of several networks beside each other, (H, W, 3) RGB."""
    return np.concatenate([_masks(ctx, net, sample) for net in nets.values()], axis=1)


def agreement(
    subject: Subject, net: Sam | Sam2, card: ModelCard, folder: Path, samples: list[Sample]
) -> float:
    """IoU of the masks that a user gets from the files and from the network, over all pixels."""
    table = _table(card)
    encoder = Session(folder / "encoder.onnx", threads=1)
    decoder = Session(folder / "decoder.onnx", threads=1)
    both = either = 0
    for sample in samples:
        features = encoder.run(sample["picture"].numpy())
        embedding = torch.from_numpy(features[0])
        if isinstance(net, Sam2):
            embedding = net.without_memory(embedding)
        exact = subject.run(net, sample)
        for index in range(len(sample["points"])):
            points, labels = _padded(sample, index, table.points)
            grid = embedding.shape[-1]
            logits = decoder.run(
                embedding.numpy(),
                *features[1:],
                points.numpy(),
                labels.numpy(),
                np.zeros((1, 1, 4 * grid, 4 * grid), np.float32),
                np.zeros(1, np.float32),
            )[0]
            which = _chosen(exact, sample, index)
            found, wanted = logits[0, which] > 0, exact["masks"][index, which].numpy() > 0
            both += int((found & wanted).sum())
            either += int((found | wanted).sum())
    return both / either if either else 1.0


def _padded(sample: Sample, index: int, count: int) -> tuple[Tensor, Tensor]:
    """One prompt with as many tokens as the file takes."""
    points = torch.zeros(1, count, 2)
    labels = torch.full((1, count), float(ABSENT))
    given = sample["points"].shape[1]
    points[0, :given] = sample["points"][index]
    labels[0, :given] = sample["labels"][index].to(torch.float32)
    return points, labels


def _graphs(
    ctx: Context,
    net: Sam | Sam2,
    card: ModelCard,
    rows: Rows,
    folder: Path,
    opset: int,
    wanted: float,
) -> Written:
    """All graphs: with convolutions in integers if the files agree so, else with these in float.

    What a convolution in integers gives is rounded once more, and so is what is multiplied by
    weights of 4 bits. Unless the simulation rounds it too (`conv_out`), it may be too much.
    """
    for_engine = ctx.target == "tensorrt"
    drafts = {
        part.role: traced(part, folder, opset=tensorrt.OPSET if for_engine else TRACED_OPSET)[0]
        for part in _looked_at(net, card, ctx.held_out)
    }
    pictures = [{"picture": sample["picture"].numpy()} for sample in ctx.samples[:OBSERVED]]
    ranges = {} if for_engine else observed(drafts["encoder"], pictures)
    simulated = any(key.endswith(":output") for key in ctx.sim.quantizers)
    written = Written(wanted=wanted)
    for seen in (ranges, {}):
        convolutions = "in integers" if seen or simulated or for_engine else "in float"
        written = Written(wanted=wanted, convolutions=convolutions)
        for role, draft in drafts.items():
            model = onnx.ModelProto()
            model.CopyFrom(draft)
            if role in COMPRESSED and for_engine:
                model, written.kinds[role] = tensorrt.for_tensorrt(model, rows)
            elif role in COMPRESSED:
                own = seen if role == "encoder" else {}
                model, written.kinds[role] = in_integers(model, rows, own, rounded=bool(seen))
            path = folder / f"{role}.onnx"
            onnx.save(with_opset(model, opset), str(path))
            written.entries.append(file_entry(path, role))
        with Doubles():
            written.agreement = agreement(ctx.subject, net, card, folder, ctx.held_out)
        if written.agreement >= wanted:
            break
    return written


def _in_doubles(
    ctx: Context,
    net: Sam | Sam2,
    card: ModelCard,
    rows: Rows,
    folder: Path,
    opset: int,
    wanted: float,
) -> Written:
    """All graphs, encoder and decoder with sums in double precision, held to the network itself."""
    written = Written(wanted=wanted, convolutions="in double precision", in_doubles=True)
    for part in _looked_at(net, card, ctx.held_out):
        model = traced(part, folder, opset=TRACED_OPSET)[0]
        if part.role in COMPRESSED:
            graph = Graph(model)
            counts = {"products": len(graph.all(*KINDS)), "in integers": 0, "in 4 bits": 0}
            written.kinds[part.role] = counts
            in_doubles(graph, rows)
            model = graph.close()
        path = folder / f"{part.role}.onnx"
        onnx.save(with_opset(model, opset), str(path))
        written.entries.append(file_entry(path, part.role))
    simulated = cast("Sam | Sam2", ctx.sim.net)
    with Doubles(), written_out(simulated):
        written.agreement = agreement(ctx.subject, simulated, card, folder, ctx.held_out)
    return written


def _chosen(answers: dict[str, Tensor], sample: Sample, index: int) -> int:
    """The mask that a user gets: for a click that of 1 to 3 which is rated best, for a box 0."""
    clicked = int(sample["labels"][index, 0]) == FOREGROUND
    return 1 + int(answers["ious"][index, 1:].argmax()) if clicked else 0


def _looked_at(net: Sam | Sam2, card: ModelCard, samples: list[Sample]) -> Iterator[Part]:
    """The parts, with a held-out picture in place of noise for the encoder."""
    for part in parts(net, _table(card)):
        if part.role == "encoder" and samples:
            part.inputs["picture"].copy_(samples[0]["picture"])
        yield part


def _table(card: ModelCard) -> PromptTable:
    assert card.prompt is not None
    return card.prompt


def _masks(ctx: Context, net: nn.Module, sample: Sample) -> NDArray[np.uint8]:
    """A picture with the masks that a user gets for its first prompts, the largest below."""
    mean, std = np.array(MEAN), np.array(STD)
    picture = sample["picture"][0].permute(1, 2, 0).numpy() * std + mean
    image = np.ascontiguousarray(np.clip(picture, 0, 255).astype(np.uint8))
    height, width = image.shape[:2]
    answers = ctx.subject.run(net, sample)
    found = []
    for index in range(min(DRAWN, len(answers["masks"]))):
        which = _chosen(answers, sample, index)
        mask = cv2.resize(answers["masks"][index, which].numpy(), (width, height)) > 0
        found.append((index, masks.encode(mask), float(answers["ious"][index, which])))
    found.sort(key=lambda each: -masks.area(each[1]))
    rles = tuple(rle for _, rle, _ in found)
    instances = Instances(
        stamp=Stamp(source="held out", seq=0, start_ns=0, end_ns=0),
        ids=np.array([index for index, _, _ in found], np.int64),
        masks=rles,
        boxes=np.stack([masks.box(rle) for rle in rles]),
        scores=np.array([score for _, _, score in found], np.float32),
        visible=np.ones(len(found), np.float32),
        picture_px=(width, height),
        model=ModelRef(name=ctx.subject.name),
    )
    return draw(image, [instances])
