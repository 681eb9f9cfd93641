"""A daemon in this process with a page, pictures that never stop, and something to point at."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeperc.control import AppText, ControlError, DaemonStatus, RecordingStatus
from edgeperc.meter import Meter
from edgeperc.packet import Events, Frame, Stamp
from edgeperc.result import LabelMap, ModelRef, Timings
from edgeperc.sessions import Sessions
from edgeperc.sink import Inventory, SourceInfo
from edgeperc.sinks.web import Web
from edgeperc.status import PipelineStatus, SensorStatus
from edgeperc.tracker import Tracker

from .grey_video import GreyVideo

WIDTH, HEIGHT = 60, 40
SQUARES = {100: (4, 4, 16, 14), 150: (30, 10, 44, 22), 200: (40, 26, 56, 38)}
"""Grey value -> left, upper, right, lower edge of a square that stays where it is."""
MODEL = ModelRef(
    name="segmenter", sha256="c0ffee00" * 8, engine="onnxruntime", provider="CPUExecutionProvider"
)


def picture() -> NDArray[np.uint8]:
    image = np.full((HEIGHT, WIDTH), 20, np.uint8)
    for grey, (x0, y0, x1, y1) in SQUARES.items():
        image[y0:y1, x0:x1] = grey
    return image


def label_map() -> NDArray[np.uint8]:
    """Three classes, patches of noise, and pixels that nobody looked at."""
    labels = np.random.default_rng(2).integers(0, 3, (HEIGHT, WIDTH)).astype(np.uint8)
    labels[:, 20:40] = 1
    labels[30:, :10] = 255
    return labels


class FakeControl:
    """As `edgeperc.control.Daemon`."""

    def __init__(self) -> None:
        self.meter = Meter()
        self.recording: RecordingStatus | None = None
        self.orders: list[str] = []
        self.can_record = True
        self.errors: tuple[str, ...] = ()
        self.hint = ""
        self.started_s = time.monotonic()

    steering = None

    def status(self) -> DaemonStatus:
        lost = SensorStatus(name="dvs", events=1234)
        if self.errors:
            lost.state, lost.error, lost.hint = "lost", self.errors[0], self.hint
        return DaemonStatus(
            version="1.2.3",
            app="street",
            state="degraded" if self.errors else "serving",
            uptime_s=time.monotonic() - self.started_s,
            sensors=(SensorStatus(name="wide", frames=12), lost),
            pipelines=(
                PipelineStatus(name="seg", model=MODEL, meter=self.meter.snapshot(), error=""),
            ),
            recording=self.recording,
            errors=self.errors,
        )

    def app(self) -> AppText:
        return AppText(name="street", toml="", etag="1")

    def start_recording(self, name: str = "", **limits: float) -> RecordingStatus:
        self.orders.append("start")
        if not self.can_record:
            raise ControlError("the disk is full", hint="delete something")
        self.recording = RecordingStatus(name="a", path="/tmp/a.mcap", running=True, bytes=3 << 20)
        return self.recording

    def stop_recording(self) -> RecordingStatus:
        self.orders.append("stop")
        self.recording = RecordingStatus(name="a", path="/tmp/a.mcap", running=False, seconds=5.0)
        return self.recording


class WebDaemon:
    """Pictures and label maps of `wide`, events of `dvs`, at 50 Hz."""

    def __init__(self, **options: Any) -> None:
        self.video = GreyVideo()
        sessions = Sessions(source="wide", max_points=15, max_sessions=2, max_objects=6)
        self.tracker = Tracker(self.video, sessions)
        self.control = FakeControl()
        inventory = Inventory(
            sources=(SourceInfo(name="wide", driver="test"), SourceInfo(name="dvs", driver="test")),
            models=(MODEL,),
        )
        self.sink = Web(
            **{"listen": "127.0.0.1:0", "inventory": inventory} | options,
            daemon=self.control,  # type: ignore[arg-type]
            trackers=[self.tracker],
        )
        self.url = self.sink.where
        self.labels = label_map()
        self.seq = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def prompts(self) -> list[Any]:
        """All prompts that came through to the network, in order."""
        return [prompt for _, asked in self.video.steps for prompt in asked.values()]

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()
        self.sink.close()

    def _run(self) -> None:
        while not self._stopping.wait(0.02):
            start_ns = self.seq * 20_000_000
            times = {"seq": self.seq, "start_ns": start_ns, "end_ns": start_ns + 10_000_000}
            frame = Frame(stamp=Stamp(source="wide", **times), image=picture())
            self.sink.take(frame)
            self.sink.take(self._events(times))
            self.sink.write(self.tracker(frame))
            result = LabelMap(
                stamp=frame.stamp, labels=self.labels, classes=("a", "b", "c"), model=MODEL
            )
            self.sink.write(result)
            self.control.meter.finished(Timings(total_ns=4_000_000), 0)
            self.seq += 1

    @staticmethod
    def _events(times: dict[str, int]) -> Events:
        t = np.full(2, times["start_ns"] // 1000, np.int64)
        x, y = np.array([1, 2], np.uint16), np.array([0, 3], np.uint16)
        p = np.array([True, False])
        stamp = Stamp(source="dvs", **times)
        return Events(stamp=stamp, t=t, x=x, y=y, p=p, width_px=6, height_px=4)


def eventually(condition: Callable[[], bool]) -> bool:
    deadline_s = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.02)
    return True
