"""Run an app and record it: `edgeperc record`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from edgeperc.assemble import assemble
from edgeperc.control import RecordingStatus
from edgeperc.loading import loading
from edgeperc.pipeline import Running
from edgeperc.plan import Plan
from edgeperc.recording.head import About
from edgeperc.recording.names import SUFFIX
from edgeperc.recording.recorder import NO_LIMITS, Limits, Recorder
from edgeperc.replay import rig_plan
from edgeperc.serve import stop_signals
from edgeperc.sinks.record import RecordSink
from edgeperc.supervise.daemon import supervise

_PLAIN_EVERY_S = 10.0


def record(
    app: str,
    path: Path,
    *,
    changes: Sequence[str] = (),
    duration_s: float | None = None,
    limits: Limits = NO_LIMITS,
    topics: Sequence[str] = (),
    inproc: bool = False,
    lossless: bool = False,
    console: Console,
) -> tuple[RecordingStatus, tuple[str, ...], tuple[str, ...]]:
    """Run an app with all its sinks and record it until Ctrl-C, its sensors' end or `duration_s`.

    path: of the file, which must not be there. lossless: nothing is dropped, the sensors wait; only
    for rigs with a time of their own, such as the twin. Returns the recording, and the run's errors
    and hints. Raises ConfigError or ModelError before anything starts.
    """
    path = path if path.suffix == SUFFIX else path.with_name(path.name + SUFFIX)
    if lossless:
        plan = rig_plan(app, changes=changes, duration_s=duration_s, out=None, listen=None)
    else:
        plan = Plan.load(app, changes)
    with loading(console):
        run: Running
        if lossless:
            run = assemble(plan, lossless=True, speed=None)
        else:
            run = assemble(plan) if inproc else supervise(plan)
    try:
        models = [pipeline.model for pipeline in run.pipelines()]
        about = About.of(plan, models)
        recorder = Recorder(path, about, topics=topics, limits=limits, wait=lossless)
    except BaseException:
        run.stop()
        raise
    run.add(RecordSink(recorder))
    console.print(escape(f"recording {path}; stop: Ctrl-C"), soft_wrap=True)
    _watch(run, recorder.status, console, None if lossless else duration_s)
    console.print(escape(said(recorder.status())), soft_wrap=True)
    for topic, count in sorted(recorder.dropped().items()):
        console.print(escape(f"  dropped {count:,} of {topic}"))
    return recorder.status(), run.errors, run.hints


def said(status: RecordingStatus) -> str:
    """One line on how a recording goes or went."""
    rate = status.bytes / 1e6 / max(status.seconds, 0.1)
    files = f" in {status.files} files" if status.files > 1 else ""
    line = f"{status.path}: {status.bytes / 1e6:.1f} MB{files}, {rate:.1f} MB/s"
    return f"{line}, {status.messages:,} messages, {status.dropped:,} dropped"


def _watch(
    run: Running,
    status: Callable[[], RecordingStatus],
    console: Console,
    duration_s: float | None,
) -> None:
    """Run it to its end, and say now and then how the recording goes."""
    ended, said_s = False, time.monotonic()
    deadline_s = float("inf") if duration_s is None else time.monotonic() + duration_s
    with stop_signals() as stopping, console.status("") as line:
        run.start()
        try:
            while not (ended or stopping.is_set() or time.monotonic() > deadline_s):
                ended = run.wait(0.2)
                run.report()
                now = status()
                if now.error:
                    break
                line.update(escape(said(now)))
                if not console.is_terminal and time.monotonic() >= said_s + _PLAIN_EVERY_S:
                    said_s = time.monotonic()
                    console.print(escape(said(now)), soft_wrap=True)
        finally:
            run.stop()
