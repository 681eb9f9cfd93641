"""Messages of ROS bags whose index or end is missing, read record by record from the start.

rosbags, which reads sound bags, refuses these: a recording that was cut has no index. Sources: the
pages on the ROS bag format 2.0 (wiki.ros.org), the MCAP specification (mcap.dev), rosbag2's
sqlite3 schema.
"""

from __future__ import annotations

import bz2
import sqlite3
from collections.abc import Callable, Generator, Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, NamedTuple

from edgeperc.errors import DataError


class Message(NamedTuple):
    """One message: its topic, its type as ROS 2 writes it (`package/msg/Type`), and its bytes."""

    topic: str
    type: str
    data: bytes


Found = Generator[Message, None, int]
"""Yields the messages of a record and returns where the next one starts."""
Record = Callable[[memoryview, int, dict[Any, Any]], Found]


def messages(path: Path) -> Iterator[Message]:
    """Messages in the order of the file. Raises DataError where the file breaks, or at its end."""
    with path.open("rb") as file:
        bag = memoryview(mmap(file.fileno(), 0, access=ACCESS_READ))
    magic = bytes(bag[:16])
    if magic.startswith(b"#ROSBAG"):
        yield from _each(_rosbag1_record, bag, magic.find(b"\n") + 1, {})
    elif magic.startswith(b"\x89MCAP"):
        yield from _each(_mcap_record, bag, len(b"\x89MCAP0\r\n"), {})
    else:
        yield from _sqlite(path)
    raise DataError("the bag's index is missing or damaged: was the recording closed properly?")


def _each(record: Record, bag: memoryview, at: int, known: dict[Any, Any]) -> Iterator[Message]:
    """Messages of the records from a byte on; a chunk is a record that holds others."""
    while at < len(bag):
        try:
            after = yield from record(bag, at, known)
        except Exception as error:
            raise DataError(f"the bag is cut or damaged in the record at byte {at:,}") from error
        if after > len(bag):
            raise DataError(f"the bag is cut in the record at byte {at:,}")
        at = after


_MESSAGE, _CHUNK, _CONNECTION = 2, 5, 7


def _rosbag1_record(bag: memoryview, at: int, known: dict[Any, Any]) -> Found:
    """known: topic and type by connection."""
    header, at = _sized(bag, at)
    data, after = _sized(bag, at)
    fields = _fields(header)
    kind = fields["op"][0]
    if kind == _CHUNK:
        yield from _each(_rosbag1_record, _unpacked(data, fields["compression"]), 0, known)
    elif kind == _CONNECTION:
        package, _, name = _fields(data)["type"].decode().partition("/")
        known[fields["conn"]] = (fields["topic"].decode(), f"{package}/msg/{name}")
    elif kind == _MESSAGE and after <= len(bag):
        topic, name = known[fields["conn"]]
        yield Message(topic, name, bytes(data))
    return after


def _fields(header: memoryview) -> dict[str, bytes]:
    """`name=value` fields of a ROS 1 record, each behind its length."""
    fields: dict[str, bytes] = {}
    at = 0
    while at < len(header):
        field, at = _sized(header, at)
        name, _, value = bytes(field).partition(b"=")
        fields[name.decode()] = value
    return fields


_SCHEMA, _CHANNEL, _MCAP_MESSAGE, _MCAP_CHUNK, _DATA_END = 3, 4, 5, 6, 15
_MESSAGE_HEAD = 22
_CHUNK_HEAD = 28


def _mcap_record(bag: memoryview, at: int, known: dict[Any, Any]) -> Found:
    """known: type by ("schema", id), topic and type by channel."""
    kind, after = bag[at], at + 9 + int.from_bytes(bag[at + 1 : at + 9], "little")
    data = bag[at + 9 : after]
    if kind == _MCAP_CHUNK:
        compression, start = _sized(data, _CHUNK_HEAD)
        unpacked = _unpacked(data[start + 8 :], bytes(compression))
        yield from _each(_mcap_record, unpacked, 0, known)
    elif kind == _SCHEMA:
        known["schema", _u16(data)] = _text(data, 2)
    elif kind == _CHANNEL:
        known[_u16(data)] = (_text(data, 4), known["schema", _u16(data[2:])])
    elif kind == _MCAP_MESSAGE and after <= len(bag):
        topic, name = known[_u16(data)]
        yield Message(topic, name, bytes(data[_MESSAGE_HEAD:]))
    return len(bag) if kind == _DATA_END else after


def _sqlite(path: Path) -> Iterator[Message]:
    query = (
        "SELECT topics.name, topics.type, messages.data FROM messages, topics"
        " WHERE topics.id = messages.topic_id ORDER BY messages.id"
    )
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        connection.execute("PRAGMA writable_schema = 1")  # reads on though the end is missing
        for topic, kind, data in connection.execute(query):
            yield Message(topic, kind, data)
    except sqlite3.Error as error:
        raise DataError(f"the database is damaged: {error}") from error
    finally:
        connection.close()


def _unpacked(data: memoryview, compression: bytes) -> memoryview:
    """A chunk's contents, as far as they go: the chunk may have been cut."""
    if compression in (b"", b"none"):
        return data
    if compression == b"bz2":
        return memoryview(bz2.BZ2Decompressor().decompress(data))
    if compression == b"zstd":
        import zstandard

        return memoryview(zstandard.ZstdDecompressor().decompressobj().decompress(data))
    if compression == b"lz4":
        import lz4.frame  # type: ignore[import-untyped]  # comes with rosbags

        return memoryview(lz4.frame.LZ4FrameDecompressor().decompress(data))
    raise DataError(f"compression {compression.decode('ascii', 'replace')!r} is not known")


def _sized(data: memoryview, at: int) -> tuple[memoryview, int]:
    """What lies behind its length in 4 bytes, as far as it goes, and where the next should be."""
    start = at + 4
    after = start + int.from_bytes(data[at:start], "little")
    return data[start:after], max(after, start)


def _text(data: memoryview, at: int) -> str:
    return bytes(_sized(data, at)[0]).decode()


def _u16(data: memoryview) -> int:
    return int.from_bytes(data[:2], "little")
