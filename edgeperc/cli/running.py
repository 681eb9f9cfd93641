"""Verbs that run an app or watch one: serve, replay, check, watch, point."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from edgeperc.cli.access import Ca, Cert, Key, TokenFile, access_of, with_insecure
from edgeperc.cli.root import AsJson, Seconds, app
from edgeperc.cli.say import fail_on, print_json
from edgeperc.errors import ConfigError, EdgepercError

if TYPE_CHECKING:
    from edgeperc.client import Client

Address = Annotated[str, typer.Argument(metavar="[HOST:PORT]")]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="In place of what the app's file says; pipelines.0.model=./small, may be repeated.",
    ),
]


@app.command()
def serve(
    name: Annotated[str, typer.Argument(metavar="[APP]", help="App by name or path.")] = "events",
    changes: Changes = None,
    duration_s: Seconds = None,
    inproc: Annotated[
        bool, typer.Option("--inproc", help="All in one process: nothing is watched or restarted.")
    ] = False,
    log_style: Annotated[
        str | None,
        typer.Option("--log", metavar="text|json", help="A line for each happening, to stderr."),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Serve other machines without TLS and tokens.")
    ] = False,
    fleet: Annotated[
        str | None,
        typer.Option("--fleet", metavar="ROUTER", help="Join a fleet, at tcp/HOST:7447."),
    ] = None,
) -> None:
    """Run an app and stream its results; by default the built-in digital twin's.

    Shows rate, latency and drops of every stage until Ctrl-C.
    """
    from edgeperc.fleet import joining
    from edgeperc.serve import serve as run_app

    _log_lines(log_style)
    changes = [*(changes or ()), *joining(fleet)]
    changes = with_insecure(name, changes) if insecure else changes
    run = run_app(name, changes=changes or (), duration_s=duration_s, inproc=inproc)
    fail_on(run.errors, run.hints)


@app.command()
def replay(
    recording: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RECORDING]", help="A file or ROS 2 bag folder; left out, the app's twin."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model by name or folder.")] = None,
    app_name: Annotated[str | None, typer.Option("--app", help="Use an app's pipelines.")] = None,
    changes: Changes = None,
    speed: Annotated[
        str, typer.Option(help="1.0 is real time; `max` as fast as possible.")
    ] = "1.0",
    start_s: Annotated[float, typer.Option(min=0.0, help="Skip this much of the recording.")] = 0.0,
    duration_s: Seconds = None,
    out: Annotated[
        Path | None, typer.Option(help="New folder for labels, results.jsonl, summary.json.")
    ] = None,
    listen: Annotated[
        str | None, typer.Option(help="Also stream the results by gRPC, as HOST:PORT.")
    ] = None,
    render: Annotated[
        Path | None,
        typer.Option(help="Draw the search, or what was found in frames, into this video."),
    ] = None,
    width_px: Annotated[
        int | None, typer.Option(min=1, help="Sensor width, where the file does not say it.")
    ] = None,
    height_px: Annotated[
        int | None, typer.Option(min=1, help="Sensor height, where the file does not say it.")
    ] = None,
    topic: Annotated[
        list[str] | None, typer.Option(help="Of a bag with several cameras; may be repeated.")
    ] = None,
    sensor: Annotated[
        str | None, typer.Option(help="Of a recording of edgeperc with several, for --model.")
    ] = None,
    max_gap_s: Annotated[
        float | None, typer.Option(min=0.0, help="A longer pause is an error; 10 by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Play a recording through a model; the same results every time, at any speed."""
    from edgeperc.replay import replay as play
    from edgeperc.replay import replay_plan, rig_plan

    options = {
        "start_s": start_s or None,
        "duration_s": duration_s,
        "width_px": width_px,
        "height_px": height_px,
        "topics": topic or None,
        "sensor": sensor,
    }
    if recording is None:
        plan = rig_plan(
            app_name, changes=changes or (), duration_s=duration_s, out=out, listen=listen
        )
    else:
        plan = replay_plan(
            recording,
            model=model,
            app=app_name,
            changes=changes or (),
            out=out,
            listen=listen,
            max_gap_s=max_gap_s,
            sensor={key: value for key, value in options.items() if value is not None},
        )
    console = Console(stderr=as_json)
    played = play(plan, speed=_speed(speed), out=out, console=console, render=render)
    if as_json:
        print_json(played.summary)
    for written in filter(None, (out, render)):
        console.print(escape(f"written to {written}{', up to the error' if played.error else ''}"))
    if played.error:
        raise played.error


@app.command()
def check(
    name: Annotated[str, typer.Argument(metavar="[APP]", help="App by name or path.")] = "events",
    changes: Changes = None,
    as_json: AsJson = False,
) -> None:
    """Open everything that an app names, run it for two seconds and say what is wrong."""
    from edgeperc.serve import check as run_check
    from edgeperc.serve import trouble, what_runs
    from edgeperc.table import run_report, run_table

    run = run_check(name, changes=changes or ())
    found = trouble(run)
    if as_json:
        print_json({**run_report(run), "trouble": found})
    else:
        for line in what_runs(run):
            Console().print(escape(line), highlight=False)
        Console().print(run_table(run))
    fail_on(found, run.hints)


@app.command()
def watch(
    address: Address = "127.0.0.1:50051",
    duration_s: Seconds = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    cert: Cert = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Look at the results of a running daemon, here or on another machine."""
    from edgeperc.client.watch import watch as look

    access = access_of(token_file, ca, cert, key)
    look(address, as_json=as_json, duration_s=duration_s, access=access)


@app.command()
def point(
    places: Annotated[
        list[str],
        typer.Argument(metavar="X,Y|X,Y,X,Y...", help="A point on each thing, or a box around it."),
    ],
    address: Annotated[
        str, typer.Option("--at", metavar="HOST:PORT", help="The daemon.")
    ] = "127.0.0.1:50051",
    source: Annotated[str, typer.Option(help="Sensor, where several can be prompted.")] = "",
    duration_s: Seconds = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    cert: Cert = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Point at things in the video of a running daemon, and follow them until Ctrl-C.

    In pixels of the sensor. Needs an app with a promptable model: edgeperc serve prompt.
    """
    from edgeperc.client.point import point as follow

    access = access_of(token_file, ca, cert, key)
    follow(places, address, source=source, as_json=as_json, duration_s=duration_s, access=access)


@app.command()
def health(
    address: Address = "127.0.0.1:50051",
    service: Annotated[
        str, typer.Option(help="A part alone, such as pipelines/NAME or sensors/NAME.")
    ] = "",
    token_file: TokenFile = None,
    ca: Ca = None,
    cert: Cert = None,
    key: Key = None,
) -> None:
    """Ask a running daemon whether it is well; exit code 0 if so, else 1. For containers."""
    from edgeperc.client import Client

    try:
        with Client(address, access=access_of(token_file, ca, cert, key)) as client:
            well = client.is_healthy(service)
            why = [] if well else _why(client)
    except EdgepercError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    typer.echo("serving" if well else "not serving")
    for line in why:
        typer.echo(line, err=True)
    raise typer.Exit(0 if well else 1)


def _why(client: Client) -> list[str]:
    """What a daemon says is wrong, or is getting ready, if it tells us."""
    try:
        status = client.status()
    except EdgepercError:  # a role that may not ask, or it is busy
        return []
    doing = [f"{each.name}: {each.preparing}" for each in status.workers if each.preparing]
    return [*doing, *status.errors]


def _log_lines(style: str | None) -> None:
    """Write logs as lines if asked to, or where nobody looks: a terminal has them in colours."""
    from edgeperc import logs

    if style not in (None, "text", "json"):
        raise ConfigError(f"--log {style}: must be text or json")
    if style or not sys.stderr.isatty():
        logs.start("json" if style == "json" else "text")


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise ConfigError(f"--speed {text}: must be a number above 0, or max")
    return speed
