"""A compressed network as a model folder that the daemon runs, whole or not there.

    write(ctx, ledger, Path("out/w8a8"), exact=net_before)

Beside card and graphs lie quant.json (what stands at each site, and how it is stored), ledger.json
(what each pass did), report.md with its picture, and SHA256SUMS. All is written to a folder beside
and renamed at the end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import onnx
import torch
from torch import Tensor, nn

from edgeperc.config import FileEntry, Input, ModelCard, PromptTable
from edgeperc.errors import ModelError
from edgeperc.infer import Session
from edgeperc.offline.compress.adapters import Sample, Subject
from edgeperc.offline.compress.adapters.prompts import MEAN, STD
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.export_qdq import prepared
from edgeperc.offline.compress.graph.weights import Rows
from edgeperc.offline.compress.int8_graph import in_integers, observed, with_opset
from edgeperc.offline.compress.ledger import Ledger
from edgeperc.offline.compress.quantize import described
from edgeperc.offline.compress.simulate import Simulated
from edgeperc.offline.drawn_prompts import ABSENT, FOREGROUND
from edgeperc.offline.export import file_entry, new_folder, one_thread, to_toml
from edgeperc.offline.golden import golden
from edgeperc.offline.nets.sam import Sam
from edgeperc.offline.nets.sam2 import Sam2
from edgeperc.offline.onnx_part import Part, traced
from edgeperc.offline.prompt_parts import constants, parts, written_out
from edgeperc.picture import LONGEST, STRETCH

AGREEMENT = 0.99
"""Least IoU of what files and network answer to held-out prompts, over all pixels of the masks that
a user gets; less only where a recipe says so."""
OBSERVED = 8
"""Samples by which the range of what a convolution gives is chosen."""
TRACED_OPSET = 20
OPSET = 21
COMPRESSED = ("encoder", "decoder")
"""Roles whose graphs are put into integers; the memory stays as it is."""


@dataclass(slots=True)
class Written:
    """What was written. kinds: role -> how many products and convolutions run on codes, of all.
    agreement: IoU with the simulated network's masks; wanted: what it has to be. entries: of the
    card. convolutions: where their input is quantized.
    """

    entries: list[FileEntry] = field(default_factory=list)
    kinds: dict[str, dict[str, int]] = field(default_factory=dict)
    agreement: float = 0.0
    wanted: float = AGREEMENT
    convolutions: str = ""


def write(
    ctx: Context,
    ledger: Ledger,
    folder: Path,
    *,
    exact: nn.Module | None = None,
    opset: int = OPSET,
    time_it: bool = True,
    min_agreement: float = AGREEMENT,
) -> Written:
    """Write the artifact of a network whose recipe has run. exact: the network as it was before,
    for the report, which is shorter without.
    time_it: also against the encoder in full precision, by turns in two processes. min_agreement:
    see `AGREEMENT`.

    Raises ModelError if the files answer otherwise than the simulated network, or the folder cannot
    be written; nothing is left of it then.
    """
    from edgeperc.offline.compress import report

    ctx.sim.check()
    card = card_of(ctx, ledger)
    with one_thread(), torch.no_grad(), new_folder(folder) as scratch:
        with prepared(ctx.sim.net) as (net, rows), written_out(net):
            network = cast("Sam | Sam2", net)
            written = _graphs(ctx, network, card, rows, scratch, opset, min_agreement)
            for role, arrays in (
                ("constants", constants(network, _table(card))),
                ("golden", golden(card, network)),
            ):
                if arrays:
                    np.savez_compressed(scratch / f"{role}.npz", **cast(Any, arrays))
                    written.entries.append(file_entry(scratch / f"{role}.npz", role))
        if not written.agreement >= written.wanted:
            raise ModelError(
                f"the files answer otherwise than the simulated network: masks overlap by "
                f"{written.agreement:.4f}, {written.wanted:g} is asked for",
                hint="more bits; or say what you accept: min_agreement in [accept] of the recipe",
            )
        _json(scratch / "quant.json", quant_table(ctx, ledger, written, opset))
        _json(scratch / "ledger.json", ledger.as_json())
        report.write(ctx, ledger, written, scratch, exact=exact, time_it=time_it)
        complete = msgspec.structs.replace(card, files=tuple(written.entries))
        _sums(scratch)
        (scratch / "model.toml").write_text(to_toml(complete), encoding="utf-8")
    return written


def card_of(ctx: Context, ledger: Ledger) -> ModelCard:
    """The card of a compressed promptable network. Raises ModelError for others."""
    net = refuse_unwritable(ctx.subject)
    side, config = net.config.picture_px, net.config
    represent = STRETCH if isinstance(net, Sam2) else LONGEST
    return ModelCard(
        name=f"{config.name}-{ledger.recipe}",
        task="promptable",
        summary=f"{config.name}, compressed by recipe {ledger.recipe}",
        licence="as the network that it was made of",
        source=f"edgeperc compress {ctx.subject.name} --recipe {ledger.recipe}",
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
        training=f"compressed: {ledger.samples} samples ({ledger.source}), seed {ledger.seed}",
    )


def refuse_unwritable(subject: Subject) -> Sam | Sam2:
    """The network, if an artifact can be made of it: to be asked before any pass has run.

    Raises ModelError for networks that are not promptable.
    """
    if not isinstance(subject.net, Sam | Sam2):
        raise ModelError(
            f"{subject.name}: only promptable networks can be written as an artifact so far",
            hint="--dry-run shows what each site would get; see docs/compression.md",
        )
    return subject.net


def table_of(net: Sam | Sam2) -> PromptTable:
    """[prompt] of a network's card."""
    side = net.config.picture_px
    if isinstance(net, Sam):
        return PromptTable(kind="image", picture_px=side)
    frames, pointers = net.config.memory_frames, net.config.max_pointers
    return PromptTable(kind="video", picture_px=side, memory_frames=frames, max_pointers=pointers)


def quant_table(ctx: Context, ledger: Ledger, written: Written, opset: int) -> dict[str, Any]:
    """What stands where, for quant.json; the same recipe, seed and samples give the same."""
    sites = {name: described(ctx, name) for name in ctx.sim.sites}
    return {
        "model": ctx.subject.name,
        "recipe": ledger.recipe,
        "recipe_sha256": ledger.recipe_sha256,
        "seed": ledger.seed,
        "opset": opset,
        "agreement": round(written.agreement, 4),
        "agreement_wanted": written.wanted,
        "agreement_lowered_by_recipe": written.wanted < AGREEMENT,
        "runs_in_integers": written.kinds,
        "convolutions": written.convolutions,
        "labels": labels(ctx.sim),
        "sites": {name: found for name, found in sites.items() if found},
    }


def labels(sim: Simulated) -> dict[str, int]:
    """How many quantizers run with integers, are stored in int8 alone, or are for accuracy only."""
    counts: dict[str, int] = {}
    for q in sim.quantizers.values():
        counts[q.export] = counts.get(q.export, 0) + 1
    return counts


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
            masks = decoder.run(
                embedding.numpy(),
                *features[1:],
                points.numpy(),
                labels.numpy(),
                np.zeros((1, 1, 4 * grid, 4 * grid), np.float32),
                np.zeros(1, np.float32),
            )[0]
            which = _chosen(exact, sample, index)
            found, wanted = masks[0, which] > 0, exact["masks"][index, which].numpy() > 0
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

    What a convolution in integers gives is rounded once more, which the simulation knows nothing
    of: it may be too much.
    """
    drafts = {
        part.role: traced(part, folder, opset=TRACED_OPSET)[0]
        for part in _looked_at(net, card, ctx.held_out)
    }
    pictures = [{"picture": sample["picture"].numpy()} for sample in ctx.samples[:OBSERVED]]
    ranges = observed(drafts["encoder"], pictures)
    written = Written(wanted=wanted)
    for seen in (ranges, {}) if ranges else ({},):
        written = Written(wanted=wanted, convolutions="in integers" if seen else "in float")
        for role, draft in drafts.items():
            model = onnx.ModelProto()
            model.CopyFrom(draft)
            if role in COMPRESSED:
                own = seen if role == "encoder" else {}
                model, written.kinds[role] = in_integers(model, rows, own)
            path = folder / f"{role}.onnx"
            onnx.save(with_opset(model, opset), str(path))
            written.entries.append(file_entry(path, role))
        written.agreement = agreement(ctx.subject, net, card, folder, ctx.held_out)
        if written.agreement >= wanted:
            break
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


def _json(path: Path, table: dict[str, Any]) -> None:
    path.write_text(json.dumps(table, indent=1, default=str) + "\n", encoding="utf-8")


def _sums(folder: Path) -> None:
    """SHA256SUMS of all files, as sha256sum reads it."""
    lines = [
        f"{file_entry(path, '').sha256}  {path.name}"
        for path in sorted(folder.iterdir())
        if path.is_file()
    ]
    (folder / "SHA256SUMS").write_text("\n".join(lines) + "\n", encoding="utf-8")
