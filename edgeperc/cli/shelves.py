"""Verbs that list what can be named: devices, apps."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from edgeperc.cli.root import AsJson, app
from edgeperc.cli.say import print_json, print_rows


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
        print_json({"rigs": rows, "cameras": cameras})
    else:
        _print("rig", rows)
        lines = ["", "[bold]cameras[/bold]", *map(escape, cameras)]
        Console().print("\n".join(lines), soft_wrap=True, highlight=False)


@app.command()
def apps(as_json: AsJson = False) -> None:
    """List the apps that `serve`, `check` and `replay --app` can run."""
    from edgeperc import places
    from edgeperc.config import App, load

    rows = [
        {"name": name, "summary": load(path, App).summary, "file": str(path)}
        for name, path in places.names("apps").items()
    ]
    print_json(rows) if as_json else _print("app", rows)


def _print(what: str, rows: list[dict[str, str]]) -> None:
    """Names and summaries, and in which folders they lie."""
    print_rows(what, [{"name": row["name"], "summary": row["summary"]} for row in rows])
    for folder in dict.fromkeys(str(Path(row["file"]).parent) for row in rows):
        Console().print(escape(f"in {folder}"), style="dim", soft_wrap=True, highlight=False)
