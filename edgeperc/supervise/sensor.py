"""A sensor's process: reads it, checks its packets and puts them into a ring for whoever reads."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from typing import Any

import numpy as np

from edgeperc import plugin
from edgeperc.clock import ReplayClock
from edgeperc.errors import EdgepercError
from edgeperc.packet import Frame, Packet
from edgeperc.reading import Reading
from edgeperc.supervise.child import Child
from edgeperc.supervise.feed import Feed
from edgeperc.supervise.link import Link
from edgeperc.supervise.orders import Ready, Report, SensorOrder
from edgeperc.validate import Validator

_STOP_S = 0.7


class SensorWorker:
    """Serves the readers that the front process sends it."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._feed = Feed()
        self._clock = SharedClock(child)
        self._reading: Reading | None = None
        self._bug: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="sensor", daemon=True)

    def main(self) -> None:
        """Get ready, wait for the start, read to the end."""
        child = self._child
        order: SensorOrder = child.wait_for("order")
        clock = self._clock
        try:
            construct = plugin.prepare(
                order.table,
                kind="driver",
                where=order.where,
                folder=order.folder,
                injected={"name": order.name, "clock": clock, "now_ns": clock.now_ns},
            )
        except EdgepercError as error:
            child.fail(error)
        self._reading = Reading(
            order.name,
            construct,
            self,
            validator=lambda: Validator(policy=order.policy, max_gap_us=order.max_gap_us),
            lossless=False,
        )
        child.say("ready", Ready())
        clock.anchor(*child.wait_for("go"))
        self._thread.start()
        child.serve(
            hear=self._hear, report=self._report, has_ended=self._has_ended, stop=self._stop
        )

    def opened(self, name: str) -> None:
        """See Listener: readers learn that it is back by its packets."""

    def take(self, name: str, packet: Packet) -> None:
        """See Listener."""
        if isinstance(packet, Frame) and not packet.image.flags.c_contiguous:
            packet = replace(packet, image=np.ascontiguousarray(packet.image))
        self._feed.put(packet)

    def lost(self, name: str) -> None:
        """See Listener."""
        assert self._reading
        self._feed.say("lost", self._reading.status.error)

    def ended(self, name: str) -> None:
        """See Listener."""
        self._feed.say("ended")

    def _read(self) -> None:
        assert self._reading
        try:
            self._reading.run()
        except BaseException as bug:  # for the main thread
            self._bug = bug

    def _hear(self, kind: str, content: Any, fds: list[int]) -> None:
        if kind == "reader":
            self._feed.add(Link(socket.socket(fileno=fds[0])))
        elif kind == "anchor":
            self._clock.hear(content)

    def _report(self) -> Report:
        assert self._reading
        self._feed.flush()
        status = replace(self._reading.status)
        return Report(sensor=status, progress=status.packets)

    def _has_ended(self) -> bool:
        if self._bug:
            raise self._bug
        return not self._thread.is_alive()

    def _stop(self) -> None:
        assert self._reading
        self._clock.stop()
        self._reading.stop()
        self._thread.join(_STOP_S)


class SharedClock(ReplayClock):
    """One clock for the sensors of a run, each in its process: the front says what time it is.

    A recording's time, or another that is far from that of the run, is anchored by whichever
    sensor needs it first.
    """

    def __init__(self, child: Child) -> None:
        super().__init__()
        self._child = child
        self._answers: dict[int, tuple[int, int]] = {}
        self._answered = threading.Condition()

    def hear(self, content: tuple[int, tuple[int, int]]) -> None:
        """The front's answer to a question after a time."""
        asked_ns, anchor = content
        with self._answered:
            self._answers[asked_ns] = anchor
            self._answered.notify_all()

    def anchored(self, time_ns: int) -> tuple[int, int]:
        """A sensor time near `time_ns`, and the monotonic time that it stands for."""
        if found := self._near(time_ns):
            return found
        self._child.say("anchor", time_ns)
        with self._answered:
            self._answered.wait_for(
                lambda: time_ns in self._answers or self._stopped.is_set(), timeout=5.0
            )
            anchor = self._answers.pop(time_ns, None)
        if anchor:
            self._anchors.append(anchor)
        return super().anchored(time_ns)
