"""The loop through the mirror: look, decide, aim, and find while the mirror moves.

A slot begins when the mirror lies still: the camera exposes, the scheduler decides by all that is
known, the mirror starts to move, and only then is the picture searched. Detector and mirror share
the time until the next slot, and what a look has found counts from the decision after the next.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Protocol

import numpy as np

from edgeperc.clock import Clock
from edgeperc.errors import DeviceError, EdgepercError
from edgeperc.meter import Meter
from edgeperc.packet import Frame, Gaze, Mirror, Stamp
from edgeperc.result import Detections, LabelMap, Model, ModelRef, Result, SearchMap, Timings
from edgeperc.search.schedulers import Scheduler
from edgeperc.steering.device import Device
from edgeperc.steering.free_running import AsItComes
from edgeperc.steering.hints import Hints
from edgeperc.steering.panorama import Panorama
from edgeperc.steering.slots import Slots
from edgeperc.validate import Validator

STAGES = ("late", "settle", "expose", "decide", "aim", "detect", "learn", "total")
"""late: behind the slot. settle: waiting for the mirror. decide: with the hints that have come.
learn: what was found into the map."""
MAP_EVERY_NS = 100_000_000
SLOTS_KEPT = 100_000
"""So many slots that were met are remembered, a quarter of an hour at 120 Hz."""
SETTLE_LIMIT_NS = 50_000_000
"""A mirror that needs longer is taken as it is; its pictures are blurred and counted."""


class SteeredCamera(Protocol):
    """A camera behind the mirror that exposes when told to."""

    def expose(self) -> Frame:
        """Take a picture now. Raises DeviceError if the camera is lost."""

    def close(self) -> None:
        """Release it; may be called twice."""


class SearchLoop:
    """Steers the mirror of one camera by one scheduler, slot after slot. Owned by one thread.

    camera, mirror: opened when the loop runs. detector: None looks without finding, for timing.
    met: when each slot of late was due, and how late it was, in ns. emit: takes each look's
    Detections and, ten times a second, a SearchMap. see: takes the frames,
    for who draws them.
    """

    def __init__(
        self,
        *,
        camera: Device[SteeredCamera],
        mirror: Device[Mirror],
        detector: Model | None,
        scheduler: Scheduler,
        scheduler_ref: ModelRef,
        panorama: Panorama,
        hints: Hints,
        slots: Slots | AsItComes,
        clock: Clock,
        meter: Meter,
        emit: Callable[[Result], None],
        see: Callable[[Frame], None] | None = None,
    ) -> None:
        self.camera, self.mirror = camera, mirror
        self.meter = meter
        self.met: deque[tuple[int, int]] = deque(maxlen=SLOTS_KEPT)
        self.unsettled = 0
        self.clipped = 0
        self.mirror_source = ""
        self.hints_dropped = 0
        self.error = ""
        self._detector = detector
        self._scheduler = scheduler
        self._scheduler_ref = scheduler_ref
        self._panorama = panorama
        self._hints = hints
        self._slots = slots
        self._clock = clock
        self._emit = emit
        self._see = see
        self._validator = Validator("drop")
        self._next_map_ns = 0
        self._maps = 0
        self._trail: list[tuple[float, float]] = []

    def open(self) -> None:
        """Open camera and mirror, if they are there, before the first slot begins."""
        self.mirror.get()
        self.camera.get()

    def run(self) -> None:
        """Look until the clock is stopped or the slots end, or a device is lost for good."""
        missed = 0
        try:
            self.open()
            for due_ns in self._slots:
                self.meter.dropped(self._slots.missed - missed)
                missed = self._slots.missed
                self._turn(due_ns, list(self._hints.take(due_ns)))
                if self.camera.failed or self.mirror.failed:
                    return
        finally:
            self.camera.close()
            self.mirror.close()

    def _turn(self, due_ns: int, hints: Sequence[Result]) -> None:
        """One slot. A device that is lost ends it; without a mirror nothing moves or is learnt."""
        late_ns = max(0, self._clock.now_ns() - due_ns)
        marks = [time.perf_counter_ns()]
        mirror, camera = self.mirror.get(), self.camera.get()
        if mirror is None or camera is None:
            return
        with self.mirror.watched():
            self._settle(mirror)
        marks.append(time.perf_counter_ns())
        frame = self._look(mirror, camera) if self.mirror.here else None
        if not (self.mirror.here and self.camera.here):
            return
        marks.append(time.perf_counter_ns())
        for hint in hints:
            self._learn_hint(hint, due_ns)
        x, y = self._scheduler.step(due_ns * 1e-9)
        marks.append(time.perf_counter_ns())
        with self.mirror.watched():
            self._aim(mirror, self._panorama.grid.gaze(x, y))
        marks.append(time.perf_counter_ns())
        found = self._find(frame) if frame else None
        marks.append(time.perf_counter_ns())
        if found:
            self._learn(found, due_ns)
        marks.append(time.perf_counter_ns())
        spent_ns = [after - before for before, after in pairwise(marks)]
        self.meter.record(late_ns, *spent_ns, marks[-1] - marks[0])
        self.met.append((due_ns, late_ns))
        if found:
            wait_ns = late_ns + marks[1] - marks[0]
            total_ns = marks[-1] - marks[1]
            timings = Timings(wait_ns=wait_ns, infer_ns=marks[6] - marks[5], total_ns=total_ns)
            self._tell(replace(found, timings=timings), due_ns)

    def _settle(self, mirror: Mirror) -> None:
        """Wait until the mirror lies still, if it will soon."""
        settled_ns, now_ns = mirror.settled_ns(), self._clock.now_ns()
        if settled_ns - now_ns > SETTLE_LIMIT_NS:
            self.unsettled += 1
        elif settled_ns > now_ns:
            self._clock.wait_until(settled_ns)

    def _look(self, mirror: Mirror, camera: SteeredCamera) -> Frame | None:
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
        if self._see and self.mirror.here:
            self._see(checked)
        return checked

    def _aim(self, mirror: Mirror, gaze: Gaze) -> None:
        try:
            mirror.aim(gaze)
        except ValueError as error:  # a scheduler of somebody's own may say anything
            self.error = self.error or str(error)
            return
        self.mirror.works()
        self.clipped, self.mirror_source = mirror.clipped, mirror.source

    def _find(self, frame: Frame) -> Detections | None:
        if self._detector is None:
            return None
        try:
            found = self._detector(frame)
        except EdgepercError as error:
            self.meter.failed()
            self.error = self.error or str(error)
            return None
        assert isinstance(found, Detections)
        return replace(found, gaze=frame.gaze)

    def _learn(self, found: Detections, due_ns: int) -> None:
        assert found.gaze
        cells = self._panorama.found(found)
        self._scheduler.observe(due_ns * 1e-9, self._panorama.grid.cell(found.gaze), cells)

    def _learn_hint(self, hint: Result, due_ns: int) -> None:
        try:
            if isinstance(hint, Detections):
                self._scheduler.wide(due_ns * 1e-9, self._panorama.hinted(hint))
            elif isinstance(hint, LabelMap):
                regions = self._panorama.regions(hint)
                if regions is None:
                    self.hints_dropped += 1
                else:
                    weights = self._panorama.weights(hint)
                    self._scheduler.regions(due_ns * 1e-9, regions, weights)
        except EdgepercError as error:  # a calibration for pictures of another size
            self.hints_dropped += 1
            self.error = self.error or str(error)

    def _tell(self, found: Detections, due_ns: int) -> None:
        self._emit(found)
        assert found.gaze
        self._trail.append((found.gaze.pan_rad, found.gaze.tilt_rad))
        if due_ns >= self._next_map_ns:
            self._emit(self._map(found.stamp, due_ns))
            self._next_map_ns = due_ns - due_ns % MAP_EVERY_NS + MAP_EVERY_NS

    def _map(self, stamp: Stamp, due_ns: int) -> SearchMap:
        intensity, tracks = self._scheduler.snapshot(due_ns * 1e-9)
        trail, self._trail = np.array(self._trail, np.float32), []
        self._maps += 1
        return SearchMap(
            stamp=replace(stamp, seq=self._maps - 1),
            intensity=intensity,
            cell_rad=self._panorama.grid.cell_rad,
            tracks=self._panorama.tracks(tracks),
            trail=trail,
            model=self._scheduler_ref,
        )
