"""When the search camera exposes: in each slot, once the mirror lies still.

Live, a thread of its own opens the shutter on time while the picture before is still searched; that
a detector now and then takes longer than a slot then delays nothing. The thread exposes only when
it is armed, which the loop does after it has sent the mirror on: so the two never use the mirror at
the same time.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from edgeperc.clock import Clock
from edgeperc.errors import DeviceError
from edgeperc.packet import Frame, Mirror
from edgeperc.steering.device import Device
from edgeperc.steering.free_running import AsItComes
from edgeperc.steering.slots import Slots
from edgeperc.validate import Validator

SETTLE_LIMIT_NS = 50_000_000
"""A mirror that needs longer is taken as it is; its pictures are blurred and counted."""


class SteeredCamera(Protocol):
    """A camera behind the mirror that exposes when told to."""

    def expose(self) -> Frame:
        """Take a picture now. Raises DeviceError if the camera is lost."""

    def close(self) -> None:
        """Release it; may be called twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What came of one slot. late_ns: from the slot's beginning until the shutter opened.

    settle_ns: the part of it that the mirror took. frame: with its gaze; None if a device is away
    or the picture was out of order.
    """

    due_ns: int
    late_ns: int = 0
    settle_ns: int = 0
    expose_ns: int = 0
    frame: Frame | None = None


class Shutter:
    """Looks, one a slot. ahead: expose in a thread, else between two looks, as a replay must.

    unsettled: looks before the mirror lay still. Iterating opens the devices when they are wanted.
    """

    def __init__(
        self,
        *,
        camera: Device[SteeredCamera],
        mirror: Device[Mirror],
        slots: Slots | AsItComes,
        clock: Clock,
        ahead: bool,
    ) -> None:
        self.camera, self.mirror = camera, mirror
        self.unsettled = 0
        self._slots, self._clock, self._ahead = slots, clock, ahead
        self._validator = Validator("drop")
        self._armed = threading.Semaphore(1)
        self._looks: queue.SimpleQueue[Look | BaseException | None] = queue.SimpleQueue()

    @property
    def missed(self) -> int:
        """Slots missed so far."""
        return self._slots.missed

    def arm(self) -> None:
        """The mirror is on its way: the next look may be taken once it is there."""
        self._armed.release()

    def __iter__(self) -> Iterator[Look]:
        """Looks until the clock is stopped or the slots end; each wants `arm` before the next."""
        if not self._ahead:
            yield from self._expose_all()
            return
        threading.Thread(target=self._run, name="shutter", daemon=True).start()
        while (look := self._looks.get()) is not None:
            if isinstance(look, BaseException):
                raise look
            yield look

    def _run(self) -> None:
        try:
            for look in self._expose_all():
                self._looks.put(look)
        except BaseException as bug:  # handed to whoever waits for looks
            self._looks.put(bug)
        else:
            self._looks.put(None)

    def _expose_all(self) -> Iterator[Look]:
        for due_ns in self._slots:
            self._armed.acquire()
            yield self._expose(due_ns)

    def _expose(self, due_ns: int) -> Look:
        mirror, camera = self.mirror.get(), self.camera.get()
        if mirror is None or camera is None:
            return Look(due_ns=due_ns)
        begun_ns = time.perf_counter_ns()
        with self.mirror.watched():
            self._settle(mirror)
        settled_ns = time.perf_counter_ns()
        late_ns = max(0, self._clock.now_ns() - due_ns)
        frame = self._picture(mirror, camera) if self.mirror.here else None
        return Look(
            due_ns=due_ns,
            late_ns=late_ns,
            settle_ns=settled_ns - begun_ns,
            expose_ns=time.perf_counter_ns() - settled_ns,
            frame=frame,
        )

    def _settle(self, mirror: Mirror) -> None:
        """Wait until the mirror lies still, if it will soon."""
        settled_ns, now_ns = mirror.settled_ns(), self._clock.now_ns()
        if settled_ns - now_ns > SETTLE_LIMIT_NS:
            self.unsettled += 1
        elif settled_ns > now_ns:
            self._clock.wait_until(settled_ns)

    def _picture(self, mirror: Mirror, camera: SteeredCamera) -> Frame | None:
        """Expose; where the mirror pointed meanwhile rides with the frame.

        None if the picture is out of order, or if the camera or the mirror was lost over it.
        """
        try:
            frame = camera.expose()
        except DeviceError as error:
            if self.mirror.here:  # the twin's camera asks the mirror, which may be the one to fail
                self.camera.lost(error)
            return None
        self._clock.wait_until(frame.stamp.end_ns)  # a picture of the twin is painted beforehand
        self.camera.works()
        checked = self._validator.check(frame)
        self.camera.status.counters = self._validator.counters
        if not isinstance(checked, Frame):
            return None
        self.camera.status.frames += 1
        if frame.gaze is None:
            with self.mirror.watched():
                middle_ns = (frame.stamp.start_ns + frame.stamp.end_ns) // 2
                checked = replace(checked, gaze=mirror.measured(middle_ns))
        return checked if self.mirror.here else None
