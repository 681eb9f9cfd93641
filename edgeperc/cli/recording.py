"""The verb that records: record."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from edgeperc.cli.root import AsJson, Seconds, app
from edgeperc.cli.running import Changes
from edgeperc.cli.say import fail_on, print_json
from edgeperc.errors import ConfigError
from edgeperc.screen import screen


@app.command()
def record(
    name: Annotated[str, typer.Argument(metavar="[APP]", help="App by name or path.")] = "events",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="A new file; else one by the time of day."
        ),
    ] = None,
    changes: Changes = None,
    duration_s: Seconds = None,
    topic: Annotated[
        list[str] | None,
        typer.Option(help="Only such topics, as 'wide/*'; with '!' in front all but these."),
    ] = None,
    max_mb: Annotated[
        float | None, typer.Option(min=1.0, help="Go on in a new file after this much.")
    ] = None,
    max_minutes: Annotated[
        float | None, typer.Option(min=0.01, help="Go on in a new file after this time.")
    ] = None,
    inproc: Annotated[bool, typer.Option("--inproc", help="All in one process.")] = False,
    lossless: Annotated[
        bool, typer.Option("--lossless", help="Of a twin: as fast as it goes, and drop nothing.")
    ] = False,
    repair: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Make a recording whole that was cut off; runs nothing."),
    ] = None,
    bag: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Make a folder of a recording that ROS 2 takes for a bag."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run an app and record all that its sensors say and its pipelines find, in MCAP files.

    edgeperc replay FILE plays it again.
    """
    if repair or bag:
        if repair:
            _repair(repair, as_json=as_json)
        if bag:
            _bag(bag, out)
        return
    from edgeperc.recording.names import file_name, recordings_home
    from edgeperc.recording.recorder import Limits
    from edgeperc.recording.run import record as run_and_record

    limits = Limits(
        max_bytes=None if max_mb is None else round(max_mb * 1e6),
        max_s=None if max_minutes is None else 60 * max_minutes,
    )
    status, errors, hints = run_and_record(
        name,
        out or recordings_home() / file_name(""),
        changes=changes or (),
        duration_s=duration_s,
        limits=limits,
        topics=topic or (),
        inproc=inproc,
        lossless=lossless,
        console=screen(stderr=as_json),
    )
    if as_json:
        print_json(asdict(status))
    known = any(status.error in error for error in errors)
    fail_on(errors if known or not status.error else (status.error, *errors), hints)


def _repair(path: Path, *, as_json: bool) -> None:
    from edgeperc.recording.repair import repair

    repaired = repair(path)
    if as_json:
        print_json(asdict(repaired))
        return
    what = "is whole" if repaired.was_whole else "was made whole"
    cut = f", {repaired.cut_bytes:,} bytes at its end were cut off" if repaired.cut_bytes else ""
    Console().print(escape(f"{path} {what}: {repaired.messages:,} messages{cut}"), soft_wrap=True)


def _bag(path: Path, out: Path | None) -> None:
    from edgeperc.recording.bag import make_bag

    if out is None:
        raise ConfigError("--bag makes a folder", hint="name it: -o FOLDER")
    make_bag(path, out)
    Console().print(escape(f"written to {out}"))
