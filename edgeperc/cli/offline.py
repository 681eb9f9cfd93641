"""Verbs that need torch: train, export, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape

from edgeperc.cli.root import AsJson, Threads, app
from edgeperc.cli.say import print_json
from edgeperc.errors import ConfigError


@app.command()
def train(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="What to train.")] = "sltnet-twin",
    out: Annotated[
        Path | None, typer.Option(help="Folder for checkpoints and data; default out/NAME.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of pictures and videos, where it needs any.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="bypass: the trained network that it is for.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the weights and the order of data.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Fewer or more than usual.")] = None,
    fresh: Annotated[bool, typer.Option(help="Start anew instead of from the checkpoint.")] = False,
    threads: Threads = 2,
) -> None:
    """Train a network; goes on where an interrupted run stopped."""
    training = offline("trainers")
    folder = out or Path("out") / name
    trained = training.train(
        name,
        folder,
        data=data,
        weights=weights,
        seed=seed,
        steps=steps,
        resume=not fresh,
        threads=threads,
    )
    Console().print(trained.scores.table(f"{name} on held-out data"))
    model = getattr(trained, "model", name)
    Console().print(
        f"trained for {trained.seconds / 60:.1f} minutes, written to {trained.weights}\n"
        f"make a model of it: edgeperc export {model} --weights {trained.weights} "
        f"--out MODEL_FOLDER"
    )


@app.command()
def export(
    name: Annotated[
        str, typer.Argument(metavar="MODEL", help="Model whose card describes the network.")
    ],
    weights: Annotated[Path, typer.Option(help="What `edgeperc train` wrote.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write, if not the usual.")] = None,
) -> None:
    """Export trained weights, folded and pruned, to a model folder that the daemon runs."""
    from edgeperc import places

    card = places.find_card(name).card
    folder = out or places.data_home() / "models" / card.name
    report = offline("trainers").export_trained(card, weights, folder)
    Console().print(report.summary())
    Console().print(escape(f"written to {folder}"))


@app.command()
def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="By name or folder; or a folder of result PNG files of DAVIS."
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            help="`twin`, `twin:SEED`, or a DDD17 or DSEC-Semantic folder; for fusion models "
            "`twin-night` and other conditions; for models that take prompts `bsds500:`, "
            "`camvid:`, `davis-frames:`, `davis:` FOLDER, or `coco:` JSON."
        ),
    ] = "twin",
    split: Annotated[
        Literal["train", "valid", "test", "all"], typer.Option(help="Part of a published data set.")
    ] = "test",
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many windows, or pictures.")
    ] = None,
    engine: Annotated[
        Literal["auto", "onnx", "spiking"], typer.Option(help="What computes the labels.")
    ] = "auto",
    detector: Annotated[
        str | None, typer.Option(help="Model whose boxes are the prompts on `coco:`.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for masks and pictures of what prompts gave.")
    ] = None,
    without: Annotated[
        Literal["nothing", "frames", "events"],
        typer.Option(help="Leave one input of a fusion model out, as where a sensor died."),
    ] = "nothing",
    threads: Threads = 2,
    as_json: AsJson = False,
) -> None:
    """Score a model as the daemon would run it: label maps by IoU, boxes by AP50 and recall,
    prompts by mIoU, AP, or J and F.
    """
    from rich.progress import Progress

    scoring = offline("evaluate")
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("windows", total=None)
        found = scoring.evaluate(
            model,
            data,
            split=split,
            limit=limit,
            engine=engine,
            threads=threads,
            detector=detector,
            out=out,
            without=without,
            on_window=lambda done, total: progress.update(task, completed=done, total=total),
        )
    print_json(found.as_json()) if as_json else Console().print(found.table())


def offline(module: str) -> Any:
    """A module of edgeperc.offline; an error that names the extra where torch is missing."""
    import importlib

    try:
        return importlib.import_module(f"edgeperc.offline.{module}")
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("edgeperc"):
            raise
        raise ConfigError(
            f"this needs {error.name}, which is not installed",
            hint="pip install 'edgeperc[offline]'",
        ) from error
