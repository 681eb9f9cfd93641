"""Messages and file descriptors between two processes of ours, over a socket nobody waits for.

    ours, theirs = pair()           # `theirs` is a socket, to be handed to the other process
    ours.send(("go", 3), fds=[ring.fd])
    for message, fds in ours.receive(timeout_s=0.1): ...

Messages are pickled: the other end must be our own process. They arrive whole, in order and once,
or, where they may be lost and the other end has not read for long, not at all.
"""

from __future__ import annotations

import errno
import os
import pickle
import select
import socket
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

CHUNK_BYTES = 60_000
_MOST_FDS = 4
_MORE, _LAST = b"+", b"."


class Link:
    """One end of a connected socket; safe from any thread, but only one may receive.

    dropped: messages that did not go out for want of room.
    """

    def __init__(self, end: socket.socket) -> None:
        self.dropped = 0
        self._socket = end
        self._socket.setblocking(False)
        self._lock = threading.Lock()
        self._waiting: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._parts: list[bytes] = []
        self._fds: list[int] = []

    def fileno(self) -> int:
        """For poll and select."""
        return self._socket.fileno()

    def send(self, message: Any, fds: Sequence[int] = (), *, must_arrive: bool = True) -> bool:
        """Send; what must arrive is kept if there is no room, the rest dropped: then False.

        fds: duplicates of these arrive with it. Raises BrokenPipeError if the other end is gone.
        """
        body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        with self._lock:
            self._flush()
            starts = range(0, len(body), CHUNK_BYTES)
            chunks = [
                (_MORE if start != starts[-1] else _LAST) + body[start : start + CHUNK_BYTES]
                for start in starts
            ]
            if not must_arrive and (self._waiting or not self._put(chunks[0], tuple(fds))):
                self.dropped += 1
                return False
            if not must_arrive:
                chunks.pop(0)  # it is out, so the others have to follow
            held = tuple(os.dup(fd) for fd in fds) if must_arrive else ()
            for number, chunk in enumerate(chunks):
                self._waiting.append((chunk, held if number == 0 else ()))
            self._flush()
            return True

    def flush(self) -> None:
        """Send what waits, as far as it goes. Raises BrokenPipeError."""
        with self._lock:
            self._flush()

    @property
    def waiting(self) -> bool:
        """Whether something that must arrive waits for room."""
        return bool(self._waiting)

    def receive(self, timeout_s: float = 0.0) -> list[tuple[Any, list[int]]]:
        """Every whole message that has come, with its file descriptors, which are the caller's.

        timeout_s: how long to wait for the first. Raises EOFError if the other end is gone.
        """
        if self._socket.fileno() < 0:
            raise EOFError
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.poll(timeout_s * 1000)
        if self._waiting:
            with suppress(BrokenPipeError):  # what it said last is still to be read
                self.flush()
        messages: list[tuple[Any, list[int]]] = []
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(
                    self._socket, CHUNK_BYTES + 1, _MOST_FDS, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return messages
            except OSError:  # reset by the other end, or closed by ours
                data, fds = b"", []
            if not data:
                if messages:
                    return messages
                raise EOFError
            self._parts.append(data[1:])
            self._fds += fds
            if data[:1] == _LAST:
                messages.append((pickle.loads(b"".join(self._parts)), self._fds))
                self._parts, self._fds = [], []

    def close(self) -> None:
        """Hang up; may be called twice."""
        with self._lock:
            for _, fds in self._waiting:
                for fd in fds:
                    os.close(fd)
            self._waiting.clear()
            self._socket.close()

    def _flush(self) -> None:
        while self._waiting and self._put(*self._waiting[0]):
            for fd in self._waiting.popleft()[1]:
                os.close(fd)

    def _put(self, chunk: bytes, fds: tuple[int, ...]) -> bool:
        """Whether there was room. Raises BrokenPipeError."""
        try:
            socket.send_fds(self._socket, [chunk], fds)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ENOBUFS):
                return False
            raise BrokenPipeError(str(error)) from error
        return True


def pair() -> tuple[Link, socket.socket]:
    """A link, and the socket of its other end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Link(ours), theirs
