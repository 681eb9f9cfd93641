"""Make a recording whole that was cut off: by a crash, a dead battery, a full disk.

repair(Path("drive.mcap"))     # in place; what is whole is kept, its index is written anew
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mcap.data_stream import RecordBuilder
from mcap.opcode import Opcode
from mcap.records import AttachmentIndex, ChunkIndex, MessageIndex, MetadataIndex

from edgeperc.errors import DataError, EdgepercError
from edgeperc.recording.mcap_file import MAGIC, Index, built, finish, write_all
from edgeperc.recording.reader import (
    CutError,
    Known,
    Record,
    entries,
    is_ours,
    records,
)


@dataclass(frozen=True)
class Repaired:
    """What was done. messages: that the file holds now. cut_bytes: that were no whole record."""

    messages: int
    cut_bytes: int
    was_whole: bool


def repair(path: Path) -> Repaired:
    """Cut what is not a whole record off the end of one of our files, and write its index.

    A file that is whole is left alone. Raises DataError if it is none of ours, or is damaged
    elsewhere than at its end: there would be more to lose.
    """
    try:
        with path.open("rb") as file:
            ours = is_ours(file.read(256))
            file.seek(-min(len(MAGIC), os.fstat(file.fileno()).st_size), os.SEEK_END)
            has_end = file.read() == MAGIC
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    if not ours:
        raise DataError(f"{path}: is no recording of edgeperc")
    survey = _Survey()
    end = len(MAGIC)
    whole = False
    try:
        for record in records(path):
            if record.opcode == Opcode.DATA_END:
                whole = has_end
                break
            survey.note(record)
            end = record.end
    except CutError:
        pass
    except DataError as error:
        raise DataError(f"{path}: {error}", hint="all before it can be replayed") from error
    size = path.stat().st_size
    count = survey.index.statistics().message_count
    if whole:
        return Repaired(messages=count, cut_bytes=0, was_whole=True)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            finish(fd, survey.index, survey.index_last_chunk(fd, end))
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise EdgepercError(f"{path}: cannot be repaired: {error.strerror}") from error
    return Repaired(messages=count, cut_bytes=size - end, was_whole=False)


class _Survey:
    """Where a file's records lie."""

    def __init__(self) -> None:
        known = Known()
        self.index = Index(schemas=known.schemas, channels=known.channels)
        self._known = known
        self._places: dict[int, list[tuple[int, int]]] = {}

    def note(self, record: Record) -> None:
        """Take the next record."""
        if record.opcode == Opcode.CHUNK:
            self._chunk(record)
        elif record.opcode == Opcode.MESSAGE_INDEX and self.index.chunks:
            chunk, _ = self.index.chunks[-1]
            chunk.message_index_offsets[int.from_bytes(record.body[:2], "little")] = record.at
            chunk.message_index_length = record.end - chunk.chunk_start_offset - chunk.chunk_length
        elif record.opcode == Opcode.METADATA:
            name = _first_text(record.body)
            self.index.metadata.append(MetadataIndex(record.at, record.end - record.at, name))
        elif record.opcode == Opcode.ATTACHMENT:
            self._attachment(record)

    def _chunk(self, record: Record) -> None:
        self._places = {}
        for entry in entries(record, self._known):
            self._places.setdefault(entry.channel, []).append((entry.time_ns, entry.at))
        counts = {channel: len(places) for channel, places in self._places.items()}
        times = [time_ns for places in self._places.values() for time_ns, _ in places]
        body = record.body
        length = int.from_bytes(body[28:32], "little")
        packed = int.from_bytes(body[32 + length : 40 + length], "little")
        index = ChunkIndex(
            chunk_length=record.end - record.at,
            chunk_start_offset=record.at,
            compression=bytes(body[32 : 32 + length]).decode(),
            compressed_size=packed,
            message_end_time=max(times, default=0),
            message_index_length=0,
            message_index_offsets={},
            message_start_time=min(times, default=0),
            uncompressed_size=int.from_bytes(body[16:24], "little"),
        )
        self.index.chunks.append((index, counts))

    def index_last_chunk(self, fd: int, end: int) -> int:
        """Write the index of the last chunk's messages, if some of it is missing; the new end."""
        if not self.index.chunks:
            return end
        chunk, counts = self.index.chunks[-1]
        if chunk.message_index_offsets.keys() == counts.keys():
            return end
        start = chunk.chunk_start_offset + chunk.chunk_length
        record = RecordBuilder()
        for channel, places in self._places.items():
            chunk.message_index_offsets[channel] = start + record.count
            MessageIndex(channel, places).write(record)
        body = built(record)
        os.lseek(fd, start, os.SEEK_SET)
        write_all(fd, body)
        chunk.message_index_length = len(body)
        return start + len(body)

    def _attachment(self, record: Record) -> None:
        body = record.body
        name = _first_text(body[16:])
        media_type = _first_text(body[20 + len(name.encode()) :])
        size_at = 24 + len(name.encode()) + len(media_type.encode())
        self.index.attachments.append(
            AttachmentIndex(
                offset=record.at,
                length=record.end - record.at,
                log_time=int.from_bytes(body[:8], "little"),
                create_time=int.from_bytes(body[8:16], "little"),
                data_size=int.from_bytes(body[size_at : size_at + 8], "little"),
                name=name,
                media_type=media_type,
            )
        )


def _first_text(body: memoryview) -> str:
    length = int.from_bytes(body[:4], "little")
    return bytes(body[4 : 4 + length]).decode("utf-8", "replace")
