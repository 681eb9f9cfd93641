"""The daemon, and what watches a run: serve and check."""

from __future__ import annotations

import logging
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape

from edgeperc import __version__
from edgeperc.assemble import assemble
from edgeperc.loading import loading
from edgeperc.notify import Notify
from edgeperc.pipeline import Run, Running
from edgeperc.plan import Plan
from edgeperc.screen import is_terminal, screen
from edgeperc.supervise.daemon import SupervisedDaemon, open_daemon
from edgeperc.table import run_table

log = logging.getLogger("edgeperc")

_PLAIN_EVERY_S = 10.0
_FILES = 65_536


def serve(
    app: str,
    *,
    changes: Sequence[str] = (),
    duration_s: float | None = None,
    console: Console | None = None,
    inproc: bool = False,
) -> Running:
    """Run an app until Ctrl-C, SIGTERM, the end of its sensors or `duration_s`.

    changes: of the app's file, see `edgeperc.changes`. inproc: all in this process, instead of one
    for each sensor and each pipeline. Shows a live table in a terminal, prints it every ten seconds
    elsewhere. Returns the ended run.
    Raises ConfigError or ModelError before anything starts.
    """
    console = console or screen()
    _many_files()
    plan = Plan.load(app, changes)
    daemon: SupervisedDaemon | None = None
    with loading(console):
        if inproc:
            run: Running = assemble(plan)
        else:
            daemon = open_daemon(plan)
            run = daemon.run
    notify = Notify()
    with (
        stop_signals() as stopping,
        _reloads(daemon, notify, stopping),
    ):  # before it is said that it runs
        _announce(console, plan, run)
        errors = daemon.errors if daemon else None
        watch_run(
            run, console, duration_s=duration_s, stopping=stopping, notify=notify, errors=errors
        )
    return run


def check(
    app: str, *, changes: Sequence[str] = (), seconds: float = 2.0, patience_s: float = 10.0
) -> Run:
    """Open everything that an app names and run it for a moment. Returns the ended run.

    patience_s: how long it may take until every part has said something. Raises ConfigError,
    ModelError or DeviceError for what does not open.
    """
    run = assemble(Plan.load(app, changes))
    run.start()
    try:
        ended = run.wait(seconds)
        deadline_s = time.monotonic() + patience_s - seconds
        while not ended and trouble(run) and time.monotonic() < deadline_s:
            ended = run.wait(0.2)
    finally:
        run.stop()
    return run


def trouble(run: Running) -> list[str]:
    """What a checked run did not do, one sentence each; empty if all is well."""
    found = list(run.errors)
    for sensor in run.sensors():
        if not sensor.packets:
            found.append(f"sensor '{sensor.name}' sent nothing")
    for pipeline in run.pipelines():
        if not pipeline.meter.results:
            found.append(f"pipeline '{pipeline.name}' gave no result")
    return found


def what_runs(run: Running) -> Iterator[str]:
    """A line for each pipeline: its model, and by whom it is really run."""
    for pipeline in run.pipelines():
        ref = pipeline.model
        precision = "" if ref.precision == "fp32" else f", {ref.precision}"
        yield f"{pipeline.name}: {ref.name} on {ref.engine} ({ref.provider}{precision})"


def watch_run(
    run: Running,
    console: Console,
    *,
    duration_s: float | None = None,
    stopping: threading.Event | None = None,
    notify: Notify | None = None,
    errors: Callable[[], tuple[str, ...]] | None = None,
) -> bool:
    """Start a run, show it until it ends, stop it; True if it was stopped before its end.

    stopping: see `stop_signals`, which is asked for where it is not given. notify: of a daemon,
    who is told that it serves, and that it goes on for as long as nobody in it is stuck. errors:
    what is wrong, if that is more than the run knows of.
    """
    if stopping is None:
        with stop_signals() as asked:
            return watch_run(run, console, duration_s=duration_s, stopping=asked, notify=notify)
    notify = notify or Notify({})
    ended = False
    limit_s = float("inf") if duration_s is None else duration_s
    deadline_s = time.monotonic() + limit_s
    run.start()
    notify.ready("started")
    try:
        with _display(run, console) as show:
            while not (ended or stopping.is_set() or time.monotonic() > deadline_s):
                ended = run.wait(0.2)
                run.report()
                show()
                _tell(notify, run, errors() if errors else run.errors)
    finally:
        notify.stopping()
        run.stop()
    console.print(run_table(run))
    return not ended


def _many_files() -> None:
    """Permit as many open files as the system lets us: each client is one, and 1024 is usual."""
    with suppress(OSError, ValueError):
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _FILES if most == resource.RLIM_INFINITY else min(most, _FILES)
        if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _tell(notify: Notify, run: Running, errors: tuple[str, ...]) -> None:
    """Let the service manager know that all goes on, or what does not."""
    if stuck := run.stuck():
        log.error("%s", stuck)
        notify.status(stuck)
        return
    notify.alive()
    notify.status(f"degraded: {errors[0]}" if errors else "serving")


@contextmanager
def _reloads(
    daemon: SupervisedDaemon | None, notify: Notify, stopping: threading.Event
) -> Iterator[None]:
    """SIGHUP reads the operator's files again, in a thread of its own.

    That of a terminal which is closed ends the run, as Ctrl-C does.
    """
    had_terminal = is_terminal()

    def reload(*_: object) -> None:
        if had_terminal and not is_terminal():
            stopping.set()
        elif daemon is None:
            log.warning("one process keeps its app to its end: SIGHUP changes nothing")
        else:
            threading.Thread(target=daemon.reload, name="reload", daemon=True).start()

    if daemon:
        daemon.on_reload = notify.reloading
        daemon.on_reloaded = lambda: notify.ready("serving")
    before = signal.signal(signal.SIGHUP, reload)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def _announce(console: Console, plan: Plan, run: Running) -> None:
    console.print(
        escape(f"edgeperc {__version__} · app {plan.app_where} · rig {plan.rig_path}"),
        soft_wrap=True,
    )
    for line in what_runs(run):
        console.print(escape(f"  {line}"))
    for where in run.where:
        console.print(escape(f"  look: {where}"))
    console.print("  stop: Ctrl-C")


@contextmanager
def _display(run: Running, console: Console) -> Iterator[Any]:
    """Yield a function to call often: it draws the table, or prints a line now and then."""
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4, transient=True) as live:
            yield lambda: live.update(run_table(run))
        return
    next_s = time.monotonic() + _PLAIN_EVERY_S

    def line() -> None:
        nonlocal next_s
        if time.monotonic() >= next_s:
            next_s += _PLAIN_EVERY_S
            console.print(run_table(run))

    yield line


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set; a second Ctrl-C ends the process as usual."""
    stopping = threading.Event()

    def stop(number: int, _: FrameType | None) -> None:
        stopping.set()
        signal.signal(
            number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        )

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
