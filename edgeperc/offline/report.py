"""What an import did and how it was checked: for people (Markdown) and for programs (JSON)."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from edgeperc.config import FileEntry
from edgeperc.offline.prune import Removal


class Check(msgspec.Struct, frozen=True):
    """One kind of input and how far the outputs agree on it.

    folded_labels, onnx_labels: share of pixels with the label that the unfolded network gives.
    pruned_max_d: largest difference of a logit between the folded and the pruned network.
    """

    inputs: str
    folded_labels: float
    pruned_max_d: float
    onnx_labels: float
    onnx_max_d: float


class ImportReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that `report.json` holds.

    parameters: of the network as trained, folded, and pruned. silent: layer -> neurons that fired
    on no check input; they are kept, since that is no proof.
    """

    name: str
    checkpoint_sha256: str
    checkpoint_bytes: int
    recorded: dict[str, float]
    folded: tuple[str, ...]
    removed: tuple[Removal, ...]
    silent: dict[str, int]
    parameters: tuple[int, int, int]
    checks: tuple[Check, ...]
    nodes: int
    files: tuple[FileEntry, ...]
    warnings: tuple[str, ...] = ()

    def summary(self) -> str:
        """A few lines for the terminal."""
        network = self.files[0]
        worst = min(min(check.onnx_labels, check.folded_labels) for check in self.checks)
        blocks = sum(removal.what == "block" for removal in self.removed)
        neurons = sum(removal.neurons for removal in self.removed)
        lines = [f"warning: {text}" for text in self.warnings]
        lines += [
            f"removed {neurons:,} neurons that can never fire, {blocks} whole blocks among them",
            f"parameters: {self.parameters[0]:,} trained, {self.parameters[2]:,} left",
            f"{network.path}: {self.nodes} nodes, {network.bytes:,} bytes",
            f"labels equal to the unfolded network's: {worst:.4%} at worst "
            f"on {len(self.checks)} kinds of input",
        ]
        return "\n".join(lines)

    def markdown(self) -> str:
        """The whole report."""
        trained, folded, pruned = self.parameters
        recorded = ", ".join(f"{key} {value:.6g}" for key, value in self.recorded.items())
        return "\n".join(
            [
                f"# {self.name}: how the network was made from its checkpoint",
                "",
                *(f"> Warning: {text}" for text in self.warnings),
                f"Checkpoint: {self.checkpoint_bytes:,} bytes, sha256 `{self.checkpoint_sha256}`. "
                f"It records: {recorded or 'nothing'}.",
                "",
                "## Folded",
                *(f"- {text}" for text in self.folded),
                "",
                f"Parameters: {trained:,} as trained, {folded:,} folded (a RepConv becomes a dense "
                f"3 × 3), {pruned:,} after removal.",
                "",
                "## Removed",
                "Each of these neurons is proven silent: the ceiling is the highest potential "
                "that any of the group can reach on any input, rounding included; firing takes "
                "more than 0.",
                "",
                *_table(
                    ("where", "what", "neurons", "ceiling"),
                    ((r.place, r.what, r.neurons, f"{r.ceiling:.3g}") for r in self.removed),
                ),
                "",
                "## Silent so far, kept",
                "These fired on none of the inputs below, which proves nothing.",
                "",
                *_table(("layer", "neurons"), self.silent.items()),
                "",
                "## Checked",
                "Labels: share of pixels on which the folded, pruned network (in torch) and the "
                "ONNX file (in onnxruntime) agree with the unfolded one. Differences are of "
                "logits; one spike that rounding flips moves them by whole numbers.",
                "",
                *_table(
                    ("input", "labels, folded", "max d, pruned", "labels, ONNX", "max d, ONNX"),
                    (_cells(check) for check in self.checks),
                ),
                "",
                "## Files",
                f"The ONNX graph has {self.nodes} nodes.",
                "",
                *_table(
                    ("file", "role", "bytes", "sha256"),
                    ((f.path, f.role, f"{f.bytes:,}", f"`{f.sha256}`") for f in self.files),
                ),
                "",
            ]
        )


def _cells(check: Check) -> tuple[str, ...]:
    return (
        check.inputs,
        f"{check.folded_labels:.4%}",
        f"{check.pruned_max_d:.3g}",
        f"{check.onnx_labels:.4%}",
        f"{check.onnx_max_d:.3g}",
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> list[str]:
    body = [f"| {' | '.join(map(str, row))} |" for row in rows]
    if not body:
        return ["None."]
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *body]
