"""A run as a table in the terminal, and as a plain dictionary for programs."""

from __future__ import annotations

from typing import Any

import msgspec
from rich.table import Table

from edgeperc.pipeline import Running
from edgeperc.status import PipelineStatus, SensorStatus

_DROPS = {"wait": "dropped", "infer": "failed", "late": "dropped", "detect": "failed"}
"""Which stage loses packets, and under which name the meter counts them."""


def run_table(run: Running) -> Table:
    """Rates, latencies and drops of every sensor and of every stage of every pipeline."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "stage", "per second", "p50 ms", "p99 ms", "total", "drops"):
        table.add_column(column, justify="left" if column in ("", "stage") else "right")
    for sensor in run.sensors():
        _add_sensor(table, sensor)
    for pipeline in run.pipelines():
        _add_pipeline(table, pipeline)
    return table


def run_report(run: Running) -> dict[str, Any]:
    """The same figures as JSON types."""
    return {
        "sensors": [msgspec.to_builtins(sensor) for sensor in run.sensors()],
        "pipelines": [msgspec.to_builtins(pipeline) for pipeline in run.pipelines()],
        "errors": list(run.errors),
    }


def _add_sensor(table: Table, sensor: SensorStatus) -> None:
    colour = {"running": "green", "lost": "yellow", "failed": "red"}.get(sensor.state, "dim")
    table.add_row(
        f"[bold]{sensor.name}[/bold]",
        f"[{colour}]{sensor.state}[/{colour}]",
        "",
        "",
        "",
        _seen(sensor),
        f"{sensor.counters.dropped:,}",
    )


def _seen(sensor: SensorStatus) -> str:
    counts = ((sensor.events, "ev"), (sensor.frames, "fr"), (sensor.moves, "moves"))
    return ", ".join(f"{count:,} {what}" for count, what in counts if count) or "nothing"


def _add_pipeline(table: Table, pipeline: PipelineStatus) -> None:
    meter = pipeline.meter
    for number, row in enumerate(meter.stages):
        is_total = row.stage == "total"
        drops = getattr(meter, _DROPS[row.stage]) if row.stage in _DROPS else ""
        table.add_row(
            f"[bold]{pipeline.name}[/bold]" if number == 0 else "",
            row.stage,
            f"{meter.rate_hz:.1f}" if is_total else "",
            f"{row.p50_ms:.2f}",
            f"{row.p99_ms:.2f}",
            f"{meter.results:,}" if is_total else "",
            f"{drops}",
            style="bold" if is_total else None,
        )
    if not meter.stages:
        table.add_row(f"[bold]{pipeline.name}[/bold]", "waiting for packets")
    if pipeline.note:
        table.caption = f"{table.caption or ''}{pipeline.name}: {pipeline.note}\n"
        table.caption_justify = "left"
