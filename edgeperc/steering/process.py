"""The search in a process of its own, so that nothing in the daemon can delay it.

Between threads of one process a 120 Hz loop waits for the interpreter, 12 ms at the worst per cent;
between processes it does not. Hints go in and results come out over a socket that the loop never
waits for.
"""

from __future__ import annotations

import logging
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from edgeperc import errors
from edgeperc.control import WorkerState, WorkerStatus
from edgeperc.errors import EdgepercError, ModelError
from edgeperc.packet import Frame, Gaze, GazeRange
from edgeperc.result import ModelRef, Result
from edgeperc.status import PipelineStatus, SensorStatus
from edgeperc.steering.channel import pair
from edgeperc.steering.lease import MirrorLease
from edgeperc.supervise import link as links
from edgeperc.supervise.feed import Inlet
from edgeperc.supervise.memory import own_memory
from edgeperc.supervise.preparing import Doing
from edgeperc.supervise.totals import NOTHING, pipeline_total, sensor_total

log = logging.getLogger("edgeperc")

_RESTART_S = 2.0
_STOP_S = 0.6
_POLL_MS = 100


@dataclass(frozen=True, kw_only=True)
class Status:
    """What the loop's process says of itself now and then."""

    sensors: tuple[SensorStatus, ...]
    pipeline: PipelineStatus
    refs: tuple[ModelRef, ...]
    reach: GazeRange | None = None


class ProcessSearch:
    """Runs a plan's search in a child process, and starts it anew if that dies.

    plan: as the daemon loaded it. anchor: a sensor time and the monotonic time that it stands for.
    wait: until the child is ready; else `load` does. met: once the search has ended, when each slot
    was due and how late it was, in ns. Raises what keeps the child from getting ready: ConfigError,
    ModelError.
    """

    def __init__(
        self,
        plan: Any,
        *,
        hints: frozenset[str],
        anchor: Callable[[], tuple[int, int]],
        wait: bool = True,
    ) -> None:
        self.hints = hints
        self._plan = plan
        self._anchor = anchor
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # of the channel, which several threads send by
        self._told = threading.Lock()  # of what this child and earlier ones said
        self._crash = ""
        self._restarts = 0
        self._is_shown = False
        self._state: WorkerState = "starting"
        self._heard_s = time.monotonic()
        gaze = PipelineStatus(
            name=plan.app.search.gaze, model=ModelRef(name=""), meter=NOTHING, error=""
        )
        self._status = Status(sensors=(), pipeline=gaze, refs=())
        self._doing: Doing | None = None
        self._before: Status | None = None
        self.met: tuple[tuple[int, int], ...] = ()
        self._gaze: Gaze | None = None
        self.steering = MirrorLease(
            partial(self._send, "steer"),
            reach=lambda: self._status.reach,
            gaze=lambda: self._gaze,
            is_here=lambda: self._state == "running",
        )
        self._begin()
        if wait:
            self.load()

    def load(self) -> None:
        """Wait until the child has loaded everything. Raises what keeps it from that."""
        try:
            status = self._first_status()
        except BaseException:
            self._process.kill()
            self._reap()
            raise
        with self._told:
            if self._restarts:
                self._before = _total(self._status, self._before)
            self._status = status

    def discard(self) -> None:
        """End a child that was never sent off."""
        self._stopping.set()
        self._process.kill()
        self._reap()

    def run(
        self, emit: Callable[[Result], None], see: Callable[[Frame], None] | None = None
    ) -> None:
        """Hand on the child's results until it ends or `stop`, and while `show` its pictures."""
        while not self._stopping.is_set():
            # With the order that holds, so that its first look is not the scheduler's.
            self._send("go", (self._anchor(), self.steering.order))
            self._state = "running"
            self._send("steer", self.steering.order)
            self._send("show", self._is_shown)
            if see:
                look = partial(_look, self._pictures, see)
                threading.Thread(target=look, name="search pictures", daemon=True).start()
            ended = self._listen(emit)
            self._reap()
            if ended or self._stopping.is_set():
                self._state = "ended"
                return
            self._state, self._gaze = "restarting", None
            self._doing = None
            log.warning("the search's process died (%s); starting it again", self._crash)
            self._restarts += 1
            if not self._come_back():
                return

    def hint(self, pipeline: str, result: Result) -> None:
        """Pass a result to the child."""
        self._send("hint", result)

    def passed(self, pipeline: str, end_ns: int) -> None:
        """A live search takes hints as they come."""

    def ended(self, pipeline: str) -> None:
        """A live search goes on without hints."""

    def show(self, wanted: bool) -> None:
        """Whether its pictures are wanted, too."""
        if wanted != self._is_shown:
            self._is_shown = wanted
            self._send("show", wanted)

    def worker(self) -> WorkerStatus:
        """How its process is."""
        alive = self._state in ("starting", "running")
        return WorkerStatus(
            name="search",
            state=self._state,
            pid=self._process.pid if alive else 0,
            restarts=self._restarts,
            rss_bytes=own_memory(self._process.pid) if alive else 0,
            beat_s=time.monotonic() - self._heard_s,
            error="" if alive else self._crash,
            preparing=self._doing.status(self._process.pid) if self._doing else None,
        )

    def stop(self) -> None:
        """Tell the child to end; it is killed if it does not."""
        self._stopping.set()
        self._send("stop", None)

    @property
    def refs(self) -> tuple[ModelRef, ...]:
        """What computes the results: the detector and the scheduler."""
        return self._status.refs

    def waiting(self) -> set[str]:
        """Its own name, while it has given no result since it was started last."""
        pipeline = self._status.pipeline
        return set() if self._state == "running" and pipeline.meter.results else {pipeline.name}

    def follow(self, old: ProcessSearch) -> None:
        """Count on from where another came to, whose place it takes."""
        self._before = old.total()

    def total(self) -> Status:
        """As the child said last, with what earlier ones counted."""
        with self._told:
            return _total(self._status, self._before)

    def sensors(self) -> tuple[SensorStatus, ...]:
        """Its camera and its mirror, as the child said last."""
        return self.total().sensors

    def pipelines(self) -> tuple[PipelineStatus, ...]:
        """As the child said last."""
        pipeline = self.total().pipeline
        if self._restarts:
            note = f"{pipeline.note}; restarted {self._restarts} times, last after {self._crash}"
            pipeline = replace(pipeline, note=note)
        return (pipeline,)

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._process.pid

    def _come_back(self) -> bool:
        """Start the child anew, as often as it takes; False once it is no longer wanted."""
        while not self._stopping.wait(_RESTART_S):
            try:
                self._start()
            except EdgepercError as error:  # a file that was taken away may be put back
                self._crash, self._state, self._doing = str(error), "restarting", None
            else:
                return True
        return False

    def _start(self) -> None:
        self._state = "starting"
        self._begin()
        self.load()

    def _begin(self) -> None:
        self._channel, theirs = pair()
        self._pictures, theirs_too = links.pair()
        with theirs, theirs_too:
            fds = [theirs.fileno(), theirs_too.fileno()]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edgeperc.steering", *map(str, fds)],
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in a terminal is for the daemon alone
            )
        self._send("plan", self._plan)

    def _first_status(self) -> Status:
        """Wait until the child has loaded everything. Raises what it raised."""
        patience_s = self._plan.app.supervise.start_s
        deadline_s = time.monotonic() + patience_s
        while time.monotonic() < deadline_s:
            if self._stopping.is_set():
                raise ModelError("the search is not wanted any more")
            try:
                messages = list(self._messages())
            except (EOFError, BrokenPipeError):
                raise ModelError(f"the search's process died: {self._last_words()}") from None
            for kind, content in messages:
                if kind == "status" and isinstance(content, Status):
                    self._doing = None
                    return content
                if kind == "preparing":
                    self._doing = Doing(*content)
                if kind == "failed":
                    name, message, hint = content
                    raise getattr(errors, name, EdgepercError)(message, hint=hint)
        raise ModelError(f"the search's process was not ready within {patience_s:g} s (start_s)")

    def _listen(self, emit: Callable[[Result], None]) -> bool:
        """Hand on what the child says; True if it ended as it should."""
        stop_s = float("inf")
        self._heard_s = time.monotonic()
        while time.monotonic() < stop_s:
            try:
                for kind, content in self._messages():
                    self._heard_s = time.monotonic()
                    if kind == "result":
                        self._gaze = getattr(content, "gaze", None) or self._gaze
                        emit(content)
                    elif kind == "status":
                        self._status = content
                    elif kind == "ended":
                        self.met = content
                        return True
            except (EOFError, BrokenPipeError):
                self._crash = self._last_words()
                return False
            silent_s = time.monotonic() - self._heard_s
            if silent_s > self._plan.app.supervise.hang_s:
                self._process.kill()
                self._crash = f"hung: it said nothing for {silent_s:.1f} s (hang_s)"
                return False
            if self._stopping.is_set():
                stop_s = min(stop_s, time.monotonic() + _STOP_S)
        return True

    def _messages(self) -> Iterator[tuple[str, Any]]:
        """What has come, after waiting a moment for it."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.poll(_POLL_MS)
        with self._lock:
            self._channel.flush()
            messages = self._channel.receive()
        yield from messages

    def _send(self, kind: str, content: Any) -> None:
        # That the child is gone, `run` finds out by itself.
        with self._lock, suppress(OSError):
            self._channel.send((kind, content), must_arrive=kind != "hint")

    def _last_words(self) -> str:
        try:
            code = self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            return "it hung up"
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def _reap(self) -> None:
        try:
            self._process.wait(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with self._lock:
            self._channel.close()
        self._pictures.close()


def _total(now: Status, before: Status | None) -> Status:
    """A status with the counts of earlier processes, by name."""
    if before is None:
        return now
    sensors = {each.name: each for each in before.sensors}
    same = before.pipeline.name == now.pipeline.name
    return replace(
        now,
        sensors=tuple(sensor_total(each, sensors.get(each.name)) for each in now.sensors),
        pipeline=pipeline_total(now.pipeline, before.pipeline if same else None),
    )


def _look(pictures: links.Link, see: Callable[[Frame], None]) -> None:
    """Hand on what the search camera sees, until its process is gone."""
    inlet = Inlet(pictures)
    with suppress(EOFError):
        while True:
            for kind, content in inlet.receive(1.0):
                if kind == "object":
                    see(content)
