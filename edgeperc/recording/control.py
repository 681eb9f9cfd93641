"""Recordings that somebody starts and stops while a run goes on.

    recordings = Recordings(lambda: plan, run)
    recordings.start("drive")       # ~/.local/share/edgeperc/recordings/drive.mcap
    recordings.status()
    recordings.stop()

One at a time. All methods may be called from any thread; what cannot be done is a ControlError.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from pathlib import Path

from edgeperc.control import ControlError, RecordingStatus, Why
from edgeperc.errors import ConfigError
from edgeperc.pipeline import Running
from edgeperc.plan import Plan
from edgeperc.recording.head import About
from edgeperc.recording.names import file_name, recordings_home
from edgeperc.recording.recorder import Limits, Recorder
from edgeperc.sinks.record import RecordSink

LEAST_BYTES = 1_000_000
LEAST_S = 1.0
"""Smaller files than these are not made for clients."""


class Recordings:
    """The recordings of one run, into one folder. plan: what runs now."""

    def __init__(self, plan: Callable[[], Plan], run: Running, folder: Path | None = None) -> None:
        self._plan = plan
        self._run = run
        self._folder = folder or recordings_home()
        self._lock = threading.Lock()
        self._sink: RecordSink | None = None

    def start(self, name: str = "", *, max_bytes: int = 0, max_s: float = 0.0) -> RecordingStatus:
        """Record all sensors and results into a new file; name: a plain file name, or "".

        max_bytes, max_s: then it goes on in a further one; 0 is never.
        """
        limits = _limits(max_bytes, max_s)
        with self._lock:
            if self._sink and self._sink.recorder.status().running:
                running = self._sink.recorder.status().name
                raise ControlError(f"'{running}' is being recorded already", why="taken")
            path = self._folder / file_name(name)
            try:
                recorder = Recorder(path, self._about(), limits=limits)
            except ConfigError as error:
                why: Why = "conflict" if path.exists() else "impossible"
                raise ControlError(str(error), why=why, hint=error.hint) from error
            self._sink = RecordSink(recorder)
            self._run.add(self._sink)
            return recorder.status()

    def stop(self) -> RecordingStatus:
        """End it, and make its file whole. Raises ControlError if none runs."""
        with self._lock:
            if self._sink is None or self._sink.is_stopped:
                raise ControlError("nothing is recorded", why="unknown")
            self._run.remove(self._sink)
            return self._sink.recorder.status()

    def adapt(self) -> None:
        """Another plan runs now; a recording that runs goes on."""
        sink = self._sink
        if sink and not sink.is_stopped:
            sink.recorder.become(self._about())

    def status(self) -> RecordingStatus | None:
        """The newest recording, running or ended; None if there was none."""
        sink = self._sink
        return sink.recorder.status() if sink else None

    def _about(self) -> About:
        return About.of(self._plan(), [pipeline.model for pipeline in self._run.pipelines()])


def _limits(max_bytes: int, max_s: float) -> Limits:
    """Those that were asked for. Raises ControlError for such as would fill a folder with files."""
    if not (max_bytes == 0 or max_bytes >= LEAST_BYTES):
        raise ControlError(f"max_bytes is {max_bytes}, must be at least {LEAST_BYTES}", why="range")
    if not (max_s == 0 or LEAST_S <= max_s < math.inf):
        raise ControlError(f"max_seconds is {max_s:g}, must be at least {LEAST_S:g}", why="range")
    return Limits(max_bytes=max_bytes or None, max_s=max_s or None)
