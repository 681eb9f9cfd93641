"""Verbs about models: list, show, import, pull."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgeperc.cli.offline import offline
from edgeperc.cli.root import AsJson, app
from edgeperc.cli.say import in_words, print_json, print_rows
from edgeperc.errors import ConfigError

if TYPE_CHECKING:
    from edgeperc.places import ModelFolder

models = typer.Typer(help="List, show, import and download models.", no_args_is_help=True)
app.add_typer(models, name="models")


@models.command("list")
def models_list(as_json: AsJson = False) -> None:
    """List the models, and whether their files are here."""
    from edgeperc import places

    found = [places.find_card(name) for name in places.names("models")]
    rows = [
        {
            "name": model.card.name,
            "ready": model.complete,
            "summary": model.card.summary,
            "licence": model.card.licence,
            "folder": str(model.folder),
        }
        for model in found
    ]
    print_json(rows) if as_json else print_rows("model", rows)


@models.command("show")
def models_show(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="By name or folder.")],
    as_json: AsJson = False,
) -> None:
    """Show a model's card: task, input, classes, accuracy and where it comes from."""
    import msgspec

    from edgeperc import places

    model = places.find_card(name)
    card = {**msgspec.to_builtins(model.card), "folder": str(model.folder), "ready": model.complete}
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
    if file is not None:
        brought = bring(model.card, file, folder)
        _complete_folder(model, folder, there={brought})
        use = "use it as `model` of a pipeline"
    elif checkpoint is not None:
        prompted = model.card.task == "promptable"
        importing = offline("export_prompt" if prompted else "export")
        report = importing.import_checkpoint(model.card, checkpoint, folder)
        Console().print(report.summary())
        use = f"use it: edgeperc replay RECORDING --model {model.card.name}"
        use = f"use it: edgeperc segment IMAGE --model {model.card.name}" if prompted else use
    Console().print(escape(f"written to {folder}\n{use}"), soft_wrap=True)


@models.command("pull")
def models_pull(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="Model whose card names URLs.")],
) -> None:
    """Download a model's files by URL, resume, and check their sha256."""
    from edgeperc import places
    from edgeperc.fetch import pull

    model = places.find_card(name)
    folder = places.data_home() / "models" / model.card.name
    pull(model.card, folder)
    _complete_folder(model, folder, there={folder / e.path for e in model.card.files if e.url})
    Console().print(escape(f"written to {folder}"))


def _complete_folder(model: ModelFolder, folder: Path, *, there: set[Path]) -> None:
    """Copy to the new files those that lie with the card, and the card: then the model is there."""
    import shutil

    if folder.resolve() == model.folder.resolve():
        return
    for path in (*(entry.path for entry in model.card.files), "model.toml"):
        if folder / path not in there and (model.folder / path).is_file():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(model.folder / path, folder / path)
