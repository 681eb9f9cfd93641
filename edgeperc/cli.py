"""The verbs of `edgeperc`. Each imports what it needs, so that `--help` answers at once."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgeperc import __version__
from edgeperc.errors import ConfigError, EdgepercError
from edgeperc.simulate.faults import FAULTS, GRAMMAR

if TYPE_CHECKING:
    from edgeperc.places import ModelFolder

app = typer.Typer(
    help="Edge perception for vision, segmentation and event cameras.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models = typer.Typer(help="List, show, import and download models.", no_args_is_help=True)
app.add_typer(models, name="models")
simulate = typer.Typer(help="Play a device that is not there.", no_args_is_help=True)
app.add_typer(simulate, name="simulate")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads to use.")]
Seconds = Annotated[float | None, typer.Option(min=0.0, help="Stop after this many seconds.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Log more, and show tracebacks of errors.")
    ] = False,
) -> None:
    """Edge perception for vision, segmentation and event cameras."""
    import logging

    from rich.logging import RichHandler

    handler = RichHandler(console=Console(stderr=True), show_path=False)
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(message)s", handlers=[handler]
    )


@app.command()
def serve(
    name: Annotated[str, typer.Argument(metavar="[APP]", help="App by name or path.")] = "events",
    duration_s: Seconds = None,
) -> None:
    """Run an app and stream its results; by default the built-in digital twin's.

    Shows rate, latency and drops of every stage until Ctrl-C.
    """
    from edgeperc.serve import serve as run_app

    run = run_app(name, duration_s=duration_s)
    _fail_on(run.errors, run.hints)


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
        Path | None, typer.Option(help="Draw a search into this video (.mp4, .webm, .avi).")
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
    }
    if recording is None:
        plan = rig_plan(app_name, duration_s=duration_s, out=out, listen=listen)
    else:
        plan = replay_plan(
            recording,
            model=model,
            app=app_name,
            out=out,
            listen=listen,
            max_gap_s=max_gap_s,
            sensor={key: value for key, value in options.items() if value is not None},
        )
    console = Console(stderr=as_json)
    played = play(plan, speed=_speed(speed), out=out, console=console, render=render)
    if as_json:
        _print_json(played.summary)
    for written in filter(None, (out, render)):
        console.print(escape(f"written to {written}"))
    if played.error:
        raise played.error


@app.command()
def check(
    name: Annotated[str, typer.Argument(metavar="[APP]", help="App by name or path.")] = "events",
    as_json: AsJson = False,
) -> None:
    """Open everything that an app names, run it for two seconds and say what is wrong."""
    from edgeperc.serve import check as run_check
    from edgeperc.serve import trouble
    from edgeperc.table import run_report, run_table

    run = run_check(name)
    found = trouble(run)
    if as_json:
        _print_json({**run_report(run), "trouble": found})
    else:
        Console().print(run_table(run))
    _fail_on(found, run.hints)


@app.command()
def watch(
    address: Annotated[str, typer.Argument(metavar="[HOST:PORT]")] = "127.0.0.1:50051",
    duration_s: Seconds = None,
    as_json: AsJson = False,
) -> None:
    """Look at the results of a running daemon, here or on another machine."""
    from edgeperc.watch import watch as look

    look(address, as_json=as_json, duration_s=duration_s)


@app.command()
def devices(as_json: AsJson = False) -> None:
    """List the rigs that can be named in an app, and the cameras that are plugged in."""
    from edgeperc import places
    from edgeperc.config import Rig, load
    from edgeperc.drivers import basler, event_camera, gige

    rows = [
        {"name": name, "summary": load(path, Rig).summary, "file": str(path)}
        for name, path in places.names("devices").items()
    ]
    cameras = [line for kind in (event_camera, basler, gige) for line in kind.list_cameras()]
    if as_json:
        _print_json({"rigs": rows, "cameras": cameras})
    else:
        _print_rows("rig", rows)
        Console().print("\n".join(["", "[bold]cameras[/bold]", *map(escape, cameras)]))


@app.command()
def apps(as_json: AsJson = False) -> None:
    """List the apps that `serve`, `check` and `replay --app` can run."""
    from edgeperc import places
    from edgeperc.config import App, load

    rows = [
        {"name": name, "summary": load(path, App).summary, "file": str(path)}
        for name, path in places.names("apps").items()
    ]
    _print_json(rows) if as_json else _print_rows("app", rows)


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
    _print_json(rows) if as_json else _print_rows("model", rows)


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
        _print_json(card)
    else:
        table = Table(box=None, show_header=False, pad_edge=False)
        for key, value in card.items():
            if value not in (None, "", [], ()):
                table.add_row(f"[bold]{key}[/bold]", _in_words(value))
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
        report = _offline("export").import_checkpoint(model.card, checkpoint, folder)
        Console().print(report.summary())
        use = f"use it: edgeperc replay RECORDING --model {model.card.name}"
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


@app.command()
def train(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="What to train.")] = "sltnet-twin",
    out: Annotated[
        Path | None, typer.Option(help="Folder for checkpoints and data; default out/NAME.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the weights and the order of data.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Fewer or more than usual.")] = None,
    fresh: Annotated[bool, typer.Option(help="Start anew instead of from the checkpoint.")] = False,
    threads: Threads = 2,
) -> None:
    """Train a network on the digital twin; goes on where an interrupted run stopped."""
    training = _offline("trainers")
    folder = out or Path("out") / name
    trained = training.train(
        name, folder, seed=seed, steps=steps, resume=not fresh, threads=threads
    )
    Console().print(trained.scores.table(f"{name} on validation scenes of the twin"))
    Console().print(
        f"trained for {trained.seconds / 60:.1f} minutes, written to {trained.weights}\n"
        f"make a model of it: edgeperc export {name} --weights {trained.weights} --out MODEL_FOLDER"
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
    report = _offline("trainers").export_trained(card, weights, folder)
    Console().print(report.summary())
    Console().print(escape(f"written to {folder}"))


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="By name or folder.")],
    data: Annotated[
        str, typer.Option(help="`twin`, `twin:SEED`, or a DDD17 or DSEC-Semantic folder.")
    ] = "twin",
    split: Annotated[
        Literal["train", "valid", "test", "all"], typer.Option(help="Part of a published data set.")
    ] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many windows.")] = None,
    engine: Annotated[
        Literal["auto", "onnx", "spiking"], typer.Option(help="What computes the labels.")
    ] = "auto",
    threads: Threads = 2,
    as_json: AsJson = False,
) -> None:
    """Score a model as the daemon would run it: label maps by IoU, boxes by AP50 and recall."""
    from rich.progress import Progress

    scoring = _offline("evaluate")
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("windows", total=None)
        found = scoring.evaluate(
            model,
            data,
            split=split,
            limit=limit,
            engine=engine,
            threads=threads,
            on_window=lambda done, total: progress.update(task, completed=done, total=total),
        )
    _print_json(found.as_json()) if as_json else Console().print(found.table())


@app.command()
def calibrate(
    rig: Annotated[str, typer.Argument(metavar="[RIG]", help="By name or path.")] = "twin-search",
    out: Annotated[
        Path | None, typer.Option(help="File to write, if not the one that the rig names.")
    ] = None,
    grid: Annotated[int, typer.Option(min=5, max=32, help="Look at so many places squared.")] = 8,
    depth_m: Annotated[
        float | None, typer.Option(min=0.01, help="Everything is so far away, as on a board.")
    ] = None,
    height_m: Annotated[
        float | None, typer.Option(min=0.01, help="So high is the wide camera above the ground.")
    ] = None,
    pitch_deg: Annotated[
        float, typer.Option(min=-90, max=90, help="So far down does its middle look.")
    ] = 0.0,
    picture: Annotated[
        Path | None, typer.Option(help="PNG of residuals, if not beside the file.")
    ] = None,
    points: Annotated[
        Path | None,
        typer.Option(help="Fit a CSV file u,v,pan_deg,tilt_deg[,depth_m] instead of looking."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find out where in the wide picture the search camera looks, and keep it.

    Looks around, finds each look in the wide picture, fits three models and keeps the simplest
    that does, with the points and a picture of residuals beside it.
    """
    from edgeperc.calibrate import Depth, progress_bar, report_of, table_of
    from edgeperc.calibrate import calibrate as run

    console = Console(stderr=as_json)
    done = run(
        rig,
        out=out,
        grid=grid,
        depth=Depth(depth_m=depth_m, height_m=height_m, pitch_deg=pitch_deg),
        picture=picture,
        points_file=points,
        progress=progress_bar(console=Console(stderr=True), transient=True),
    )
    if as_json:
        _print_json(report_of(done))
    else:
        if done.looks:
            console.print(escape(done.looks), soft_wrap=True)
        console.print(table_of(done.fit))
    kept = f"points {done.points_file}\npicture {done.picture}"
    if done.trouble:
        console.print(escape(kept), soft_wrap=True)
        raise done.trouble
    console.print(escape(f"written to {done.file}\n{kept}\n{done.note}".rstrip()), soft_wrap=True)


@app.command()
def bench(
    suite: Annotated[
        str, typer.Argument(metavar="[SUITE]", help="Which figures: events, search, calibration.")
    ] = "events",
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write them here.")] = None,
    recording: Annotated[
        Path | None, typer.Option(help="events: measure on its windows instead of the twin's.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="A-B", help="search: worlds to search in.")
    ] = None,
    targets: Annotated[int | None, typer.Option(help="search: how many there are.")] = None,
    pd: Annotated[
        float | None, typer.Option(help="search: how probably a look detects a target.")
    ] = None,
    slot_ms: Annotated[
        float | None, typer.Option(help="search: time between looks; 0 as fast as it goes.")
    ] = None,
    scheduler: Annotated[
        list[str] | None, typer.Option(help="search: compare this one, too; may be repeated.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="search: draw found-over-time curves into this PNG.")
    ] = None,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="search: also on the twin, in real time.")
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(min=1.0, help="search --realtime: each run; 60 by default.")
    ] = None,
) -> None:
    """Measure speed, as ratios within one run, or how well schedulers search."""
    from edgeperc.bench import run

    chosen: dict[str, Any] = {
        **_first_and_last(seeds),
        **({"schedulers": tuple(scheduler)} if scheduler else {}),
        **{"targets": targets, "pd": pd, "slot_ms": slot_ms, "plot": plot},
        **({"realtime_s": seconds or 60.0} if realtime or seconds else {}),
    }
    chosen = {key: value for key, value in chosen.items() if value is not None}
    if suite != "search":
        if chosen:
            raise ConfigError(f"--{next(iter(chosen)).replace('_', '-')} is for bench search")
        run(suite, json_file, recording=recording)
        return
    from edgeperc.bench.search import Settings

    run(suite, json_file, recording=recording, settings=Settings(**chosen))


def _first_and_last(seeds: str | None) -> dict[str, int]:
    """--seeds A-B as settings of the search suite; one number is one world."""
    if seeds is None:
        return {}
    first, _, last = seeds.partition("-")
    if not (first.isdecimal() and (last.isdecimal() or seeds.isdecimal())):
        raise ConfigError(f"--seeds {seeds}: must be two numbers, such as 300-319")
    return {"first_seed": int(first), "last_seed": int(last or first)}


@simulate.callback()
def simulate_root() -> None:
    """Play a device that is not there, for a driver to talk to."""


@simulate.command(
    "mirror",
    epilog="\n\n".join(
        [f"A fault is {GRAMMAR}", *(f"{name}: {what}." for name, what in FAULTS.items())]
    ),
)
def simulate_mirror(
    kind: Annotated[
        Literal["optotune", "sigma", "mirrorcle"], typer.Option(help="Which protocol it speaks.")
    ] = "optotune",
    link: Annotated[
        Path | None, typer.Option(help="Keep a symbolic link to the port here, for a rig file.")
    ] = None,
    fault: Annotated[
        list[str] | None, typer.Option(help="What goes wrong, see below; may be repeated.")
    ] = None,
    wire_time: Annotated[bool, typer.Option(help="Be as slow as a wire, 10 bits a byte.")] = True,
    reach_deg: Annotated[
        float | None, typer.Option(min=0.1, max=80.0, help="Largest optical angle of an axis.")
    ] = None,
    natural_hz: Annotated[
        float | None, typer.Option(min=1.0, help="How fast it swings; 350, sigma 900.")
    ] = None,
    slew_deg_per_s: Annotated[float | None, typer.Option(min=1.0, help="Fastest it turns.")] = None,
    noise_deg: Annotated[float, typer.Option(min=0.0, help="How much it trembles.")] = 0.0,
    duration_s: Seconds = None,
) -> None:
    """Play a galvano mirror on a pseudo-terminal, until Ctrl-C.

    The first line of the output is the port to name in a rig file. What comes in, how often, and
    where the mirror points is shown on stderr.
    """
    from edgeperc.simulate.tool import simulate_mirror as play

    play(
        kind,
        faults=fault or (),
        duration_s=duration_s,
        link=link,
        wire_time=wire_time,
        reach_deg=reach_deg,
        natural_hz=natural_hz,
        slew_deg_per_s=slew_deg_per_s,
        noise_deg=noise_deg,
    )


def _offline(module: str) -> Any:
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


def _fail_on(errors: Sequence[str], hints: Sequence[str] = ()) -> None:
    for error in errors:
        _complain(error, "", 1)
    for hint in hints:
        _complain("", hint, 1)
    if errors:
        raise typer.Exit(1)


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} = {v}" for k, v in value.items() if v not in (None, "", 0))
    if isinstance(value, list | tuple):
        parts = [_in_words(part) for part in value]
        return ("\n" if any(isinstance(part, dict) for part in value) else ", ").join(parts)
    return str(value)


def _print_rows(what: str, rows: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in rows[0] if rows else [what]:
        table.add_column(what if column == "name" else column)
    for row in rows:
        cells = ({True: "yes", False: "no"}.get(v, str(v)) for v in row.values())
        table.add_row(*cells)
    Console().print(table)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def main() -> None:
    """Run the command line; mistakes are one line and exit code 2, without a traceback."""
    try:
        code = app(standalone_mode=False)
    except EdgepercError as error:
        code = _complain(str(error), error.hint, error.exit_code)
        if "-v" in sys.argv[1:2] or "--verbose" in sys.argv[1:2]:
            traceback.print_exc()
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        # typer's usage errors have no common public base class, but they can format themselves.
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message()  # empty where the help was printed instead
        code = _complain(message, "see edgeperc --help", 2) if message else 2
    sys.exit(code if isinstance(code, int) else 0)


def _complain(message: str, hint: str, code: int) -> int:
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    if message:
        console.print(f"[red]error:[/red] {escape(message)}")
    if hint:
        console.print(f"[cyan]hint:[/cyan] {escape(hint)}")
    return code
