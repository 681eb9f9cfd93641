"""One MCAP file of ROS 2 messages, written so that a sudden end costs its last moment only.

    file = McapFile(Path("drive.mcap"))
    file.add("app", "std_msgs/msg/String", data, time_ns=now_ns)
    file.flush()                      # all so far is in whole, checked, compressed chunks on disk
    file.close()                      # writes the index behind them

The bytes of the records are the library mcap's (https://mcap.dev); what is here is when they are
written. Where the disk is full, `close` takes back the last chunks until the index fits.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import zstandard
from mcap.data_stream import RecordBuilder
from mcap.opcode import Opcode
from mcap.records import (
    Attachment,
    AttachmentIndex,
    Channel,
    Chunk,
    ChunkIndex,
    DataEnd,
    Footer,
    Header,
    McapRecord,
    Message,
    MessageIndex,
    Metadata,
    MetadataIndex,
    Schema,
    Statistics,
    SummaryOffset,
)

from edgeperc import __version__
from edgeperc.ros.codec import definition, type_hash

MAGIC = b"\x89MCAP0\r\n"
LIBRARY = "edgeperc"
"""What the header of a file of ours names, with the version behind it."""
CHUNK_BYTES = 1 << 20
_ZSTD_LEVEL = 1
_MOST_NS = (1 << 64) - 1


@dataclass
class Index:
    """What a file holds so far: its records' places, for the summary at its end."""

    schemas: dict[int, Schema] = field(default_factory=dict)
    channels: dict[int, Channel] = field(default_factory=dict)
    chunks: list[tuple[ChunkIndex, dict[int, int]]] = field(default_factory=list)
    """Each chunk and its number of messages by channel."""
    attachments: list[AttachmentIndex] = field(default_factory=list)
    metadata: list[MetadataIndex] = field(default_factory=list)

    def before(self, end: int) -> Index:
        """That of a file cut at a byte; schemas and channels stay."""
        return Index(
            self.schemas,
            self.channels,
            [each for each in self.chunks if _chunk_end(each[0]) <= end],
            [each for each in self.attachments if each.offset + each.length <= end],
            [each for each in self.metadata if each.offset + each.length <= end],
        )

    def statistics(self) -> Statistics:
        """Counts and the span of time."""
        counts: dict[int, int] = dict.fromkeys(self.channels, 0)
        for _, of_chunk in self.chunks:
            for channel, count in of_chunk.items():
                counts[channel] = counts.get(channel, 0) + count
        starts = [chunk.message_start_time for chunk, _ in self.chunks]
        ends = [chunk.message_end_time for chunk, _ in self.chunks]
        return Statistics(
            attachment_count=len(self.attachments),
            channel_count=len(self.channels),
            channel_message_counts=counts,
            chunk_count=len(self.chunks),
            message_count=sum(counts.values()),
            message_start_time=min(starts, default=0),
            message_end_time=max(ends, default=0),
            metadata_count=len(self.metadata),
            schema_count=len(self.schemas),
        )

    def ending(self, at: int) -> bytes:
        """The end of the data, the summary and the footer of a file whose data ends at a byte."""
        end = RecordBuilder()
        DataEnd(0).write(end)
        data_end = built(end)
        start = at + len(data_end)
        groups: list[tuple[Opcode, list[McapRecord]]] = [
            (Opcode.SCHEMA, [*self.schemas.values()]),
            (Opcode.CHANNEL, [*self.channels.values()]),
            (Opcode.STATISTICS, [self.statistics()]),
            (Opcode.CHUNK_INDEX, [chunk for chunk, _ in self.chunks]),
            (Opcode.ATTACHMENT_INDEX, [*self.attachments]),
            (Opcode.METADATA_INDEX, [*self.metadata]),
        ]
        summary, offsets, length = RecordBuilder(), [], 0
        for opcode, records in groups:
            before = length
            for record in records:
                record.write(summary)
            length = summary.count
            if records:
                offsets.append(SummaryOffset(opcode, start + before, length - before))
        for offset in offsets:
            offset.write(summary)
        body = built(summary)
        # The checksum covers the footer's record up to itself.
        head = bytes([Opcode.FOOTER]) + (20).to_bytes(8, "little")
        places = start.to_bytes(8, "little") + (start + length).to_bytes(8, "little")
        footer = RecordBuilder()
        Footer(start, start + length, zlib.crc32(body + head + places)).write(footer)
        return bytes(data_end) + bytes(body) + built(footer) + MAGIC


class McapFile:
    """A new file. Used from one thread. size: bytes on disk. messages: those in it.

    Raises FileExistsError if it is there already, OSError if it cannot be made; its methods raise
    OSError where writing fails, and then only `close` still makes sense.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages = 0
        self._index = Index()
        self._types: dict[str, int] = {}
        self._topics: dict[tuple[str, str], int] = {}
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self.size = 0
        self._reset()
        start = RecordBuilder()
        Header("ros2", f"{LIBRARY} {__version__}").write(start)
        try:
            self._write(MAGIC + built(start))
        except OSError:  # as of a full disk: an empty file is in the way, and tells nobody anything
            os.close(self._fd)
            path.unlink()
            raise

    @property
    def waiting(self) -> int:
        """Bytes that are not in a chunk yet."""
        return self._chunk.count

    def describe(self, name: str, values: dict[str, str]) -> None:
        """Add a metadata record."""
        record = RecordBuilder()
        Metadata(name=name, metadata=values).write(record)
        at, data = self.size, built(record)
        self._write(data)
        self._index.metadata.append(MetadataIndex(at, len(data), name))

    def attach(self, name: str, media_type: str, data: bytes, *, time_ns: int) -> None:
        """Add a file, such as the app's."""
        record = RecordBuilder()
        attachment = Attachment(
            create_time=time_ns, log_time=time_ns, name=name, media_type=media_type, data=data
        )
        attachment.write(record)
        at, body = self.size, built(record)
        self._write(body)
        self._index.attachments.append(
            AttachmentIndex(
                offset=at,
                length=len(body),
                create_time=time_ns,
                log_time=time_ns,
                data_size=len(data),
                name=name,
                media_type=media_type,
            )
        )

    def add(
        self, topic: str, type_: str, data: bytes, *, time_ns: int, said_ns: int = 0, seq: int = 0
    ) -> None:
        """Add a message in CDR. time_ns, said_ns: log time and publish time, on the wall clock."""
        channel = self._channel(topic, type_)
        time_ns = min(max(time_ns, 0), _MOST_NS)
        message = Message(
            channel_id=channel,
            data=data,
            log_time=time_ns,
            publish_time=min(max(said_ns, 0), _MOST_NS),
            sequence=seq & 0xFFFF_FFFF,
        )
        self._places.setdefault(channel, []).append((time_ns, self._chunk.count))
        message.write(self._chunk)
        self.messages += 1
        if self._chunk.count >= CHUNK_BYTES:
            self._finish_chunk()

    def flush(self) -> None:
        """Bring all so far to the disk, and wait until it is there."""
        self._finish_chunk()
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Write what waits and the index, at least of what fits; may be called twice.

        Raises OSError if something was lost, after the file was made whole.
        """
        if self._fd < 0:
            return
        failure: OSError | None = None
        try:
            self._finish_chunk()
        except OSError as error:
            failure = error
        try:
            failure = finish(self._fd, self._index, self.size) or failure
            os.fsync(self._fd)
        finally:
            self.size = os.fstat(self._fd).st_size
            os.close(self._fd)
            self._fd = -1
        if failure:
            raise failure

    def _channel(self, topic: str, type_: str) -> int:
        if (topic, type_) in self._topics:
            return self._topics[topic, type_]
        if type_ not in self._types:
            number = self._types[type_] = len(self._types) + 1
            schema = Schema(
                id=number, name=type_, encoding="ros2msg", data=definition(type_).encode()
            )
            self._index.schemas[number] = schema
            schema.write(self._chunk)
        number = self._topics[topic, type_] = len(self._topics) + 1
        channel = Channel(
            id=number,
            topic=topic,
            message_encoding="cdr",
            schema_id=self._types[type_],
            metadata={"offered_qos_profiles": "", "topic_type_hash": type_hash(type_)},
        )
        self._index.channels[number] = channel
        channel.write(self._chunk)
        return number

    def _finish_chunk(self) -> None:
        if not self._places:
            return
        places, content = self._places, built(self._chunk)
        self._reset()
        compressed = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(content)
        times = [time_ns for of_channel in places.values() for time_ns, _ in of_channel]
        record = RecordBuilder()
        Chunk(
            compression="zstd",
            data=compressed,
            message_start_time=min(times),
            message_end_time=max(times),
            uncompressed_crc=zlib.crc32(content),
            uncompressed_size=len(content),
        ).write(record)
        chunk_length = record.count
        offsets = {}
        for channel, of_channel in places.items():
            offsets[channel] = self.size + record.count
            MessageIndex(channel, of_channel).write(record)
        body = built(record)
        at = self.size
        self._write(body)
        index = ChunkIndex(
            chunk_length=chunk_length,
            chunk_start_offset=at,
            compression="zstd",
            compressed_size=len(compressed),
            message_end_time=max(times),
            message_index_length=len(body) - chunk_length,
            message_index_offsets=offsets,
            message_start_time=min(times),
            uncompressed_size=len(content),
        )
        counts = {channel: len(of_channel) for channel, of_channel in places.items()}
        self._index.chunks.append((index, counts))

    def _reset(self) -> None:
        self._chunk = RecordBuilder()
        self._places: dict[int, list[tuple[int, int]]] = {}

    def _write(self, data: bytes | memoryview | bytearray) -> None:
        write_all(self._fd, data)
        self.size += len(data)


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of some bytes. Raises OSError; then some of them may be written."""
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def finish(fd: int, index: Index, size: int) -> OSError | None:
    """Make a file whole: cut it at `size` and write its end, if need be before its last chunks.

    Returns why chunks had to go, or None. Raises OSError if no end could be written at all.
    """
    failure: OSError | None = None
    places = [_chunk_end(chunk) for chunk, _ in index.chunks]
    ends = [size, *[chunk.chunk_start_offset for chunk, _ in reversed(index.chunks)]]
    for end in ends[: max(2, len(places))]:
        kept = index.before(end)
        try:
            os.ftruncate(fd, end)
            os.lseek(fd, end, os.SEEK_SET)
            write_all(fd, kept.ending(end))
        except OSError as error:
            failure = error
        else:
            return failure
    os.ftruncate(fd, ends[-1])
    raise failure or OSError("nothing could be written")


def built(builder: RecordBuilder) -> bytes:
    """What was written into a builder, which is then empty."""
    data: bytes = builder.end()  # type: ignore[no-untyped-call]
    return data


def _chunk_end(chunk: ChunkIndex) -> int:
    return chunk.chunk_start_offset + chunk.chunk_length + chunk.message_index_length
