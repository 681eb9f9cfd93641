"""A compressed network as a model folder that the daemon runs, whole or not there.

    write(ctx, ledger, Path("out/w8a8"), exact=net_before)

Beside card and graphs lie quant.json (what stands at each site, and how it is stored), ledger.json
(what each pass did), report.md with its picture, and SHA256SUMS. All is written to a folder beside
and renamed at the end. What the graphs are is in a module for each kind of network: `Kind`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from edgeperc.errors import ModelError
from edgeperc.offline.compress import report
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.kinds import Kind, kind_of
from edgeperc.offline.compress.ledger import Ledger
from edgeperc.offline.compress.quantize import described
from edgeperc.offline.compress.report_sites import stored_as
from edgeperc.offline.compress.simulate import Simulated
from edgeperc.offline.compress.written import AGREEMENT, Written
from edgeperc.offline.export import file_entry, new_folder, one_thread, to_toml

OPSET = 21
MOVED = 1e-6
"""Share by which values move: a few roundings of float32."""


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
    time_it: also against the file in full precision, by turns in two processes. min_agreement: see
    `AGREEMENT`.

    Raises ModelError if the files answer otherwise than the simulated network, or the folder cannot
    be written; nothing is left of it then.
    """
    ctx.sim.check()
    kind = kind_of(ctx.subject)
    card = kind.card_of(ctx, ledger)
    with one_thread(), torch.no_grad(), new_folder(folder) as scratch:
        written = kind.write_files(ctx, card, scratch, opset=opset, wanted=min_agreement)
        _refuse_other(ctx, kind, written)
        if written.scores:
            ledger.scores["compressed"] = written.scores
        _json(scratch / "quant.json", quant_table(ctx, ledger, written, opset))
        _json(scratch / "ledger.json", ledger.as_json())
        report.write(ctx, ledger, written, scratch, exact=exact, time_it=time_it)
        complete = msgspec.structs.replace(card, files=tuple(written.entries))
        _sums(scratch)
        (scratch / "model.toml").write_text(to_toml(complete), encoding="utf-8")
    return written


def _refuse_other(ctx: Context, kind: Kind, written: Written) -> None:
    """Raises ModelError for files that answer otherwise than the simulated network."""
    if written.agreement >= written.wanted:
        return
    raise ModelError(
        f"the files answer otherwise than the simulated network: {kind.MEASURE} "
        f"{written.agreement:.4f}, {written.wanted:g} is asked for",
        hint=f"the simulated network agrees with itself by {steadiness(ctx):.4f} where all that it "
        "rounds moves by a millionth; more bits, or say what you accept: min_agreement in "
        "[accept] of the recipe",
    )


@torch.no_grad()
def steadiness(ctx: Context) -> float:
    """Agreement of a simulated network with itself where every value before a grid moves by
    `MOVED` of itself, at random.

    With few bits this is far below 1: sums in another order turn roundings over, here as in a file.
    The picture alone says little, since norms take its scale out again.
    """
    kind, run = kind_of(ctx.subject), ctx.subject.run
    generator = torch.Generator().manual_seed(ctx.seed)

    def move(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        noise = torch.randn(args[0].shape, generator=generator)
        return (args[0] * (1 + MOVED * noise), *args[1:])

    exact = [run(ctx.net, sample) for sample in ctx.held_out]
    grids = [q for key, q in ctx.sim.quantizers.items() if not key.endswith(":weight")]
    hooks = [q.register_forward_pre_hook(move) for q in grids]
    try:
        moved = [run(ctx.net, sample) for sample in ctx.held_out]
    finally:
        for hook in hooks:
            hook.remove()
    counts = [kind.alike(*each) for each in zip(exact, moved, ctx.held_out, strict=True)]
    same, total = (sum(each) for each in zip((0, 0), *counts, strict=True))
    return same / total if total else 1.0


def quant_table(ctx: Context, ledger: Ledger, written: Written, opset: int) -> dict[str, Any]:
    """What stands where, for quant.json; the same recipe, seed and samples give the same."""
    sites = {name: described(ctx, name) for name in ctx.sim.sites}
    integers = any(each["in integers"] for each in written.kinds.values())
    for grid in (grid for site in sites.values() for grid in site.values()):
        grid["export"] = stored_as(grid["export"], integers=integers)
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
        "sums": "double precision" if written.in_doubles else "integers or single precision",
        "labels": labels(ctx.sim, integers=integers),
        "sites": {name: found for name, found in sites.items() if found},
    }


def labels(sim: Simulated, *, integers: bool = True) -> dict[str, int]:
    """How many quantizers run with integers, are stored in int8 alone, or are for accuracy only."""
    counts: dict[str, int] = {}
    for q in sim.quantizers.values():
        label = stored_as(q.export, integers=integers)
        counts[label] = counts.get(label, 0) + 1
    return counts


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
