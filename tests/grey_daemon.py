"""A daemon in this process that can be prompted, and needs no network."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeperc.packet import Frame
from edgeperc.sessions import Sessions
from edgeperc.sink import Inventory, SourceInfo
from edgeperc.sinks.grpc import Grpc
from edgeperc.tracker import Tracker

from .grey_video import GreyVideo, street

PICTURES = 54  # then the squares jump back to the left


class Daemon:
    """Pictures of a street at 100 Hz, a tracker and the gRPC sink, in this process."""

    def __init__(self, **options: Any) -> None:
        sources = options.pop("sources", ("wide",))
        limits = {"max_points": 15, "max_sessions": 3, "max_objects": 6, "ttl_s": 10.0} | options
        self.videos = [GreyVideo(wrong=13) for _ in sources]
        self.trackers = [
            Tracker(video, Sessions(source=source, **limits))
            for video, source in zip(self.videos, sources, strict=True)
        ]
        infos = tuple(SourceInfo(name=source, driver="test") for source in sources)
        inventory = Inventory(sources=infos, models=(self.videos[0].ref,))
        self.sink = Grpc(listen="127.0.0.1:0", inventory=inventory, trackers=self.trackers)
        self.address = self.sink.address
        self.paused = threading.Event()
        self.size_px = (60, 40)
        self.image: np.ndarray[Any, Any] | None = None
        self.seq = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def tracker(self) -> Tracker:
        return self.trackers[0]

    @property
    def sessions(self) -> int:
        return len(self.tracker.sessions)

    @property
    def seats_taken(self) -> bool:
        """Whether a stream still holds a thread of the server."""
        return any(thread.name == "grpc session" for thread in threading.enumerate())

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()
        self.sink.close()

    def _run(self) -> None:
        while not self._stopping.wait(0.01):
            if not self.paused.is_set():
                for tracker in self.trackers:
                    frame = street(self.seq % PICTURES, size_px=self.size_px, source=tracker.source)
                    if self.image is not None:
                        frame = Frame(stamp=frame.stamp, image=self.image)
                    self.sink.write(tracker(frame))
                self.seq += 1


def eventually(condition: Callable[[], bool]) -> bool:
    deadline_s = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.01)
    return True
