"""A daemon in a process of its own, for whoever wants to hurt it and see what becomes of the rest.

    with Victim(app_text, folder) as victim:
        victim.wait_results("a")
        os.kill(victim.worker("pipelines/a"), signal.SIGKILL)
        victim.wait_results("a", 5)

Everything is seen from outside: processes in /proc, results and health over gRPC.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from edgeperc import client
from edgeperc.errors import EdgepercError

READY_S, PATIENCE_S, POLL_S = 90.0, 60.0, 0.05
STOP_S = 10.0


class FaultError(Exception):
    """What should have happened did not."""


class ImpossibleError(Exception):
    """This machine does not allow it."""


class Victim:
    """`edgeperc serve` of an app, with a client that counts results by pipeline's model.

    app: text of the app's file, whose first sink is gRPC on port 0. files: further files beside
    it, by name. options: of the command. Raises FaultError if it is not ready in time.
    """

    def __init__(
        self,
        app: str,
        folder: Path,
        *,
        files: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.app = folder / "app.toml"
        self.app.write_text(app)
        for name, text in (files or {}).items():
            (folder / name).write_text(text)
        self.log = folder / "log.txt"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edgeperc", "serve", str(self.app), *options],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                cwd=folder,
                env={**os.environ, "COLUMNS": "200", **(environment or {})},
            )
        self.address = ""
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._over = threading.Event()

    def __enter__(self) -> Victim:
        try:
            self.until(self._has_address, "serves", READY_S)
            threading.Thread(target=self._listen, daemon=True).start()
        except BaseException:
            self.process.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        workers = list(self.workers().values())
        if self.process.poll() is None:
            self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_S)
        self.process.kill()
        self.process.wait()
        for pid in workers:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @property
    def lives(self) -> bool:
        """Whether the daemon itself is there."""
        return self.process.poll() is None

    def results(self, model: str) -> int:
        """How many results of a model have come so far."""
        with self._lock:
            return self._counts[model]

    def all_results(self) -> int:
        """How many results have come so far."""
        with self._lock:
            return self._counts.total()

    def wait_results(self, model: str, count: int = 1, patience_s: float = PATIENCE_S) -> float:
        """Wait for so many more results of a model; how long that took, in s."""
        before = self.results(model)
        what = f"gives {count} results of {model}"
        return self.until(lambda: self.results(model) >= before + count, what, patience_s)

    def healthy(self, part: str = "") -> bool | None:
        """What the health service says of a part; None where it knows none or does not answer."""
        with grpc.insecure_channel(self.address) as channel:
            request = health_pb2.HealthCheckRequest(service=part)
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=5)
            except grpc.RpcError:
                return None
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def wait_health(self, part: str, well: bool, patience_s: float = PATIENCE_S) -> float:
        """Wait until a part is said to be well, or not; how long that took, in s."""
        what = f"says that {part or 'the whole'} is {'well' if well else 'not well'}"
        return self.until(lambda: self.healthy(part) is well, what, patience_s)

    def workers(self) -> dict[str, int]:
        """Process ids of the daemon's children: "sensor 1", "pipeline 1", "search", "decoder"..."""
        found: dict[str, int] = {}
        counts: Counter[str] = Counter()
        for pid in sorted(descendants(self.process.pid)):
            kind = _kind(pid)
            if kind:
                counts[kind] += 1
                found[f"{kind} {counts[kind]}"] = pid
        return found

    def worker(self, name: str) -> int:
        """Process id of a child. Raises FaultError if there is none."""
        workers = self.workers()
        if name not in workers:
            raise FaultError(f"there is no '{name}' among {', '.join(workers)}")
        return workers[name]

    def said(self) -> str:
        """What the daemon printed so far."""
        return self.log.read_text(errors="replace")

    def until(self, condition: Callable[[], bool], what: str, patience_s: float) -> float:
        """Wait for a condition; how long that took, in s. Raises FaultError if it never comes."""
        started_s = time.monotonic()
        while not condition():
            if not self.lives:
                raise FaultError(f"the daemon died before it {what}: {self.said()[-400:]}")
            if time.monotonic() - started_s > patience_s:
                raise FaultError(f"never {what}, in {patience_s:g} s")
            time.sleep(POLL_S)
        return time.monotonic() - started_s

    def _has_address(self) -> bool:
        match = re.search(r"edgeperc watch (127\.0\.0\.1:\d+)", self.said())
        self.address = match[1] if match else ""
        return bool(match)

    def _listen(self) -> None:
        while not self._over.is_set() and self.lives:
            with suppress(EdgepercError), client.connect(self.address) as there:
                for received in there.subscribe(mode="queue", depth=64):
                    with self._lock:
                        self._counts[received.result.model.name] += 1
                    if self._over.is_set():
                        return
            time.sleep(POLL_S)


def descendants(pid: int) -> set[int]:
    """Process ids of all children of a process, and of theirs."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    parents[int(entry.name)] = int(fields[1])
    found: set[int] = set()
    while new := {p for p, parent in parents.items() if parent in found | {pid}} - found:
        found |= new
    return found


def _kind(pid: int) -> str:
    """What a process of ours does, by its command line; "" for others."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    for module, kind in (("edgeperc.steering", "search"), ("edgeperc.drivers.formats", "decoder")):
        if any(word.startswith(module) for word in words):
            return kind
    if "edgeperc.supervise" in words:
        return words[words.index("edgeperc.supervise") + 1]
    return ""
