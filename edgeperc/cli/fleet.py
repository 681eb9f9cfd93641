"""Verbs for many devices behind one router: fleet ls, watch, status, apply, record, router."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from edgeperc.cli.root import AsJson, Seconds, app
from edgeperc.cli.say import print_json
from edgeperc.errors import ConfigError

if TYPE_CHECKING:
    from edgeperc.fleet.link import Link

fleet_app = typer.Typer(
    help="Watch and steer many devices behind one router.", no_args_is_help=True
)
app.add_typer(fleet_app, name="fleet")

Router = Annotated[
    str, typer.Argument(metavar="[ROUTER]", help="Such as tcp/127.0.0.1:7447 or tls/HOST:7447.")
]
Name = Annotated[str, typer.Option("--fleet", help="Which fleet.")]
Device = Annotated[str, typer.Argument(metavar="DEVICE", help="As `fleet ls` shows it.")]
Ca = Annotated[str, typer.Option("--ca", help="Certificate that signed the other side's.")]
Cert = Annotated[str, typer.Option("--cert", help="Our certificate, where one is asked for.")]
Key = Annotated[str, typer.Option("--key", help="Its key.")]
Config = Annotated[str, typer.Option("--config", help="A file of Zenoh's own settings, JSON5.")]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Go to another machine without encryption.")
]
LOCAL = "tcp/127.0.0.1:7447"
SETTLE_S = 1.5
"""Until every device has said its status once."""


@fleet_app.command("ls")
def ls(
    router: Router = LOCAL,
    fleet: Name = "default",
    ca: Ca = "",
    cert: Cert = "",
    key: Key = "",
    config: Config = "",
    insecure: Insecure = False,
    as_json: AsJson = False,
) -> None:
    """Who is there."""
    from edgeperc.fleet.watcher import Watcher, fleet_report, fleet_table

    with (
        _link(router, ca, cert, key, config, insecure) as link,
        Watcher(link, fleet, results=False) as watcher,
    ):
        time.sleep(SETTLE_S)
        devices = watcher.devices()
    if as_json:
        print_json(fleet_report(devices))
    elif devices:
        Console().print(fleet_table(devices, time.monotonic()))
    else:
        Console().print(f"nobody of fleet '{fleet}' is at {router}")


@fleet_app.command()
def watch(
    router: Router = LOCAL,
    fleet: Name = "default",
    duration_s: Seconds = None,
    ca: Ca = "",
    cert: Cert = "",
    key: Key = "",
    config: Config = "",
    insecure: Insecure = False,
    as_json: AsJson = False,
) -> None:
    """Look at all devices until Ctrl-C: presence, status, results."""
    from edgeperc.fleet.watcher import Watcher, fleet_report, fleet_table
    from edgeperc.serve import stop_signals

    deadline_s = time.monotonic() + (float("inf") if duration_s is None else duration_s)
    with (
        stop_signals() as stopping,
        _link(router, ca, cert, key, config, insecure) as link,
        Watcher(link, fleet) as watcher,
        _live(as_json) as live,
    ):
        while not stopping.is_set() and time.monotonic() < deadline_s:
            stopping.wait(max(0.0, min(0.5, deadline_s - time.monotonic())))
            if live is not None:
                live.update(fleet_table(watcher.devices(), time.monotonic()))
        devices = watcher.devices()
    if as_json:
        print_json(fleet_report(devices))
    elif live is None:
        Console().print(fleet_table(devices, time.monotonic()))


@fleet_app.command()
def apply(
    device: Device,
    file: Annotated[Path, typer.Argument(help="The app's new file.")],
    router: Router = LOCAL,
    fleet: Name = "default",
    check_only: Annotated[
        bool, typer.Option("--check", help="Only ask the device whether it could run it.")
    ] = False,
    ca: Ca = "",
    cert: Cert = "",
    key: Key = "",
    config: Config = "",
    insecure: Insecure = False,
) -> None:
    """Let a device run another app's file. Code that the file names is refused."""
    from edgeperc.fleet.orders import ask
    from edgeperc.proto.edgeperc.v1 import control_pb2 as pb

    try:
        toml = file.read_text()
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    with _link(router, ca, cert, key, config, insecure) as link:
        if check_only:
            ask(link.session, fleet, device, "ValidateConfig", pb.ValidateConfigRequest(toml=toml))
            print(f"{device} can run {file}")
            return
        now = ask(link.session, fleet, device, "GetConfig")
        request = pb.ApplyConfigRequest(toml=toml, etag=now.etag)
        done = ask(link.session, fleet, device, "ApplyConfig", request, timeout_s=120.0)
        print(f"{device} runs {file} ({done.etag})")


@fleet_app.command()
def record(
    device: Device,
    router: Router = LOCAL,
    fleet: Name = "default",
    stop: Annotated[bool, typer.Option("--stop", help="End the recording.")] = False,
    ca: Ca = "",
    cert: Cert = "",
    key: Key = "",
    config: Config = "",
    insecure: Insecure = False,
) -> None:
    """Let a device begin to record, or end it."""
    from edgeperc.fleet.orders import ask

    order = "StopRecording" if stop else "StartRecording"
    with _link(router, ca, cert, key, config, insecure) as link:
        done = ask(link.session, fleet, device, order, timeout_s=60.0).recording
    print(f"{device}: {done.path} {'ended' if stop else 'begun'}")


@fleet_app.command("router")
def route(
    listen: Annotated[
        list[str] | None, typer.Option("--listen", help="tcp/HOST:PORT; may be repeated.")
    ] = None,
    duration_s: Seconds = None,
    ca: Ca = "",
    cert: Cert = "",
    key: Key = "",
    config: Config = "",
    insecure: Insecure = False,
) -> None:
    """Be the router of a fleet until Ctrl-C; with --ca only for devices that it signed."""
    from edgeperc.fleet.link import Link
    from edgeperc.serve import stop_signals

    with (
        stop_signals() as stopping,
        Link(
            *(listen or [LOCAL]),
            mode="router",
            security=_security(ca, cert, key, config, insecure),
        ) as link,
    ):
        print(f"router at {', '.join(link.endpoints)}; stop: Ctrl-C", flush=True)
        stopping.wait(duration_s)


def _link(router: str, ca: str, cert: str, key: str, config: str, insecure: bool) -> Link:
    from edgeperc.fleet.link import Link

    return Link(router, security=_security(ca, cert, key, config, insecure))


def _security(ca: str, cert: str, key: str, config: str, insecure: bool) -> Any:
    from edgeperc.fleet.link import Security

    return Security(ca=ca, cert=cert, key=key, config=config, insecure=insecure)


def _live(as_json: bool) -> Any:
    """A live table in a terminal, else nothing."""
    from contextlib import nullcontext

    from rich.live import Live

    console = Console()
    return nullcontext() if as_json or not console.is_terminal else Live(console=console)
