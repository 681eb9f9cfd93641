"""The suites, and how their figures are shown and written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from edgeperc.bench import (
    calibration,
    compress,
    compress_accuracy,
    events,
    faults,
    fusion,
    fusion_accuracy,
    machine,
    processes,
    sam,
    search,
    serve,
    soak,
)
from edgeperc.bench.figures import Figures
from edgeperc.errors import ConfigError

SUITES: dict[str, Callable[..., None]] = {
    "calibration": calibration.measure,
    "compress-accuracy": compress_accuracy.measure,
    "events": events.measure,
    "faults": faults.measure,
    "fusion": fusion.measure,
    "fusion-accuracy": fusion_accuracy.measure,
    "processes": processes.measure,
    "sam": sam.measure,
    "compress": compress.measure,
    "search": search.measure,
    "serve": serve.measure,
    "soak": soak.measure,
}
"""Name -> function that fills Figures; it takes them, a recording or None, and its settings."""


def run(
    suite: str,
    json_path: Path | None = None,
    *,
    recording: Path | None = None,
    console: Console | None = None,
    **settings: Any,
) -> Figures:
    """Measure a suite, show a table, and write `{suite, machine, commit, metrics, notes}` as JSON.

    recording: whose windows are measured instead of the twin's. settings: what else the suite's
    function takes.
    Raises ConfigError for an unknown suite or a file that cannot be written.
    """
    if suite not in SUITES:
        raise ConfigError(f"unknown suite '{suite}'", hint=f"known are: {', '.join(SUITES)}")
    if json_path and not json_path.parent.is_dir():
        raise ConfigError(f"{json_path.parent}: no such folder")
    console = console or Console()
    facts = machine.facts()
    figures = Figures()
    before = machine.load()
    with console.status("measuring ...") as status:
        figures.on_progress = lambda text: status.update(f"measuring {text} ...")
        SUITES[suite](figures, recording, **settings)
    facts |= {"load_before": before, "load_after": machine.load(), "busy": machine.busy(before)}
    if machine.busy(before):
        figures.note(f"The machine was busy (load {before:.1f}): only the ratios mean something.")
    _show(figures, facts, console)
    if json_path:
        content = {
            "suite": suite,
            "machine": facts,
            "commit": machine.commit(),
            "metrics": figures.metrics,
            "notes": figures.notes,
            "tables": dict(figures.tables),
        }
        try:
            json_path.write_bytes(msgspec.json.format(msgspec.json.encode(content)) + b"\n")
        except OSError as error:
            raise ConfigError(f"{json_path}: cannot be written: {error.strerror}") from None
    return figures


def _show(figures: Figures, facts: Mapping[str, object], console: Console) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, justify in (("figure", "left"), ("value", "right"), ("aim", "right")):
        table.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("what it is")
    for metric in figures.shown:
        aim = f"{metric.aim:g}" if metric.aim else ""
        table.add_row(metric.key, f"{metric.value:,.4g}", aim, metric.what)
    console.print(table)
    for title, rows in figures.tables:
        console.print(f"\n[bold]{title}[/]")
        console.print(_as_table(rows))
    console.print(f"\n{facts['cpu']}, {facts['cores']} cores; load before {facts['load_before']}")
    for note in figures.notes:
        console.print(note, highlight=False)


def _as_table(rows: list[dict[str, str]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    columns = list(rows[0])
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(row.get(column, "") for column in columns))
    return table
