"""Verbs about the machine: build engines ahead, look what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from edgeperc.cli.root import AsJson, app
from edgeperc.cli.say import print_json

if TYPE_CHECKING:
    from edgeperc.prepare import Doing, Made

_SAY_EVERY_S = 10.0


@app.command()
def prepare(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[APP|MODEL]...", help="By name or path.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Build what the networks of an app need, ahead of its first start.

    TensorRT and OpenVINO build an engine for each network, once; it may take minutes.
    """
    from dataclasses import asdict

    from edgeperc.inference import engines
    from edgeperc.prepare import prepare as make

    console = Console(stderr=as_json, soft_wrap=True, highlight=False)
    made: list[Made] = []
    with console.status("loading ...") as status:
        said_s = 0.0

        def show(doing: Doing) -> None:
            nonlocal said_s
            line = _doing(doing)
            status.update(escape(line))
            said_s = said_s if said_s <= doing.seconds else 0.0  # another network
            if not console.is_terminal and doing.seconds - said_s >= _SAY_EVERY_S:
                said_s = doing.seconds
                console.print(escape(line))

        for each in make(names or ["events"], show=show):
            made.append(each)
            console.print(escape(_made(each)))
    if as_json:
        print_json([asdict(each) for each in made])
    elif any(each.kept for each in made):
        console.print(
            escape(f"kept in {engines.root()}, {_size(engines.size_bytes(engines.root()))}")
        )
    else:
        console.print("ready; these providers build no engines, there is nothing to keep")


@app.command()
def doctor(
    name: Annotated[
        str, typer.Argument(metavar="[APP]", help="Also look at what this app needs.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Say in plain words what this machine has and lacks; exit with 1 if there is a problem."""
    from dataclasses import asdict

    from edgeperc.doctor import examine

    found = examine(name)
    if as_json:
        print_json([asdict(each) for each in found])
    else:
        console = Console(soft_wrap=True, highlight=False)
        for each in found:
            colour = {"ok": "green", "warning": "yellow", "problem": "red"}[each.state]
            state = f"[{colour}]{each.state:8}[/{colour}]"
            console.print(f"{state} {each.topic:14} {escape(each.said)}")
            if each.todo:
                console.print(f"{'':23} [cyan]do:[/cyan] {escape(each.todo)}")
    if any(each.state == "problem" for each in found):
        raise typer.Exit(1)


def _doing(doing: Doing) -> str:
    size = f", {_size(doing.bytes)}" if doing.bytes else ""
    return f"{_of(doing)}: {doing.seconds:.0f} s{size}"


def _made(made: Made) -> str:
    how = "loaded"
    if made.kept:
        how = f"{_size(made.bytes)}, {'was there, loaded' if made.was_there else 'built'}"
    return f"{_of(made)}: {made.provider}, {how} in {made.seconds:.1f} s"


def _of(what: Doing | Made) -> str:
    return f"{what.model}/{what.network}" if what.network else what.model


def _size(count: float) -> str:
    return f"{count / 1e6:.1f} MB"
