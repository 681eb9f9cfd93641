"""Messages between two processes of ours over a socket that neither side ever waits for."""

from __future__ import annotations

import pickle
import socket
import struct
from contextlib import suppress
from typing import Any

_HEAD = struct.Struct("<I")
_READ_BYTES = 1 << 18
FULL_BYTES = 4 << 20
"""What may wait for a slow reader; beyond it messages are dropped and counted."""


class Channel:
    """One end of a connected socket. Objects are pickled: the other end must be our own process."""

    def __init__(self, end: socket.socket) -> None:
        self.dropped = 0
        self._socket = end
        self._socket.setblocking(False)
        self._outgoing = bytearray()
        self._incoming = bytearray()

    def fileno(self) -> int:
        """For poll and select."""
        return self._socket.fileno()

    @property
    def waiting(self) -> bool:
        """Whether a part of what was sent still waits for the other end."""
        return bool(self._outgoing)

    def send(self, message: Any, *, must_arrive: bool = False) -> None:
        """Send, or keep for later, or drop if the other end has not read for long.

        Raises BrokenPipeError if the other end is gone.
        """
        if len(self._outgoing) > FULL_BYTES and not must_arrive:
            self.dropped += 1
        else:
            body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
            self._outgoing += _HEAD.pack(len(body)) + body
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as it goes. Raises BrokenPipeError."""
        with suppress(BlockingIOError):
            while self._outgoing:
                del self._outgoing[: self._socket.send(self._outgoing)]

    def receive(self) -> list[Any]:
        """Every whole message that has come, in order. Raises EOFError if the other end is gone."""
        gone = False
        with suppress(BlockingIOError):
            while not gone:
                data = self._read()
                gone = not data
                self._incoming += data
        messages = []
        while len(self._incoming) >= _HEAD.size:
            end = _HEAD.size + _HEAD.unpack_from(self._incoming)[0]
            if len(self._incoming) < end:
                break
            messages.append(pickle.loads(self._incoming[_HEAD.size : end]))
            del self._incoming[:end]
        if gone and not messages:
            raise EOFError
        return messages

    def close(self) -> None:
        """Hang up; may be called twice."""
        self._socket.close()

    def _read(self) -> bytes:
        try:
            return self._socket.recv(_READ_BYTES)
        except ConnectionResetError:
            return b""


def pair() -> tuple[Channel, socket.socket]:
    """A channel, and the socket of its other end, to be inherited by a process."""
    ours, theirs = socket.socketpair()
    return Channel(ours), theirs
