"""Verbs about models: list, show, import, pull."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from edgeperc.cli.offline import offline
from edgeperc.cli.root import AsJson, app
from edgeperc.cli.say import in_words, print_json, print_rows
from edgeperc.errors import ConfigError

if TYPE_CHECKING:
    from edgeperc.config import ModelCard
    from edgeperc.places import ModelFolder

models = typer.Typer(help="List, show, import and download models.", no_args_is_help=True)
app.add_typer(models, name="models")


@models.command("list")
def models_list(as_json: AsJson = False) -> None:
    """List the models, whether their files are here, and how they are compressed."""
    from edgeperc import places
    from edgeperc.inference.compressed import compressed

    found = [places.find_card(name) for name in places.names("models")]
    rows = [
        {
            "name": model.card.name,
            "task": model.card.task,
            "ready": model.complete,
            "summary": model.card.summary,
            "licence": model.card.licence,
            "compressed": str(compressed(model.folder) or ""),
            "folder": str(model.folder),
        }
        for model in found
    ]
    if as_json:
        print_json(rows)
        return
    shown = ["name", "task", "ready", "compressed", "summary"]
    if not any(row["compressed"] for row in rows):
        shown.remove("compressed")
    print_rows("model", [{key: row[key] for key in shown} for row in rows])
    Console().print("licence, folder, accuracy: edgeperc models show MODEL", style="dim")


@models.command("show")
def models_show(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="By name or folder.")],
    as_json: AsJson = False,
) -> None:
    """Show a model's card: task, input, classes, accuracy and where it comes from."""
    import msgspec

    from edgeperc import places
    from edgeperc.inference.compressed import compressed

    model = places.find_card(name)
    card = {
        **msgspec.to_builtins(model.card),
        "compressed": str(compressed(model.folder) or ""),
        "folder": str(model.folder),
        "ready": model.complete,
    }
    if as_json:
        print_json(card)
    else:
        table = Table(box=None, show_header=False, pad_edge=False)
        for key, value in card.items():
            if value not in (None, "", [], ()):
                table.add_row(f"[bold]{key}[/bold]", in_words(value))
        Console().print(table)


@models.command("import")
def models_import(
    name: Annotated[
        str, typer.Argument(metavar="MODEL", help="Model whose card describes the file.")
    ],
    checkpoint: Annotated[
        Path | None, typer.Option(help="Weights in the official layout, a .pth file.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="The network itself, as the card names it by sha256.")
    ] = None,
    bypass: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Published adapter of Efficient-SAM2, to pass over windows."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write, if not the usual.")] = None,
) -> None:
    """Take in a model's file: a network as it is, or weights to be folded, pruned and exported."""
    from edgeperc import places
    from edgeperc.fetch import bring

    model = places.find_card(name)
    folder = out or places.data_home() / "models" / model.card.name
    if (checkpoint is None) == (file is None):
        raise ConfigError(
            "needs --file or --checkpoint, one of them",
            hint=f"'{model.card.name}' takes --{'checkpoint' if model.card.checkpoint else 'file'}",
        )
    if bypass is not None and (checkpoint is None or model.card.task != "promptable"):
        raise ConfigError("--bypass goes with --checkpoint of a network that follows objects")
    if file is not None:
        brought = bring(model.card, file, folder)
        _complete_folder(model, folder, there={brought})
        use = "use it as `model` of a pipeline"
    elif checkpoint is not None:
        use = _import_checkpoint(model.card, checkpoint, folder, bypass)
    Console().print(escape(f"written to {folder}\n{use}"), soft_wrap=True)


@models.command("pull")
def models_pull(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="Model whose card names URLs.")],
) -> None:
    """Download a model's files by URL, resume, and check their sha256; convert weights."""
    from edgeperc import places
    from edgeperc.fetch import pull, pull_checkpoint

    model = places.find_card(name)
    folder = places.data_home() / "models" / model.card.name
    wanted = model.card.checkpoint
    if wanted and wanted.url and not any(entry.url for entry in model.card.files):
        offline(_importer(model.card))  # to convert them: miss nothing before a long download
        checkpoint = pull_checkpoint(model.card, places.data_home() / "checkpoints")
        use = _import_checkpoint(model.card, checkpoint, folder)
        use += f"\nto free {checkpoint.stat().st_size / 1e6:,.0f} MB: rm {checkpoint}"
        Console().print(escape(f"written to {folder}\n{use}"), soft_wrap=True)
        return
    pull(model.card, folder)
    _complete_folder(model, folder, there={folder / e.path for e in model.card.files if e.url})
    Console().print(escape(f"written to {folder}"))


def _import_checkpoint(
    card: ModelCard, checkpoint: Path, folder: Path, bypass: Path | None = None
) -> str:
    """Convert weights to a model folder; returns how to use it."""
    importer = offline(_importer(card))
    if bypass is not None:
        with _steps() as on_step:
            report = offline("export_efficient").import_checkpoint(
                card, checkpoint, folder, bypass=bypass, on_step=on_step
            )
        use = f"edgeperc track VIDEO --model {card.name} --window-routing --box X0,Y0,X1,Y1"
    elif card.task == "promptable":
        with _steps() as on_step:
            report = importer.import_checkpoint(card, checkpoint, folder, on_step=on_step)
        use = f"edgeperc segment IMAGE --model {card.name}"
    else:
        report = importer.import_checkpoint(card, checkpoint, folder)
        use = f"edgeperc replay RECORDING --model {card.name}"
    Console().print(escape(report.summary()), soft_wrap=True)
    return f"use it: {use}"


def _importer(card: ModelCard) -> str:
    """The module that turns weights of such a card into a model folder."""
    if card.frames is not None:
        return "export_fusion"
    return "export_prompt" if card.task == "promptable" else "export"


@contextmanager
def _steps() -> Iterator[Callable[[str], None]]:
    """Show what is being done, line by line, each with the time it takes."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:

        def finish() -> None:
            for task in progress.tasks:
                progress.update(task.id, completed=1)

        def begin(what: str) -> None:
            finish()
            progress.add_task(what, total=1)

        yield begin
        finish()


def _complete_folder(model: ModelFolder, folder: Path, *, there: set[Path]) -> None:
    """Copy to the new files those that lie with the card, and the card: then the model is there."""
    import shutil

    if folder.resolve() == model.folder.resolve():
        return
    for path in (*(entry.path for entry in model.card.files), "model.toml"):
        if folder / path not in there and (model.folder / path).is_file():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(model.folder / path, folder / path)
