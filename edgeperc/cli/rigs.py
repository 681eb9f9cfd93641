"""Verbs about a search rig: calibrate it, and play a mirror that is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from edgeperc.cli.root import AsJson, Seconds, app
from edgeperc.cli.say import print_json
from edgeperc.simulate.faults import FAULTS, GRAMMAR

simulate = typer.Typer(help="Play a device that is not there.", no_args_is_help=True)
app.add_typer(simulate, name="simulate")


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
        print_json(report_of(done))
    else:
        if done.looks:
            console.print(escape(done.looks), soft_wrap=True)
        console.print(table_of(done.fit))
    kept = f"points {done.points_file}\npicture {done.picture}"
    if done.trouble:
        console.print(escape(kept), soft_wrap=True)
        raise done.trouble
    console.print(escape(f"written to {done.file}\n{kept}\n{done.note}".rstrip()), soft_wrap=True)


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
