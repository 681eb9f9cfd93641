"""A decoder in a process of its own, so that its crash, hang or hunger for memory stays there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

import edgeperc
from edgeperc import errors
from edgeperc.drivers.formats import wire
from edgeperc.errors import DataError, EdgepercError
from edgeperc.packet import Events, Packet

_PIPE_BYTES = 1 << 20
_START_FACTOR = 3  # libraries are loaded, and a kernel may have to be compiled
_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",  # a decoder has no use for them, and they take time to start
    "HDF5_USE_FILE_LOCKING": "FALSE",  # recordings may lie on a disk that cannot be written
    "OPENCV_LOG_LEVEL": "ERROR",  # what a camera's stream complains of for days fills a disk
    "OPENCV_FFMPEG_LOGLEVEL": "-8",
}


class Worker:
    """Runs a job in a process that ends with this one, and hands its packets on.

    label: what the source is called in errors. deadline_s: how long to wait for a packet before the
    process is killed; three times as long for the first. error: what to raise if it hangs, dies or
    meets something unexpected; other errors are passed on as what they are.
    """

    def __init__(
        self,
        job: wire.Job,
        *,
        label: str,
        deadline_s: float,
        error: type[EdgepercError] = DataError,
    ) -> None:
        self._job = job
        self._label = label
        self._deadline_s = deadline_s
        self._error = error
        self._closed = threading.Event()
        self._lock = threading.Lock()  # held while the pipe is read or closed
        self._process: subprocess.Popen[bytes] | None = None
        self._events = 0
        self._frames = 0

    def packets(self) -> Iterator[Packet]:
        """Start, and yield what the reader does, source blank, until its end or `close`.

        Raises, after what could be read, why there is no more.
        """
        with tempfile.TemporaryFile() as complaints:
            try:
                self._start(complaints)
                while (packet := self._next(complaints)) is not None:
                    yield packet
            finally:
                self.close()

    def close(self) -> None:
        """End the process; may be called twice and from any thread."""
        self._closed.set()
        if self._process:
            self._process.kill()
        with self._lock:  # whoever reads has met the end of the pipe by now
            if self._process:
                self._process.kill()  # it may have been started just now
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(timeout=0.5)
                for pipe in (self._process.stdin, self._process.stdout):
                    if pipe:
                        pipe.close()

    def _start(self, complaints: BinaryIO) -> None:
        with self._lock:
            if self._closed.is_set() or self._process:
                return
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edgeperc.drivers.formats", msgspec.json.encode(self._job)],
                stdin=subprocess.PIPE,  # is never written; its closing tells that we are gone
                stdout=subprocess.PIPE,
                stderr=complaints,
                bufsize=0,
                cwd=Path(edgeperc.__file__).parents[1],
                env={**os.environ, **_ENVIRONMENT},
                start_new_session=True,  # Ctrl-C in a terminal is for us alone
            )
            assert self._process.stdout
            self._pipe = self._process.stdout.fileno()
            with contextlib.suppress(OSError):  # the system may allow less
                fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def _next(self, complaints: BinaryIO) -> Packet | None:
        with self._lock:
            if self._closed.is_set():
                return None
            try:
                message = wire.receive(self._fill)
            except TimeoutError as error:
                raise self._broken(f"the decoder hung for {error}") from None
            except EOFError:
                if self._closed.is_set():
                    return None
                raise self._broken(self._last_words(complaints)) from None
        if isinstance(message, wire.Failure):
            kind = getattr(errors, message.kind, self._error)
            broken = self._broken(message.message, kind=kind, hint=message.hint)
            raise broken from RuntimeError(message.trace)
        if isinstance(message, Events):
            self._events += len(message)
        elif message:
            self._frames += 1
        return message

    def _fill(self, buffer: memoryview) -> None:
        """Fill a buffer from the pipe. Raises TimeoutError or EOFError."""
        has_begun = bool(self._events or self._frames)
        patience_s = self._deadline_s * (1 if has_begun else _START_FACTOR)
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        while buffer:
            if not poll.poll(patience_s * 1000):
                raise TimeoutError(f"{patience_s:g} s")
            size = os.readv(self._pipe, [buffer])
            if size == 0:
                raise EOFError
            buffer = buffer[size:]

    def _broken(
        self, what: str, *, kind: type[EdgepercError] | None = None, hint: str = ""
    ) -> EdgepercError:
        counts = [f"{self._events:,} events"] if self._events else []
        counts += [f"{self._frames:,} frames"] if self._frames else []
        after = f" (after {' and '.join(counts)})" if counts else ""
        return (kind or self._error)(f"{self._label}: {what}{after}", hint=hint)

    def _last_words(self, complaints: BinaryIO) -> str:
        """Why a process that said nothing is gone."""
        assert self._process
        code = self._process.wait(timeout=5)
        complaints.seek(0)
        lines = complaints.read().decode("utf-8", "replace").strip().splitlines()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"the decoder crashed ({how})" + (f": {lines[-1]}" if lines else "")
