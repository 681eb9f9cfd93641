"""One worker process, seen from the front: started, watched, killed if it hangs, started anew.

    worker = Worker("pipelines/wide", "pipeline", order, owner, limits=Limits())
    worker.begin()
    worker.await_ready()        # raises what it cannot start for
    worker.go()
    print(worker.status())
    worker.stop(); worker.join(1.0)

Whatever becomes of it, nobody else is disturbed.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal, Protocol

from edgeperc import errors
from edgeperc.config import SuperviseTable
from edgeperc.control import Preparing, WorkerState, WorkerStatus
from edgeperc.errors import EdgepercError, ModelError
from edgeperc.supervise.feed import Inlet, Told
from edgeperc.supervise.link import pair
from edgeperc.supervise.memory import own_memory
from edgeperc.supervise.orders import Ready, Report
from edgeperc.supervise.preparing import Doing, building_late
from edgeperc.supervise.totals import total

log = logging.getLogger("edgeperc")

QUICK_S = 10.0
"""A worker that lives no longer than this died quickly."""
QUICK_DEATHS = 5
"""After so many quick deaths in a row it has failed, and is tried again now and then."""
SETTLED_S = 60.0
"""After so long a worker has all the memory that it needs."""
MIN_BACKOFF_S, MAX_BACKOFF_S, FAILED_S = 0.5, 30.0, 60.0

_POLL_S = 0.1
_RSS_EVERY_S = 1.0
_HICCUP_S = 1.0  # a longer pause between two looks or reports is the machine's, not the worker's

Kind = Literal["sensor", "pipeline"]


class Owner(Protocol):
    """Who hears of a worker; called from the worker's thread, and must not block."""

    def ready(self, worker: Worker) -> None:
        """It has everything it needs, for the first time or anew."""

    def going(self, worker: Worker) -> Any:
        """It is about to be sent off; returns what it is told."""

    def gone(self, worker: Worker) -> None:
        """It was sent off."""

    def heard(self, worker: Worker, kind: str, content: Any) -> None:
        """It said something, or ("object", it) sent a result."""

    def down(self, worker: Worker, why: str) -> None:
        """It died, and will be started anew."""


class Worker:
    """A process of `python -m edgeperc.supervise`. report: what it said of itself last.

    made: what it said when it was ready. restarts: since `begin`. key: for whoever made it. before:
    what earlier processes counted, and those of whoever it takes over from.
    """

    def __init__(
        self, name: str, kind: Kind, order: Any, owner: Owner, *, limits: SuperviseTable
    ) -> None:
        self.name, self.kind, self.order = name, kind, order
        self.key: Any = None
        self.report, self.made = Report(), Ready()
        self.before = Report()
        self.restarts = 0
        self.error = ""
        self.limits = limits
        self._owner = owner
        self._state: WorkerState = "starting"
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.RLock()  # of what follows
        self._inlet: Inlet | None = None
        self._is_ready = False
        self._is_wanted = False  # `go` was called
        self._stopping = threading.Event()
        self._first = threading.Event()
        self._refusal: EdgepercError | None = None
        self._progress_s = time.monotonic()
        self._attended_s: float | None = None
        self._rss_bytes = 0
        self._doing: Doing | None = None
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)

    def begin(self) -> None:
        """Start the process, and keep it started."""
        self._thread.start()

    def await_ready(self) -> None:
        """Wait until it has everything it needs. Raises what keeps it from that."""
        self._first.wait()
        if self._refusal:
            raise self._refusal

    def go(self) -> None:
        """Send it off, now if it is ready, and each time that it is started anew."""
        with self._lock:
            self._is_wanted = True
            if self._is_ready:
                self._send_off()

    def send(self, kind: str, content: Any = None, fds: tuple[int, ...] = ()) -> None:
        """Tell it something; that it is gone, `begin`'s thread finds out by itself."""
        with self._lock, suppress(BrokenPipeError):
            if self._inlet:
                self._inlet.link.send((kind, content), fds)

    def stop(self) -> None:
        """Tell it to end, and start it no more; may be called twice and from any thread."""
        self._stopping.set()
        self.send("stop")

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until it is over with it; False if it is not."""
        if self._thread.ident:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def kill(self) -> None:
        """End its process now."""
        if self._process:
            self._process.kill()

    @property
    def is_up(self) -> bool:
        """Whether it is at work."""
        return self._state == "running"

    @property
    def has_answered(self) -> bool:
        """Whether it is at work, and this process of it gave a result."""
        pipeline = self.report.pipeline
        return self.is_up and pipeline is not None and pipeline.meter.results > 0

    @property
    def unattended_s(self) -> float:
        """How long ago what it says was last listened to, where it should be."""
        attended_s = self._attended_s
        return 0.0 if attended_s is None else time.monotonic() - attended_s

    @property
    def total(self) -> Report:
        """What it said last, and what all its processes counted together."""
        with self._lock:
            lost = self._inlet.lost if self._inlet else 0  # results that the front was too slow for
            return total(replace(self.report, lost=self.report.lost + lost), self.before)

    def follow(self, old: Worker) -> None:
        """Count on from where another came to, whose place it takes."""
        with self._lock:
            self.before = old.total

    def status(self) -> WorkerStatus:
        """How it is now."""
        process = self._process
        alive = process is not None and self._state in ("starting", "running")
        return WorkerStatus(
            name=self.name,
            state=self._state,
            pid=process.pid if alive and process else 0,
            restarts=self.restarts,
            rss_bytes=self._rss_bytes if alive else 0,
            beat_s=time.monotonic() - self._progress_s,
            error=self.error,
            preparing=self._preparing(process.pid) if alive and process else None,
        )

    def _preparing(self, pid: int) -> Preparing | None:
        if self._doing:
            return self._doing.status(pid)
        if self.kind == "pipeline" and self.is_up and not self.has_answered and self.made.ref:
            return building_late(self.made.ref.name, pid)
        return None

    def _live(self) -> None:
        deaths, backoff_s = 0, MIN_BACKOFF_S
        while not self._stopping.is_set():
            begun_s = time.monotonic()
            try:
                why = self._attend()
            except EdgepercError as error:
                self._refusal, why = error, str(error)
            finally:
                self._bury()
            if not why or self._stopping.is_set():
                break
            if not self._first.is_set():  # it never came up: whoever waits decides
                self._refusal = self._refusal or ModelError(f"{self.name}: its process died: {why}")
                self.error, self._state = why, "failed"
                self._first.set()
                return
            if time.monotonic() - begun_s > QUICK_S:
                deaths, backoff_s = 0, MIN_BACKOFF_S
            deaths += 1
            self.error, self.restarts = why, self.restarts + 1
            self._state = "failed" if deaths >= QUICK_DEATHS else "restarting"
            wait_s = FAILED_S if self._state == "failed" else backoff_s
            who = {"worker": self.name}
            log.warning("%s; starting it again in %g s", why, wait_s, extra=who)
            self._owner.down(self, why)
            self._attended_s = None
            self._stopping.wait(wait_s)
            backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)
        self._state, self.error = "ended", ""
        self._attended_s = None
        self._first.set()

    def _attend(self) -> str:
        """Start the process and hear what it says until it ends: why it died, "" if as it should.

        Raises what keeps it from starting.
        """
        self._start()
        while True:
            assert self._inlet
            self._look_at_the_time()
            try:
                messages = self._inlet.link.receive(_POLL_S)
            except EOFError:
                return self._last_words()
            for message, fds in messages:
                self._heard_s = time.monotonic()
                if isinstance(message, Told):
                    came: list[tuple[str, Any]] = []
                    self._inlet.accept(message, fds, came)
                    for kind, content in came:
                        self._owner.heard(self, kind, content)
                elif message[0] == "ended":
                    return ""
                else:
                    self._hear(*message)
            if self._stopping.is_set() and self._process and self._process.poll() is not None:
                return ""
            if trouble := self._trouble():
                self.kill()
                return trouble

    def _start(self) -> None:
        link, theirs = pair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edgeperc.supervise", self.kind, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in a terminal is for the front alone
            )
        with self._lock:
            self.before, self.report = self.total, Report()
            self._inlet, self._is_ready = Inlet(link), False
        self._state = "starting"
        self._heard_s = self._begun_s = self._progress_s = self._rss_s = time.monotonic()
        self._reported_s, self._busy_s = self._begun_s, 0.0
        self._settled_bytes, self._doing = 0, None
        self.send("order", self.order)

    def _hear(self, kind: str, content: Any) -> None:
        if kind == "report":
            if content.progress != self.report.progress:
                self._progress_s = time.monotonic()
            if content.at and content.at == self.report.at:
                self._busy_s += min(_HICCUP_S, time.monotonic() - self._reported_s)
            else:
                self._busy_s = 0.0
            self.report = content
            self._reported_s = time.monotonic()
        elif kind == "preparing":
            self._doing = Doing(*content)
        elif kind == "ready":
            self.made, self._doing = content, None
            self._owner.ready(self)
            with self._lock:
                self._is_ready = True
                if self._is_wanted:
                    self._send_off()
            self._first.set()
        elif kind == "failed":
            name, message, hint = content
            raise getattr(errors, name, EdgepercError)(message, hint=hint)
        elif kind == "log":
            level, text = content
            log.log(level, "%s", text, extra={"worker": self.name})
        else:
            self._owner.heard(self, kind, content)

    def _send_off(self) -> None:
        self.send("go", self._owner.going(self))
        self._state, self.error = "running", ""
        self._progress_s = self._heard_s = time.monotonic()
        self._owner.gone(self)

    def _look_at_the_time(self) -> None:
        """Leave out of all limits what this process itself was stopped for, or the machine was."""
        before_s, self._attended_s = self._attended_s, time.monotonic()
        if before_s and (missed_s := self._attended_s - before_s - _HICCUP_S) > 0:
            self._heard_s += missed_s
            self._begun_s += missed_s

    def _trouble(self) -> str:
        """Why the process has to go, if it has to."""
        limits, now_s = self.limits, time.monotonic()
        silent_s = now_s - self._heard_s
        if not self._is_ready:
            too_long = now_s - self._begun_s > limits.start_s
            return f"was not ready within {limits.start_s:g} s (start_s)" if too_long else ""
        if not self._is_wanted:  # it waits to be sent off, and has nothing to say
            return ""
        if silent_s > limits.hang_s:
            return f"hung: it said nothing for {silent_s:.1f} s (hang_s)"
        patience_s = limits.hang_s if self.report.progress else limits.start_s
        if self._busy_s > limits.start_s or (self._busy_s > patience_s and not self._builds):
            return f"hung: it was at one packet for {self._busy_s:.1f} s (hang_s)"
        if now_s - self._rss_s > _RSS_EVERY_S and self._process:
            self._rss_s = now_s
            self._rss_bytes = own_memory(self._process.pid)
            self._watch_growth(now_s)
            if 0 < limits.max_rss_mib < self._rss_bytes >> 20:
                return f"grew to {self._rss_bytes >> 20} MiB (max_rss_mib)"
        return ""

    @property
    def _builds(self) -> bool:
        """Whether it builds an engine."""
        return bool(self._process and building_late("", self._process.pid))

    def _watch_growth(self, now_s: float) -> None:
        """Say it when a worker has grown by half, and each time again, since it had settled."""
        if not self._settled_bytes and now_s - self._begun_s > SETTLED_S:
            self._settled_bytes = self._rss_bytes
        elif self._settled_bytes and self._rss_bytes > 1.5 * self._settled_bytes:
            grown = (self._settled_bytes >> 20, self._rss_bytes >> 20)
            log.warning("grew from %d to %d MiB", *grown, extra={"worker": self.name})
            self._settled_bytes = self._rss_bytes

    def _last_words(self) -> str:
        assert self._process
        try:
            code = self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            return "it hung up"
        if self._stopping.is_set():
            return ""
        return f"signal {-code} ({_name(-code)})" if code < 0 else f"exit code {code}"

    def _bury(self) -> None:
        process, self._is_ready = self._process, False
        if process:
            try:
                process.wait(timeout=1.0 if self._stopping.is_set() else 0.2)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        with self._lock:
            if self._inlet:
                self._inlet.link.close()


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
