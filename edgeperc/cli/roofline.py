"""The verb roofline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from edgeperc.cli.offline import offline
from edgeperc.cli.root import app


@app.command()
def roofline(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="By name or folder, or an .onnx file.")
    ],
    device: Annotated[
        str,
        typer.Option(help="orin-agx, orin-nx, orin-nano, xavier, xavier-nx, or here: measured."),
    ] = "here",
    bits: Annotated[
        str, typer.Option(help="file (as it is), fp32, fp16, or such as w8a8, w4a8, w4a16.")
    ] = "file",
    layers: Annotated[int, typer.Option(min=0, help="Show so many of the longest layers.")] = 12,
    shape: Annotated[
        list[str] | None,
        typer.Option(help="NAME=LENGTHS of an input, or of an open axis; may be repeated."),
    ] = None,
    spike_rate: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Spiking networks: how many of the inputs are 1."),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Run it here, too: a column of its own.")
    ] = False,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure this machine anew.")
    ] = False,
    threads: Annotated[int, typer.Option(min=1, help="here: CPU threads to use.")] = 1,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write every layer here.")
    ] = None,
) -> None:
    """Count a network's operations and bytes, and predict what it takes on a device at best."""
    reports = offline("roofline.report")
    where, found = reports.report(
        model,
        device,
        bits=bits,
        lengths=reports.lengths_of(shape or ()),
        spike_rate=spike_rate,
        measured=measure,
        threads=threads,
        again=calibrate,
    )
    console = Console()
    for each in found:
        console.print(each.table(layers))
        for sentence in each.sentences():
            console.print(escape(sentence), soft_wrap=True)
        console.print()
    console.print(
        "[dim]Predicted is layer by layer, each at its roof: most things run slower; what keeps "
        "tensors in a cache, or fuses attention, may run faster.[/dim]",
        soft_wrap=True,
    )
    for note in where.notes:
        console.print(f"[dim]{escape(note)}[/dim]", soft_wrap=True)
    if json_file:
        content = {
            "model": model,
            "device": where.key,
            "device_name": where.name,
            "device_notes": list(where.notes),
            "bits": bits,
            "graphs": [each.as_json() for each in found],
        }
        json_file.write_text(json.dumps(content, indent=1) + "\n")
