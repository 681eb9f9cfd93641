"""The daemon as its sinks see it."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace

from edgeperc import __version__
from edgeperc.control import AppText, ControlError, DaemonStatus, RecordingStatus, State, Steering
from edgeperc.machine import machine_notes
from edgeperc.pipeline import Running
from edgeperc.plan import Plan
from edgeperc.recording.control import Recordings

_ALONE = "this daemon runs its app in one process and keeps it to its end"


class LocalDaemon:
    """One run and its plan. `bind` gives it the run, which needs the sinks first."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._run: Running | None = None
        self._recordings: Recordings | None = None
        self._started_s = time.monotonic()

    def bind(self, run: Running) -> None:
        """The run that all is about."""
        self._run = run
        self._recordings = Recordings(lambda: self._plan, run)

    def changed(self) -> None:
        """Another plan runs now: what is being recorded holds that, too."""
        if self._recordings:
            self._recordings.adapt()

    @property
    def steering(self) -> Steering | None:
        """Who points the mirror; None without a search."""
        search = self._run.search if self._run else None
        return search.steering if search else None

    def status(self) -> DaemonStatus:
        """How it is now."""
        run = self._run
        new = DaemonStatus(
            version=__version__,
            app=self._plan.app_path.stem,
            state="starting",
            uptime_s=time.monotonic() - self._started_s,
            notes=machine_notes(),
        )
        if run is None:
            return new
        workers = run.workers()
        doing = [f"{each.name}: {each.preparing}" for each in workers if each.preparing]
        sensors, pipelines = run.sensors(), run.pipelines()
        state: State = "serving"
        if run.waiting():
            state = "starting"
        if run.errors or any(sensor.state in ("lost", "failed") for sensor in sensors):
            state = "degraded"
        if any(worker.state in ("restarting", "failed") for worker in workers):
            state = "degraded"
        return replace(
            new,
            state=state,
            sensors=sensors,
            pipelines=pipelines,
            workers=workers,
            errors=run.errors,
            notes=(*doing, *new.notes),
            sinks=run.sinks(),
            recording=self._recordings.status() if self._recordings else None,
        )

    def app(self) -> AppText:
        """What it runs."""
        path = self._plan.app_path
        text = path.read_text() if path.is_file() else ""
        etag = hashlib.sha256(text.encode()).hexdigest()[:16]
        return AppText(name=path.stem, toml=text, etag=etag)

    def validate(self, toml: str) -> None:
        """Refused."""
        raise ControlError(_ALONE)

    def apply(self, toml: str, etag: str) -> AppText:
        """Refused."""
        raise ControlError(_ALONE)

    def start_recording(
        self, name: str = "", *, max_bytes: int = 0, max_s: float = 0.0
    ) -> RecordingStatus:
        """See Daemon."""
        if self._recordings is None:
            raise ControlError("there is nothing to record yet")
        return self._recordings.start(name, max_bytes=max_bytes, max_s=max_s)

    def stop_recording(self) -> RecordingStatus:
        """See Daemon."""
        if self._recordings is None:
            raise ControlError("nothing is recorded", why="unknown")
        return self._recordings.stop()
