"""What each pass did to the network's answers, and what it took."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from rich.markup import escape
from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One pass. sites: how many it was for. error_before, error_after: of the answers on held-out
    samples, squared, as a share of theirs in full precision. kept: False where it was undone, and
    notes say why.
    """

    kind: str
    role: str
    at: tuple[str, ...]
    sites: int
    error_before: float
    error_after: float
    seconds: float
    kept: bool
    notes: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def error(self) -> float:
        """Of the network that was handed on."""
        return self.error_after if self.kept else self.error_before


@dataclass(slots=True)
class Ledger:
    """All passes of a run. recipe_sha256: of the recipe. scores: before and after all passes, by
    name of the state ("full precision", "compressed").
    """

    model: str
    recipe: str
    recipe_sha256: str
    seed: int
    source: str
    samples: int
    held_out: int
    rows: list[Row] = field(default_factory=list)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Plain values, for ledger.json."""
        return asdict(self)

    def table(self) -> Table:
        """For the terminal."""
        table = Table(box=None, pad_edge=False, title=escape(f"{self.model}, {self.recipe}"))
        table.title_justify = "left"
        for name in ("pass", "sites", "error before", "after", "seconds", ""):
            table.add_column(name, justify="left" if name in ("pass", "") else "right")
        for row in self.rows:
            table.add_row(
                escape(row.kind),
                str(row.sites),
                f"{row.error_before:.3g}",
                f"{row.error_after:.3g}",
                f"{row.seconds:.1f}",
                "kept" if row.kept else "[bold]reverted[/bold]",
            )
        return table

    def lines(self) -> list[str]:
        """What the table does not say: notes, warnings and scores."""
        lines = [f"{row.kind}: {note}" for row in self.rows for note in row.notes]
        lines += [f"warning: {warning}" for warning in self.warnings]
        for state, scores in self.scores.items():
            if scores:
                values = ", ".join(f"{name} {100 * value:.2f}" for name, value in scores.items())
                lines.append(f"{state}: {values}")
        return lines
