"""report.md of an artifact: full precision, plain rounding and this recipe, side by side.

Plain rounding, "round to nearest", is the recipe's own quantize passes and nothing else, each grid
from the least to the largest value. What was not measured is a dash, never an estimate.
"""

from __future__ import annotations

import copy
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from edgeperc.bench.onnx_pair import Timed, paired
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.doubles import Doubles
from edgeperc.offline.compress.kinds import kind_of
from edgeperc.offline.compress.ledger import Ledger
from edgeperc.offline.compress.quantize import quantize
from edgeperc.offline.compress.quantizers import make
from edgeperc.offline.compress.report_sites import (
    DASH,
    error_table,
    label_table,
    labels_by_group,
    site_errors,
    weight_errors,
)
from edgeperc.offline.compress.simulate import Simulated
from edgeperc.offline.compress.written import AGREEMENT, Written

NAMES = ("full precision", "round to nearest", "this recipe")
HEADING_PX = 24
PICTURES = 3


@dataclass(slots=True)
class Facts:
    """What the report shows. scores: by the names above. bytes: of encoder and decoder together."""

    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    timed: Timed | None = None
    site_errors: dict[str, float] = field(default_factory=dict)
    weight_errors: dict[str, float] = field(default_factory=dict)
    groups: dict[str, Counter[str]] = field(default_factory=dict)


def write(
    ctx: Context,
    ledger: Ledger,
    written: Written,
    folder: Path,
    *,
    exact: nn.Module | None = None,
    time_it: bool = True,
) -> Facts:
    """Write report.md and, where `exact` is given, masks.png into the folder of an artifact.

    exact: the network before any pass; without it sizes are not compared.
    """
    facts = Facts()
    facts.scores["full precision"] = ledger.scores.get("full precision", {})
    facts.scores["this recipe"] = ledger.scores.get("compressed", {})
    facts.site_errors = site_errors(ctx)
    facts.groups = labels_by_group(ctx.sim)
    if exact is not None:
        plain = round_to_nearest(ctx, ledger, exact)
        facts.scores["round to nearest"] = ctx.subject.score(plain.net, ctx.held_out)
        nets = dict(zip(NAMES, (exact, plain.net, ctx.net), strict=True))
        for name, net in nets.items():
            facts.scores[name] = {
                **facts.scores[name],
                "as full precision": likeness(ctx, exact, net),
            }
        facts.weight_errors = weight_errors(ctx, ledger, exact)
        _picture(ctx, nets, folder / "masks.png")
        _against_float(ctx, exact, folder, facts, time_it)
    text = markdown(ctx, ledger, written, facts)
    (folder / "report.md").write_text(text, encoding="utf-8")
    return facts


def round_to_nearest(ctx: Context, ledger: Ledger, exact: nn.Module) -> Simulated:
    """The network before any pass, quantized at the same sites with as many bits, and no more."""
    sim = Simulated(copy.deepcopy(exact))
    other = Context(
        subject=ctx.subject, sim=sim, samples=ctx.samples, held_out=ctx.held_out, seed=ctx.seed
    )
    for row in ledger.rows:
        if row.kind == "quantize":
            named = row.details.get("sites", {})
            at = [sim.sites[name] for name in named if name in sim.sites]
            quantize(other, at, **plainly(row.details.get("options", {})))
    sim.fold()
    return sim


def plainly(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a quantize pass with limits from least to largest, and uniform shares."""
    found = {"weight": "uniform8c", "act": "uniform8", "softmax": "none", **options}
    for name in ("weight", "act", "matmul"):
        if found.get(name, "none") not in ("none", None):
            found[name] = found[name].split("-")[0] + "-minmax"
    if found["softmax"] != "none":
        bits = 8 if found["act"] == "none" else make(found["act"], use="act").bits
        found["softmax"] = f"uniform{found.get('bits') or bits}-minmax"
    return found


@torch.no_grad()
def likeness(ctx: Context, exact: nn.Module, net: nn.Module) -> float:
    """Share of pixels that a network answers as in full precision, of the held-out samples."""
    kind = kind_of(ctx.subject)
    same = total = 0
    for sample in ctx.held_out:
        with Doubles():
            wanted, found = (ctx.subject.run(each, sample) for each in (exact, net))
        equal, of = kind.alike(wanted, found, sample)
        same, total = same + equal, total + of
    return same / total if total else 1.0


def markdown(ctx: Context, ledger: Ledger, written: Written, facts: Facts) -> str:
    """The report."""
    keys = list(dict.fromkeys(name for each in facts.scores.values() for name in each))
    head = ["", "bits", "MB", "ms", *keys]
    lines = [f"# {ledger.model}, recipe {ledger.recipe}", ""]
    lines += [_row(head), _row(["---"] * len(head))]
    bits = _bits(ctx.sim)
    for name in NAMES:
        scores = facts.scores.get(name, {})
        size = facts.bytes.get(name)
        lines.append(
            _row(
                [
                    name,
                    "32" if name == "full precision" else bits,
                    DASH if size is None else f"{size / 1e6:.2f}",
                    _latency(name, facts.timed),
                    *(f"{100 * scores[key]:.2f}" if key in scores else DASH for key in keys),
                ]
            )
        )
    lines += ["", *_notes(ledger, written, facts), ""]
    integers = any(each["in integers"] for each in written.kinds.values())
    lines += label_table(facts.groups, integers=integers)
    lines += error_table(facts.site_errors, facts.weight_errors)
    return "\n".join([*lines, ""])


def _notes(ledger: Ledger, written: Written, facts: Facts) -> list[str]:
    integers, in_4_bits = (
        ", ".join(f"{role} {counts[what]} of {counts['products']}" for role, counts in kinds)
        for what, kinds in (
            ("in integers", written.kinds.items()),
            ("in 4 bits", [each for each in written.kinds.items() if each[1]["in 4 bits"]]),
        )
    )
    notes = [
        f"- {ledger.samples} samples to calibrate with ({ledger.source}), {ledger.held_out} held "
        f"out; seed {ledger.seed}. Scores, in points, are of the held-out ones.",
        _agreement(written),
        f"- Products and convolutions on codes: {integers}. What is not is computed in float."
        f" Convolutions: {written.convolutions}.",
        f"- MB: {' and '.join(written.kinds)}. Plain rounding has the file size of the recipe. As"
        " full precision: of masks their IoU, of labels the share of equal pixels.",
    ]
    if written.in_doubles:
        notes.append(
            "- All sums are in double precision, rounded to float32 once, since in integers and"
            " single precision the files do not agree as asked: slow, for accuracy only."
        )
    if in_4_bits:
        notes.append(f"- Products of floats with weights stored in 4 bits: {in_4_bits}.")
    if facts.timed:
        notes.append(
            f"- ms: of the {next(iter(written.kinds))}, {facts.timed.speedup:.2f} times as fast as"
            f" in full precision, here, onnx"
            f"runtime's CPU provider, one thread, processor time, by turns in two processes; load "
            f"{facts.timed.load:.1f}, the same file took up to {100 * facts.timed.uneven:.0f} % "
            f"longer or shorter the second time."
        )
    notes += [f"- {line}" for line in ledger.lines()]
    return notes


def _agreement(written: Written) -> str:
    asked = f"{written.wanted:.4g} is asked for"
    if written.wanted < AGREEMENT:
        asked = f"the recipe's min_agreement of {written.wanted:g} is in place of {AGREEMENT:g}"
    return f"- Agreement of the files with the simulated network: {written.agreement:.4f}; {asked}."


def _latency(name: str, timed: Timed | None) -> str:
    if timed is None or name == "round to nearest":
        return DASH
    return f"{timed.before_ms if name == 'full precision' else timed.after_ms:.1f}"


def _bits(sim: Simulated) -> str:
    counts: dict[str, list[int]] = {}
    for key, q in sim.quantizers.items():
        counts.setdefault("W" if key.endswith(":weight") else "A", []).append(q.bits)
    return " ".join(f"{letter}{_span(bits)}" for letter, bits in sorted(counts.items())[::-1])


def _span(bits: list[int]) -> str:
    return str(min(bits)) if min(bits) == max(bits) else f"{min(bits)}-{max(bits)}"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _against_float(ctx: Context, exact: Any, folder: Path, facts: Facts, time_it: bool) -> None:
    """Size and speed of encoder and decoder as they are without compression."""
    kind = kind_of(ctx.subject)
    with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
        sizes = kind.write_exact(exact, Path(scratch), ctx.held_out)
        facts.bytes["full precision"] = sum(sizes.values())
        facts.bytes["this recipe"] = sum((folder / f"{role}.onnx").stat().st_size for role in sizes)
        if time_it:
            name = f"{kind.TIMED}.onnx"
            facts.timed = paired(Path(scratch) / name, folder / name)


def _picture(ctx: Context, nets: Mapping[str, nn.Module], path: Path) -> None:
    """Some held-out pictures below each other; in each row the masks of the three networks."""
    kind = kind_of(ctx.subject)
    rows = [kind.drawn(ctx, nets, sample) for sample in ctx.held_out[:PICTURES]]
    heading = np.full((HEADING_PX, rows[0].shape[1], 3), 255, np.uint8)
    for column, name in enumerate(nets):
        place = (column * rows[0].shape[1] // len(nets) + 6, HEADING_PX - 7)
        cv2.putText(heading, name, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    rows.insert(0, heading)
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))
