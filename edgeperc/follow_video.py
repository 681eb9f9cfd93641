"""A video, a folder of pictures or a camera, with the objects in it followed into files."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgeperc.drivers import formats
from edgeperc.drivers.formats.pictures import picture_files
from edgeperc.drivers.opencv import Video
from edgeperc.drivers.replay import Replay
from edgeperc.errors import DataError
from edgeperc.newest import Newest
from edgeperc.packet import Frame, Sensor
from edgeperc.prompting.prompts import Prompt
from edgeperc.render.drawing import draw
from edgeperc.render.video import VideoFile
from edgeperc.result import Instances

_COUNT_S = 10.0


class Follower(Protocol):
    """What follows; a VideoSession."""

    def step(self, frame: Frame, prompts: Mapping[int, Prompt]) -> Instances:
        """The objects in the next frame."""

    def remove(self, object_id: int) -> None:
        """Follow an object no longer."""


class MaskFile(Protocol):
    """Takes masks, frame by frame."""

    def write(self, found: Instances, name: str) -> None:
        """Add a frame."""

    def close(self) -> None:
        """Finish."""


@dataclass(slots=True, kw_only=True)
class Source:
    """Where frames come from. names: of the files, in a folder. count: of frames, if known.

    live: a camera, of which only the newest frame counts.
    """

    sensor: Sensor
    live: bool = False
    names: tuple[str, ...] = ()
    count: int | None = None
    _newest: Newest | None = field(default=None, init=False)

    def frames(self) -> Iterable[Frame]:
        """Frames to the end, events left out. Raises DataError or DeviceError."""
        if not self.live:
            return self._all()
        self._newest = Newest(self._all())
        return self._newest

    @property
    def missed(self) -> int:
        """Frames of a camera that came while we were busy."""
        return self._newest.missed if self._newest else 0

    def _all(self) -> Iterator[Frame]:
        for packet in self.sensor.packets():
            if isinstance(packet, Frame):
                yield packet

    def name(self, index: int) -> str:
        """What a frame is called: its file's name, or its number."""
        return self.names[index] if index < len(self.names) else f"{index:05d}"


def open_source(source: str) -> Source:
    """A camera as the driver `video` names it, else a folder or file, decoded in a process apart.

    Raises ConfigError, DataError or DeviceError if there is none.
    """
    live = source.isdigit() or source.startswith("/dev/") or "://" in source or " ! " in source
    if live and not Path(source).is_dir():
        return Source(sensor=Video(source, name="camera"), live=True)
    sensor = Replay(source, name=Path(source).stem or "video")
    kind = formats.sniff(Path(source))
    if not kind.frames:
        raise DataError(f"{source}: {kind.name} holds events and no frames")
    if kind is formats.FOLDER:
        names = tuple(path.name for path in picture_files(Path(source)))
        return Source(sensor=sensor, names=names, count=len(names))
    return Source(sensor=sensor, count=_announced(source) if kind is formats.VIDEO else None)


@dataclass(slots=True, kw_only=True)
class Followed:
    """How it went. step_ms: time of the networks and all around them, of each frame with an object.

    seen: frames in which each object had a pixel. missed: frames of a camera that came while we
    were busy. complete: neither stopped nor broken off.
    """

    frames: int = 0
    missed: int = 0
    wall_s: float = 0.0
    step_ms: list[float] = field(default_factory=list)
    seen: Counter[int] = field(default_factory=Counter)
    complete: bool = False

    @property
    def rate_hz(self) -> float:
        """Frames a second, decoding, drawing and writing included."""
        return self.frames / self.wall_s if self.wall_s else 0.0

    def percentile_ms(self, share: float) -> float:
        """Of step_ms; 0 where there is none."""
        return float(np.percentile(self.step_ms, share)) if self.step_ms else 0.0


def follow(
    source: Source,
    session: Follower,
    take: Callable[[Frame, int, float], tuple[Mapping[int, Prompt], Sequence[int]]],
    *,
    video: VideoFile | None,
    files: Sequence[MaskFile],
    report: Followed,
    stopped: Callable[[], bool],
    duration_s: float | None = None,
    on_frame: Callable[[Instances], Any] = lambda _: None,
) -> None:
    """Follow objects to the source's end, writing each frame as it comes; fills `report`.

    take: prompts and removals of a frame, by its number and the seconds since the first. stopped:
    asked before each frame. All files are finished however it ends. Raises DataError where a prompt
    does not fit, or the source breaks, DeviceError when a camera is lost.
    """
    started_s, first_ns = time.monotonic(), None
    try:
        for index, frame in enumerate(source.frames()):
            first_ns = frame.stamp.end_ns if first_ns is None else first_ns
            since_s = (frame.stamp.end_ns - first_ns) * 1e-9
            if stopped():
                return
            if duration_s is not None and since_s >= duration_s:
                break
            prompts, removed = take(frame, index, since_s)
            for object_id in removed:
                session.remove(object_id)
            step_s = time.perf_counter()
            found = session.step(frame, prompts)
            if len(found.ids):
                report.step_ms.append((time.perf_counter() - step_s) * 1e3)
            report.seen.update(
                i for i, box in zip(found.ids.tolist(), found.boxes, strict=True) if box.any()
            )
            for file in files:
                file.write(found, source.name(index))
            if video:
                video.write(draw(frame.image, [found]), frame.stamp.end_ns)
            report.frames += 1
            on_frame(found)
        report.complete = True
    finally:
        source.sensor.close()
        for file in files:
            file.close()
        if video:
            video.close()
        report.missed = source.missed
        report.wall_s = time.monotonic() - started_s


def _announced(path: str) -> int | None:
    """Frames that a video's header speaks of; asked in a process of its own, which may hang."""
    program = "import cv2, sys; print(int(cv2.VideoCapture(sys.argv[1], cv2.CAP_FFMPEG).get(7)))"
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, path],
            capture_output=True,
            check=True,
            timeout=_COUNT_S,
        )
        count = int(done.stdout)
    except (subprocess.SubprocessError, OSError, ValueError):
        return None
    return count if 0 < count < 1 << 31 else None
