"""A recording, read record by record from its start, as far as it goes.

    for topic, type_, data in messages(path, lambda topic, type_: True): ...
    head(path).values["offset_ns"]

No index is needed, so a recording that was cut off reads as well as one that was closed. Every
chunk is checked against its checksum before anything in it counts. Source: the MCAP specification
(mcap.dev).
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

import zstandard
from mcap.opcode import Opcode
from mcap.records import Channel, Schema

from edgeperc.errors import DataError
from edgeperc.recording.mcap_file import LIBRARY, MAGIC

MAX_CHUNK_BYTES = 1 << 29
"""A chunk that claims to unpack to more is damaged; nothing is allocated for it."""
REPAIR = "edgeperc record --repair FILE makes it whole"
_CHUNK_HEAD = struct.Struct("<QQQII")
_MESSAGE_HEAD = struct.Struct("<HIQQ")


class Record(NamedTuple):
    """A record: opcode, its first byte in the file (or chunk), its content, where the next is."""

    opcode: int
    at: int
    body: memoryview
    end: int


class Entry(NamedTuple):
    """A message: topic, type, its bytes, and its channel and log time."""

    topic: str
    type: str
    data: memoryview
    channel: int
    time_ns: int
    at: int
    """Its place in its chunk."""


@dataclass
class Known:
    """Schemas and channels so far. types: of each topic's channel."""

    schemas: dict[int, Schema] = field(default_factory=dict)
    channels: dict[int, Channel] = field(default_factory=dict)


@dataclass(frozen=True)
class Head:
    """What stands at a recording's beginning: values by name, and files by name."""

    values: dict[str, str]
    files: dict[str, bytes]

    @property
    def offset_ns(self) -> int:
        """Wall clock minus the clock of the packets' stamps. Raises DataError."""
        try:
            return int(self.values["offset_ns"])
        except (KeyError, ValueError):
            raise DataError("the recording does not say what its times count from") from None

    @property
    def first_ns(self) -> int | None:
        """The first stamp's time, if it is known."""
        text = self.values.get("first_ns", "")
        return int(text) if text.lstrip("-").isdecimal() else None


class CutError(DataError):
    """The file ends before its end: it was cut off, or is still being written."""


def is_ours(beginning: bytes) -> bool:
    """Whether the first bytes of a file are those of a recording of ours."""
    try:
        at = len(MAGIC) + 9
        _profile, at = _text(memoryview(beginning), at)
        library, _ = _text(memoryview(beginning), at)
    except (struct.error, UnicodeDecodeError, IndexError):
        return False
    return beginning.startswith(MAGIC) and library.startswith(LIBRARY + " ")


def files_of(path: Path) -> list[Path]:
    """The recording's files in order: a file, or those of a folder that are ours."""
    if not path.is_dir():
        return [path]
    found = []
    for each in sorted(path.glob("*.mcap")):
        with each.open("rb") as file:
            if is_ours(file.read(256)):
                found.append(each)
    return found


def records(path: Path) -> Iterator[Record]:
    """The records of a file up to the end of its data. Raises DataError where it breaks."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    with file:
        if file.read(len(MAGIC)) != MAGIC:
            raise DataError(f"{path}: is no MCAP file")
        yield from _records(file, os.fstat(file.fileno()).st_size)


def _records(file: BinaryIO, size: int) -> Iterator[Record]:
    at = len(MAGIC)
    while True:
        start = file.read(9)
        length = int.from_bytes(start[1:], "little")
        if len(start) < 9 or length > size - at - 9 or not any(start):
            rest = memoryview(start + file.read(min(size, 1 << 16)))
            if len(start) == 9 and start[0] not in _OPCODES and any(rest):
                raise DataError(f"the recording is damaged at byte {at:,}")
            raise CutError(f"the recording was not closed; it ends at byte {at:,}", hint=REPAIR)
        body = memoryview(file.read(length))
        if len(body) < length:
            raise CutError(f"the recording was not closed; it ends at byte {at:,}", hint=REPAIR)
        if start[0] not in _OPCODES:
            raise DataError(f"the recording is damaged at byte {at:,}")
        end = at + 9 + length
        yield Record(start[0], at, body, end)
        if start[0] == Opcode.DATA_END:
            return
        at = end


_OPCODES = frozenset(int(opcode) for opcode in Opcode)


def unpack(chunk: Record) -> memoryview:
    """What a chunk holds. Raises DataError if it is not what its checksum says."""
    try:
        _, _, size, crc, length = _CHUNK_HEAD.unpack_from(chunk.body)
        compression = bytes(chunk.body[_CHUNK_HEAD.size : _CHUNK_HEAD.size + length])
        at = _CHUNK_HEAD.size + length
        (packed,) = struct.unpack_from("<Q", chunk.body, at)
        data = chunk.body[at + 8 : at + 8 + packed]
        if size > MAX_CHUNK_BYTES or len(data) != packed:
            raise DataError("its sizes are wrong")
        content = _decompressed(data, compression, size)
        if len(content) != size or (crc and zlib.crc32(content) != crc):
            raise DataError("its checksum is wrong")
    except (struct.error, zstandard.ZstdError, DataError, MemoryError) as error:
        raise DataError(
            f"the recording is damaged in the chunk at byte {chunk.at:,}: {error}"
        ) from error
    return memoryview(content)


def _decompressed(data: memoryview, compression: bytes, size: int) -> bytes | memoryview:
    if compression == b"":
        return data
    if compression != b"zstd":
        raise DataError(f"compression {compression!r} is not read")
    # A frame that states its own size is believed by zstandard, whatever max_output_size says.
    if zstandard.frame_content_size(data) not in (size, -1):
        raise DataError("its sizes are wrong")
    return zstandard.ZstdDecompressor().decompress(data, max_output_size=size)


def entries(chunk: Record, known: Known) -> Iterator[Entry]:
    """The messages of a chunk; its schemas and channels go into `known`. Raises DataError."""
    content, at = unpack(chunk), 0
    try:
        while at < len(content):
            opcode, length = content[at], int.from_bytes(content[at + 1 : at + 9], "little")
            body = content[at + 9 : at + 9 + length]
            if len(body) < length:
                raise DataError("a record is longer than its chunk")
            if opcode == Opcode.SCHEMA:
                schema = _schema(body)
                known.schemas[schema.id] = schema
            elif opcode == Opcode.CHANNEL:
                channel = _channel(body)
                known.channels[channel.id] = channel
            elif opcode == Opcode.MESSAGE:
                number, _, time_ns, _ = _MESSAGE_HEAD.unpack_from(body)
                channel = known.channels[number]
                type_ = known.schemas[channel.schema_id].name
                yield Entry(channel.topic, type_, body[_MESSAGE_HEAD.size :], number, time_ns, at)
            at += 9 + length
    except (struct.error, KeyError, IndexError, UnicodeDecodeError, DataError) as error:
        raise DataError(
            f"the recording is damaged in the chunk at byte {chunk.at:,}: {error}"
        ) from error


def messages(path: Path, wanted: Callable[[str, str], bool]) -> Iterator[Entry]:
    """The messages of some topics and types, in the order in which they were written.

    path: a file or the folder of one recording's files. Raises DataError where it breaks.
    """
    for file in files_of(path):
        known = Known()
        for record in records(file):
            if record.opcode == Opcode.CHUNK:
                for entry in entries(record, known):
                    if wanted(entry.topic, entry.type):
                        yield entry


def head(path: Path) -> Head:
    """What the first file says of itself, before its first message. Raises DataError."""
    found = files_of(path)
    if not found:
        raise DataError(f"{path}: holds no recording")
    values: dict[str, str] = {}
    files: dict[str, bytes] = {}
    try:
        for record in records(found[0]):
            if record.opcode == Opcode.METADATA:
                name, at = _text(record.body, 0)
                if name == LIBRARY:
                    values |= _map(record.body, at)
            elif record.opcode == Opcode.ATTACHMENT:
                name, at = _text(record.body, 16)
                _, at = _text(record.body, at)
                (size,) = struct.unpack_from("<Q", record.body, at)
                end = at + 8 + size
                if end + 4 > len(record.body):
                    raise IndexError(f"{name} is longer than its record")
                (crc,) = struct.unpack_from("<I", record.body, end)
                if crc and zlib.crc32(record.body[:end]) != crc:
                    raise IndexError(f"the checksum of {name} is wrong")
                files[name] = bytes(record.body[at + 8 : end])
            elif record.opcode == Opcode.CHUNK:
                break
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise DataError(f"{path}: the recording's beginning is damaged") from error
    except CutError:
        if not values:
            raise
    return Head(values, files)


def topics(path: Path) -> dict[str, str]:
    """Type by topic of all that can be read. Raises DataError if that is nothing."""
    found: dict[str, str] = {}

    def note(topic: str, type_: str) -> bool:
        found[topic] = type_
        return False

    try:
        for _ in messages(path, note):
            pass
    except DataError:
        if not found:
            raise
    return found


def _schema(body: memoryview) -> Schema:
    (number,) = struct.unpack_from("<H", body)
    name, at = _text(body, 2)
    encoding, at = _text(body, at)
    (size,) = struct.unpack_from("<I", body, at)
    return Schema(id=number, name=name, encoding=encoding, data=bytes(body[at + 4 : at + 4 + size]))


def _channel(body: memoryview) -> Channel:
    number, schema = struct.unpack_from("<HH", body)
    topic, at = _text(body, 4)
    encoding, at = _text(body, at)
    return Channel(
        id=number,
        topic=topic,
        message_encoding=encoding,
        metadata=_map(body, at),
        schema_id=schema,
    )


def _text(body: memoryview, at: int) -> tuple[str, int]:
    """A string behind its length, and where it ends."""
    (length,) = struct.unpack_from("<I", body, at)
    if at + 4 + length > len(body):
        raise IndexError("a text is longer than its record")
    return bytes(body[at + 4 : at + 4 + length]).decode(), at + 4 + length


def _map(body: memoryview, at: int) -> dict[str, str]:
    (length,) = struct.unpack_from("<I", body, at)
    at, end, found = at + 4, at + 4 + length, {}
    while at < end:
        key, at = _text(body, at)
        found[key], at = _text(body, at)
    return found
