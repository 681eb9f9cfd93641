"""Writes packets and results into MCAP files by a thread of its own, and never makes anyone wait.

    recorder = Recorder(Path("drive.mcap"), about)
    recorder.put(frame)             # from any thread; dropped and counted if the disk is too slow
    recorder.status().dropped
    recorder.close()

At least twice a second all that came is written, whole and checked, and on the disk.
"""

from __future__ import annotations

import errno
import fnmatch
import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from edgeperc.control import RecordingStatus
from edgeperc.errors import ConfigError, EdgepercError
from edgeperc.packet import Events, Frame, Packet
from edgeperc.recording.head import About
from edgeperc.recording.mcap_file import LIBRARY, McapFile
from edgeperc.result import Detections, Instances, LabelMap, Result, SearchMap
from edgeperc.ros.camera_info import CAMERA_INFO, Cameras
from edgeperc.ros.codec import definition, make, serialize
from edgeperc.ros.messages import to_ros
from edgeperc.ros.topics import EVENT_PACKET, IMAGE, STRING, Messages, Topic, prefix
from edgeperc.ros.wall import Wall

log = logging.getLogger("edgeperc")

FLUSH_S = 0.4
QUEUE_BYTES = 64 << 20
_CLOSE_S = 10.0
_BEHIND_STAMP = 12
"""Where in the bytes of a message with a header what is not its time begins."""
_TYPES = (STRING, IMAGE, CAMERA_INFO, EVENT_PACKET)
_MAIN = {
    Frame: "image_raw",
    Events: "events",
    LabelMap: "labels",
    Detections: "detections",
    Instances: "instances",
    SearchMap: "map",
}
"""What the topic is called by which an item is chosen and counted."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a recording goes on in a new file, and how much may wait for the disk."""

    max_bytes: int | None = None
    max_s: float | None = None
    queue_bytes: int = QUEUE_BYTES


NO_LIMITS = Limits()


class Recorder:
    """A recording, running until `close`.

    path: of the first file; the others are numbered, `drive_0001.mcap`. topics: patterns of what is
    recorded (`wide/*`), and with a `!` in front of what is not. wait: `put` waits for the disk
    instead of dropping, for replays. Raises ConfigError if there is such a file, or it cannot be
    written.
    """

    def __init__(
        self,
        path: Path,
        about: About,
        *,
        topics: Sequence[str] = (),
        limits: Limits = NO_LIMITS,
        wait: bool = False,
    ) -> None:
        self._first = path
        self._about, self._cameras = about, Cameras(about.intrinsics)
        self._only = [topic for topic in topics if not topic.startswith("!")]
        self._not = [topic[1:] for topic in topics if topic.startswith("!")]
        self._limits = limits
        self._wait = wait
        self._chosen: dict[str, bool] = {}
        self._changed = threading.Condition()
        self._items: deque[tuple[Packet | Result, int]] = deque()
        self._held_bytes = 0
        self._dropped: Counter[str] = Counter()
        self._seqs: dict[str, int] = {}
        self._closing = False
        self._error = ""
        self._began_s = time.monotonic()
        self._ended_s: float | None = None
        self._offset_ns: int | None = None
        self._first_ns = self._last_ns = 0
        self._files = 0
        self._done_bytes = self._done_messages = self._told = 0
        self._latched: dict[str, bytes] = {}
        self._has_begun = self._app_is_new = False
        self._file_began_s = time.monotonic()
        try:
            if not path.parent.is_dir():
                path.parent.mkdir(parents=True)
            self._file = McapFile(path)
        except OSError as error:
            if isinstance(error, FileExistsError) and os.path.lexists(path):
                raise ConfigError(f"{path}: is there already", hint="name a new file") from None
            raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
        for type_ in _TYPES:
            definition(type_)  # takes half a second the first time, in which nothing is safe
        self._thread = threading.Thread(target=self._work, name=f"record {path.name}", daemon=True)
        self._thread.start()

    @property
    def path(self) -> Path:
        """The newest file."""
        return self._file.path

    @property
    def error(self) -> str:
        """Why it ended before it was closed, or ""."""
        return self._error

    def put(self, item: Packet | Result) -> None:
        """Take a packet or a result, if it is one of those to be recorded."""
        topic = _topic(item)
        if not self._is_chosen(topic):
            return
        size = _bytes(item)
        with self._changed:
            if self._wait:
                self._changed.wait_for(lambda: self._has_room(size) or self._closing or self._error)
            if self._closing or self._error:
                return
            if isinstance(item, (Frame, Events)):
                self._dropped[topic] += self._missing(topic, item.stamp.seq)
            if not self._has_room(size):
                self._dropped[topic] += 1
                return
            self._items.append((item, size))
            self._held_bytes += size
            self._changed.notify_all()

    def become(self, about: About) -> None:
        """Another app runs from now on: its text is a message, and it heads the next file."""
        with self._changed:
            self._about, self._cameras = about, Cameras(about.intrinsics)
            self._app_is_new = self._has_begun
            self._changed.notify_all()

    def status(self) -> RecordingStatus:
        """How it is now."""
        with self._changed:
            ended_s = time.monotonic() if self._ended_s is None else self._ended_s
            return RecordingStatus(
                name=self._first.stem,
                path=str(self._file.path),
                running=self._ended_s is None,
                seconds=ended_s - self._began_s,
                bytes=self._done_bytes + self._file.size,
                messages=self._done_messages + self._file.messages,
                dropped=sum(self._dropped.values()),
                files=self._files + 1,
                error=self._error,
            )

    def dropped(self) -> dict[str, int]:
        """How many items are missing, by topic: dropped here, or packets lost on the way here."""
        with self._changed:
            return {topic: count for topic, count in self._dropped.items() if count}

    def close(self) -> None:
        """Write what waits, and make the file whole; may be called twice and from any thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(_CLOSE_S)

    def _missing(self, topic: str, seq: int) -> int:
        """How many packets were lost on the way here since the last one that came."""
        last, self._seqs[topic] = self._seqs.get(topic), seq
        return 0 if last is None else max(0, seq - last - 1)

    def _has_room(self, size: int) -> bool:
        return not self._items or self._held_bytes + size <= self._limits.queue_bytes

    def _is_chosen(self, topic: str) -> bool:
        chosen = self._chosen.get(topic)
        if chosen is None:
            wanted = not self._only or any(fnmatch.fnmatchcase(topic, p) for p in self._only)
            unwanted = any(fnmatch.fnmatchcase(topic, p) for p in self._not)
            chosen = self._chosen[topic] = wanted and not unwanted
        return chosen

    def _work(self) -> None:
        """Write what comes until `close` or an error, and then the file's end."""
        try:
            self._write_all()
        except Exception as error:  # it must not end without a word
            self._fail(error)
        try:
            self._file.close()
        except OSError as error:
            self._fail(error)
        with self._changed:
            self._ended_s = time.monotonic()
            self._items.clear()
            self._held_bytes = 0
            self._changed.notify_all()

    def _write_all(self) -> None:
        due_s = time.monotonic() + FLUSH_S
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._items or self._closing, max(0.0, due_s - time.monotonic())
                )
                item, size = self._items[0] if self._items else (None, 0)
                if item is None and self._closing:
                    break
            if item is not None:
                self._write(item)
                with self._changed:
                    self._items.popleft()
                    self._held_bytes -= size
                    self._changed.notify_all()
            if self._app_is_new:
                self._tell_app(self._last_ns)
            if time.monotonic() >= due_s:
                self._flush()
                due_s = time.monotonic() + FLUSH_S
        self._begin()
        self._tell_dropped()

    def _write(self, item: Packet | Result) -> None:
        if self._offset_ns is None:
            self._offset_ns = Wall(self._about.clocks).offset_ns(item.stamp)
            self._first_ns = item.stamp.start_ns
        if self._has_begun and self._is_full():
            self._next_file()
        self._begin()
        self._last_ns = item.stamp.end_ns + self._offset_ns
        for topic, data in self._encoded(
            to_ros(item, self._offset_ns, exact=True, cameras=self._cameras)
        ):
            self._file.add(
                topic.name,
                topic.type,
                data,
                time_ns=item.stamp.end_ns + self._offset_ns,
                said_ns=item.stamp.start_ns + self._offset_ns,
                seq=item.stamp.seq,
            )

    def _encoded(self, messages: Messages) -> Iterator[tuple[Topic, bytes]]:
        """The bytes of messages; latched ones only if they are not in the file already."""
        for topic, message in messages:
            data = serialize(message, topic.type)
            if topic.latched:
                content = data[_BEHIND_STAMP:]
                if self._latched.get(topic.name) == content:
                    continue
                self._latched[topic.name] = content
            yield topic, data

    def _begin(self) -> None:
        """Write what a file says of itself, once."""
        if self._has_begun:
            return
        self._has_begun = True
        now_ns = time.time_ns()
        values = {
            **self._about.values,
            "offset_ns": str(self._offset_ns or 0),
            "first_ns": str(self._first_ns),
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "part": str(self._files),
            "lossless": str(self._wait).lower(),
        }
        self._file.describe(LIBRARY, values)
        for name, (media_type, data) in self._about.files.items():
            self._file.attach(name, media_type, data, time_ns=now_ns)
        self._tell_app(now_ns)

    def _tell_app(self, time_ns: int) -> None:
        """Write the app's text as a message."""
        self._app_is_new = False
        if text := self._about.files.get("app.toml"):
            message = make(STRING, data=text[1].decode("utf-8", "replace"))
            self._file.add("app", STRING, serialize(message, STRING), time_ns=time_ns)

    def _flush(self) -> None:
        self._tell_dropped()
        if self._file.waiting:
            self._file.flush()

    def _tell_dropped(self) -> None:
        """Write the counts of what was dropped, if they are new; the last ones count."""
        dropped = self.dropped()
        if sum(dropped.values()) > self._told:
            self._told = sum(dropped.values())
            counts = {topic: str(count) for topic, count in dropped.items()}
            self._file.describe(f"{LIBRARY}.dropped", counts)

    def _is_full(self) -> bool:
        size = self._file.size + self._file.waiting
        seconds = time.monotonic() - self._file_began_s
        return (self._limits.max_bytes is not None and size >= self._limits.max_bytes) or (
            self._limits.max_s is not None and seconds >= self._limits.max_s
        )

    def _next_file(self) -> None:
        number = self._files + 1
        path = self._first.with_name(f"{self._first.stem}_{number:04d}{self._first.suffix}")
        self._tell_dropped()
        self._file.close()
        try:
            file = McapFile(path)
        except FileExistsError:
            raise ConfigError(f"{path}: is there already") from None
        with self._changed:
            self._done_bytes += self._file.size
            self._done_messages += self._file.messages
            self._file, self._files = file, number
        self._file_began_s = time.monotonic()
        self._latched.clear()
        self._has_begun, self._told = False, 0

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, (EdgepercError, OSError)):
            log.error("recording %s", self._file.path, exc_info=error)
        text = str(error)
        if isinstance(error, OSError):
            text = "the disk is full" if error.errno == errno.ENOSPC else str(error.strerror)
        with self._changed:
            if not self._error:
                where = f"{self._file.path}: "
                self._error = text if isinstance(error, ConfigError) else where + text
                log.warning("recording ended: %s", self._error)


def _topic(item: Packet | Result) -> str:
    model = "" if isinstance(item, (Frame, Events)) else item.model.name
    return f"{prefix(item.stamp.source, model)}/{_MAIN[type(item)]}"


def _bytes(item: Packet | Result) -> int:
    """About how much memory an item takes."""
    if isinstance(item, Frame):
        return item.image.nbytes
    if isinstance(item, Events):
        return 13 * len(item) + 500
    if isinstance(item, LabelMap):
        return item.labels.nbytes
    if isinstance(item, SearchMap):
        return item.intensity.nbytes
    if isinstance(item, Instances):
        return 1000 + sum(len(mask.counts) for mask in item.masks)
    return 1000 + 100 * len(item.scores)
