"""`edgeperc compress`: a trained network to 8 bits and fewer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from edgeperc.cli.offline import offline
from edgeperc.cli.root import AsJson, Threads, app
from edgeperc.cli.say import print_json


@app.command()
def compress(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Weights that `edgeperc train` wrote, or a published network."
        ),
    ],
    recipe: Annotated[str, typer.Option(help="A preset (w8a8, w6a6, ...) or a recipe's file.")],
    data: Annotated[
        str | None, typer.Option(help="Folder of pictures to calibrate with; `twin` for events.")
    ] = None,
    source: Annotated[
        Literal["real", "noise", "synthetic"] | None,
        typer.Option(help="What to calibrate with, if not as the recipe says."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Of a published network: the file it came in.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; default out/MODEL-RECIPE.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="In place of the recipe's.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what each site gets, and end.")
    ] = False,
    threads: Threads = 2,
    as_json: AsJson = False,
) -> None:
    """Quantize a network by a recipe and write a model that the daemon runs, with a report."""
    command, adapters = offline("compress.command"), offline("compress.adapters")
    chosen = offline("compress.recipe").load_recipe(recipe)
    subject = adapters.open_subject(model, weights=weights)
    console = Console()
    if dry_run:
        Console(width=max(console.width, 120)).print(
            command.resolved(subject, chosen, where=recipe)
        )
        return
    folder = out or Path("out") / f"{subject.name}-{chosen.name}"
    ledger = command.compress(
        subject, chosen, folder, data=data, source=source, seed=seed, where=recipe, threads=threads
    )
    if as_json:
        print_json(ledger.as_json())
        return
    console.print(ledger.table())
    for line in ledger.lines():
        console.print(escape(line))
    console.print(escape(f"written to {folder}"))
