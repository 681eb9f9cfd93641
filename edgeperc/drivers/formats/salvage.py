"""Messages of ROS bags whose index or end is missing, read record by record from the start.

rosbags, which reads sound bags, refuses these: a recording that was cut has no index. Sources: the
pages on the ROS bag format 2.0 (wiki.ros.org), the MCAP specification (mcap.dev), rosbag2's
sqlite3 schema.
"""

from __future__ import annotations

import bz2
import sqlite3
import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from edgeperc.errors import DataError


class Message(NamedTuple):
    """One message: its topic, its type as ROS 2 writes it (`package/msg/Type`), and its bytes."""

    topic: str
    type: str
    data: bytes


def messages(path: Path) -> Iterator[Message]:
    """Messages in the order of the file. Raises DataError where the file breaks, or at its end."""
    with path.open("rb") as file:
        magic = file.read(16)
        file.seek(0)
        if magic.startswith(b"#ROSBAG"):
            file.readline()
            yield from _rosbag1(file, {})
        elif magic.startswith(b"\x89MCAP"):
            file.seek(8)
            yield from _mcap(file, {}, {})
        else:
            yield from _sqlite(path)
    raise DataError("the bag has no index: the recording was not closed properly")


_MESSAGE, _CHUNK, _CONNECTION = 2, 5, 7


def _rosbag1(file: BinaryIO, topics: dict[bytes, tuple[str, str]]) -> Iterator[Message]:
    while size := file.read(4):
        fields = _fields(_exactly(file, _u32(size), file.tell()))
        start = file.tell() + 4
        size_bytes = _u32(_exactly(file, 4, file.tell()))
        data = file.read(size_bytes)
        kind = fields.get("op", b"\0")[0]
        if kind == _CHUNK:
            # Also of a chunk that was cut, the whole messages can be had if it is not compressed.
            if fields["compression"] == b"none" or len(data) == size_bytes:
                yield from _rosbag1(BytesIO(_unpacked(data, fields["compression"])), topics)
        elif kind == _CONNECTION:
            package, _, name = _fields(data)["type"].decode().partition("/")
            topics[fields["conn"]] = (fields["topic"].decode(), f"{package}/msg/{name}")
        elif kind == _MESSAGE and len(data) == size_bytes:
            yield Message(*topics[fields["conn"]], data)
        if len(data) < size_bytes:
            raise DataError(f"the bag ends inside a record, at byte {start + len(data):,}")


def _fields(header: bytes) -> dict[str, bytes]:
    """`name=value` fields of a ROS 1 record, each behind its length."""
    fields: dict[str, bytes] = {}
    at = 0
    while at < len(header):
        size = _u32(header[at : at + 4])
        name, _, value = header[at + 4 : at + 4 + size].partition(b"=")
        fields[name.decode()] = value
        at += 4 + size
    return fields


_SCHEMA, _CHANNEL, _MCAP_MESSAGE, _MCAP_CHUNK, _DATA_END = 3, 4, 5, 6, 15


def _mcap(
    file: BinaryIO, types: dict[int, str], topics: dict[int, tuple[str, str]]
) -> Iterator[Message]:
    while head := file.read(9):
        at = file.tell()
        kind, size = struct.unpack("<BQ", head.ljust(9, b"\0"))
        data = _exactly(file, size, at)
        if kind == _SCHEMA:
            types[_u16(data)] = _text(data, 2)[0]
        elif kind == _CHANNEL:
            topics[_u16(data)] = (_text(data, 4)[0], types.get(_u16(data[2:]), ""))
        elif kind == _MCAP_MESSAGE:
            yield Message(*topics[_u16(data)], data[22:])
        elif kind == _MCAP_CHUNK:
            compression, after = _text(data, 28)
            yield from _mcap(
                BytesIO(_unpacked(data[after + 8 :], compression.encode())), types, topics
            )
        elif kind == _DATA_END:
            return


def _sqlite(path: Path) -> Iterator[Message]:
    query = (
        "SELECT topics.name, topics.type, messages.data FROM messages, topics"
        " WHERE topics.id = messages.topic_id ORDER BY messages.id"
    )
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        for topic, kind, data in connection.execute(query):
            yield Message(topic, kind, data)
    except sqlite3.Error as error:
        raise DataError(f"the database is damaged: {error}") from error
    finally:
        connection.close()


def _unpacked(data: bytes, compression: bytes) -> bytes:
    if compression in (b"", b"none"):
        return data
    if compression == b"bz2":
        return bz2.decompress(data)
    if compression == b"zstd":
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    if compression == b"lz4":
        import lz4.frame  # type: ignore[import-untyped]  # comes with rosbags

        unpacked: bytes = lz4.frame.decompress(data)
        return unpacked
    raise DataError(f"compression {compression.decode('ascii', 'replace')!r} is not known")


def _exactly(file: BinaryIO, size: int, at: int) -> bytes:
    """The next bytes. Raises DataError if there are fewer; a broken size takes no memory."""
    data = file.read(size)
    if len(data) < size:
        raise DataError(f"the bag ends inside a record, at byte {at + len(data):,}")
    return data


def _text(data: bytes, at: int) -> tuple[str, int]:
    end = at + 4 + _u32(data[at : at + 4])
    return data[at + 4 : end].decode(), end


def _u16(data: bytes) -> int:
    return int.from_bytes(data[:2], "little")


def _u32(data: bytes) -> int:
    return int.from_bytes(data[:4], "little")
