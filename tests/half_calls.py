"""Calls that are begun and never finished, as raw HTTP/2: what no gRPC library lets a client do."""

from __future__ import annotations

import socket
import struct
from collections import Counter
from types import TracebackType

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS = 0, 1, 3, 4
END_HEADERS = 0x4


class HalfCalls:
    """Connections with calls on them, each with its headers and a few bytes of a long request."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._where = (host, int(port))
        self._connections: list[socket.socket] = []
        self.begun = 0

    def begin(self, rpc: str, *, connections: int, calls: int) -> None:
        """`calls` of an rpc, "/package.Service/Method", on each of so many new connections."""
        for _ in range(connections):
            connection = socket.create_connection(self._where)
            connection.sendall(PREFACE + _frame(SETTINGS, 0, 0, b""))
            self._connections.append(connection)
            for number in range(calls):
                stream = 2 * number + 1
                connection.sendall(
                    _frame(HEADERS, END_HEADERS, stream, _headers(rpc))
                    + _frame(DATA, 0, stream, b"\0\0\0\0\x64abc")  # three bytes of a hundred
                )
                self.begun += 1
            connection.setblocking(False)

    def trickle(self) -> None:
        """One more byte of each request, where the connection still takes it."""
        for connection in self._connections:
            for stream in range(1, 201, 2):
                try:
                    connection.sendall(_frame(DATA, 0, stream, b"d"))
                except OSError:
                    break

    def frames(self) -> Counter[int]:
        """How many frames of each type have come back."""
        found: Counter[int] = Counter()
        for connection in self._connections:
            data = b""
            try:
                while more := connection.recv(1 << 16):
                    data += more
            except OSError:
                pass
            while len(data) >= 9:
                length, kind = int.from_bytes(data[:3], "big"), data[3]
                found[kind] += 1
                data = data[9 + length :]
        return found

    def __enter__(self) -> HalfCalls:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for connection in self._connections:
            connection.close()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _headers(rpc: str) -> bytes:
    """As HPACK without tables of its own: names of the static one, values in the open."""
    return (
        b"\x83\x86"  # :method POST, :scheme http
        + b"\x04"
        + _text(rpc)
        + b"\x01"
        + _text("localhost")
        + b"\x0f\x10"
        + _text("application/grpc")
        + b"\x00"
        + _text("te")
        + _text("trailers")
    )


def _text(text: str) -> bytes:
    assert len(text) < 127
    return bytes([len(text)]) + text.encode()
