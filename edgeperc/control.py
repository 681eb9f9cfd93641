"""What sinks may ask of the daemon that they belong to: how it is, and to change what it does.

    def __init__(self, *, inventory: Inventory, daemon: Daemon) -> None:
        self._daemon = daemon        # injected, as the inventory is
    ...
    print(self._daemon.status().sensors)

All methods may be called from any thread. What cannot be done here is a ControlError: a replay, for
one, takes no orders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from edgeperc.errors import ConfigError
from edgeperc.packet import Gaze, GazeRange
from edgeperc.status import PipelineStatus, SensorStatus

Why = Literal["impossible", "unknown", "conflict", "taken", "range"]
State = Literal["starting", "serving", "degraded", "stopping"]
WorkerState = Literal["starting", "running", "restarting", "failed", "ended"]


class ControlError(ConfigError):
    """An order that changed nothing. why: this daemon cannot, it names nothing that is there, what
    it was based on has changed, somebody else has it, or a value lies beyond what is reached.
    """

    def __init__(self, message: str, *, why: Why = "impossible", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.why = why


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparing:
    """What a process gets ready before it can work: a network is loaded, or its engine built.

    network: its file; "" while there is none yet, or of a model without onnxruntime. number, count:
    which of the model's networks, from 1, and how many it has; 0 where it is not known. seconds: so
    far. bytes: of an engine that is being built, on disk so far, else 0.
    """

    model: str
    network: str
    number: int
    count: int
    seconds: float
    bytes: int = 0

    def __str__(self) -> str:
        network = f": {self.network}" if self.network else ""
        which = f", {self.number} of {self.count}" if self.number and self.count > 1 else ""
        built = f", engine of {self.bytes / 1e6:.0f} MB so far" if self.bytes else ""
        return f"preparing {self.model}{network}{which}, {self.seconds:.0f} s{built}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """A process of the daemon. pid: 0 while there is none. rss_bytes: resident memory.

    restarts: since the daemon began. beat_s: seconds since it made progress. preparing: what it
    loads or builds before it can work.
    """

    name: str
    state: WorkerState
    pid: int = 0
    restarts: int = 0
    rss_bytes: int = 0
    beat_s: float = 0.0
    error: str = ""
    preparing: Preparing | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingStatus:
    """A recording, running or just ended. path: of its newest file. error: why it ended, or ""."""

    name: str
    path: str
    running: bool
    seconds: float = 0.0
    bytes: int = 0
    messages: int = 0
    dropped: int = 0
    files: int = 1
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkStatus:
    """A way out that counts. kind: its class. where: to look. counts: see CountingSink."""

    kind: str
    where: str
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonStatus:
    """How a daemon is. uptime_s: since it was started. workers: empty where all is one process."""

    version: str
    app: str
    state: State
    uptime_s: float
    sensors: tuple[SensorStatus, ...] = ()
    pipelines: tuple[PipelineStatus, ...] = ()
    workers: tuple[WorkerStatus, ...] = ()
    sinks: tuple[SinkStatus, ...] = ()
    recording: RecordingStatus | None = None
    errors: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
    """What a person should know of the machine: power mode, throttling, priority."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppText:
    """An app's file as it runs, changes of the command line put in. etag: changes with the text."""

    name: str
    toml: str
    etag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorState:
    """Where the mirror looks and who says so. holder: of the steering lease; "" is the search."""

    gaze: Gaze | None
    reach: GazeRange | None
    holder: str
    lease_s: float = 0.0


class Steering(Protocol):
    """One client at a time steers the mirror, for as long as it renews its lease."""

    def acquire(self, holder: str, ttl_s: float) -> str:
        """Take the mirror from the search; a lease. ttl_s: 0 is what the daemon thinks fit.

        Raises ControlError if somebody has it.
        """

    def renew(self, lease: str, ttl_s: float) -> None:
        """Hold on. Raises ControlError for a lease that is over."""

    def release(self, lease: str) -> None:
        """Give the mirror back to the search; a lease that is over is no error."""

    def point(self, lease: str, gaze: Gaze) -> None:
        """Look there from now on. Raises ControlError without the lease, or beyond the reach."""

    def stop(self) -> None:
        """Take the mirror from whoever has it; the search goes on."""

    def state(self) -> MirrorState:
        """Where it looks now."""


class Daemon(Protocol):
    """A daemon, seen from its sinks."""

    @property
    def steering(self) -> Steering | None:
        """Who points the mirror; None without a mirror."""

    def status(self) -> DaemonStatus:
        """How it is now."""

    def app(self) -> AppText:
        """What it runs."""

    def validate(self, toml: str) -> None:
        """Check an app's file without running it. Raises ConfigError.

        Code that it names is refused: such text comes over the network.
        """

    def apply(self, toml: str, etag: str) -> AppText:
        """Run another app's file from now on; pipelines that are the same go on undisturbed.

        etag: of what the change was based on. Raises ConfigError, ControlError ("conflict").
        """

    def start_recording(
        self, name: str = "", *, max_bytes: int = 0, max_s: float = 0.0
    ) -> RecordingStatus:
        """Record all sensors and results into a new file. name: a plain file name, or "" for the
        time of day. max_bytes, max_s: then it goes on in a further one; 0 is never. Raises
        ControlError.
        """

    def stop_recording(self) -> RecordingStatus:
        """End it, and make its file whole. Raises ControlError if none runs."""
