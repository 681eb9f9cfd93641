"""The loop through the mirror: look, decide, aim, and find while the mirror moves.

A slot begins when the mirror lies still: the camera exposes, the scheduler decides by all that is
known, the mirror starts to move, and only then is the picture searched. Detector and mirror share
the time until the next slot, and what a look has found counts from the decision after the next.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise

import numpy as np

from edgeperc.errors import EdgepercError
from edgeperc.meter import Meter
from edgeperc.packet import Frame, Gaze, GazeRange, Stamp
from edgeperc.result import Detections, LabelMap, Model, ModelRef, Result, SearchMap, Timings
from edgeperc.search.schedulers import Scheduler
from edgeperc.steering.hints import Hints
from edgeperc.steering.lease import Order
from edgeperc.steering.panorama import Panorama
from edgeperc.steering.recorded import RecordedLooks
from edgeperc.steering.shutter import Look, Shutter

STAGES = ("late", "settle", "expose", "decide", "aim", "hints", "detect", "learn", "total")
"""late: from the slot's beginning until the shutter opened, settle: waiting for the mirror in that
time. hints, learn: what others and the look itself have found into the map. total: from the
shutter's opening to the last of it, waits left out."""
MAP_EVERY_NS = 100_000_000
SLOTS_KEPT = 100_000
"""So many slots that were met are remembered, a quarter of an hour at 120 Hz."""


class SearchLoop:
    """Steers the mirror of one camera by one scheduler, slot after slot. Owned by one thread.

    detector: None looks without finding, for timing. met: when each slot of late was due, and how
    late it was, in ns. emit: takes each look's Detections and, ten times a second, a SearchMap.
    see: takes the frames, for who draws them. order: goes before the scheduler while it lasts; may
    be set from any thread. reach: of the mirror, once it was there.
    """

    def __init__(
        self,
        *,
        shutter: Shutter | RecordedLooks,
        detector: Model | None,
        scheduler: Scheduler,
        scheduler_ref: ModelRef,
        panorama: Panorama,
        hints: Hints,
        meter: Meter,
        emit: Callable[[Result], None],
        see: Callable[[Frame], None] | None = None,
    ) -> None:
        self.shutter = shutter
        self.camera, self.mirror = shutter.camera, shutter.mirror
        self.meter = meter
        self.met: deque[tuple[int, int]] = deque(maxlen=SLOTS_KEPT)
        self.clipped = 0
        self.mirror_source = ""
        self.hints_dropped = 0
        self.error = ""
        self.reach: GazeRange | None = None
        self.order: Order | None = None
        self._detector = detector
        self._scheduler = scheduler
        self._scheduler_ref = scheduler_ref
        self._panorama = panorama
        self._hints = hints
        self._emit = emit
        self._see = see
        self._next_map_ns = 0
        self._maps = 0
        self._trail: list[tuple[float, float]] = []

    def open(self) -> None:
        """Open camera and mirror, if they are there, before the first slot begins."""
        if mirror := self.mirror.get():
            self.reach = mirror.range
        self.camera.get()

    def run(self) -> None:
        """Look until the clock is stopped or the slots end, or a device is lost for good."""
        missed = 0
        try:
            self.open()
            for look in self.shutter:
                self.meter.dropped(self.shutter.missed - missed)
                missed = self.shutter.missed
                self._turn(look, self._hints.take(look.due_ns))
                if self.camera.failed or self.mirror.failed:
                    return
        finally:
            self.camera.close()
            self.mirror.close()

    def _turn(self, look: Look, hints: Iterable[Result]) -> None:
        """One slot. A device that is lost ends it; without a mirror nothing moves or is learnt."""
        marks = [time.perf_counter_ns()]
        here = self.mirror.here and self.camera.here
        if here:
            gaze = self._decide(look.due_ns)
            marks.append(time.perf_counter_ns())
            with self.mirror.watched():
                self._aim(gaze)
            marks.append(time.perf_counter_ns())
        self.shutter.arm()
        for hint in hints:  # they can wait until the mirror is on its way
            self._learn_hint(hint, look.due_ns)
        if not here:
            return
        marks.append(time.perf_counter_ns())
        if look.frame and self._see:
            self._see(look.frame)
        found = self._find(look.frame) if look.frame else None
        marks.append(time.perf_counter_ns())
        if found:
            self._learn(found, look.due_ns)
        marks.append(time.perf_counter_ns())
        spent_ns = [look.expose_ns, *(after - before for before, after in pairwise(marks))]
        self.meter.record(look.late_ns, look.settle_ns, *spent_ns, sum(spent_ns))
        self.met.append((look.due_ns, look.late_ns))
        if found:
            infer_ns, total_ns = marks[4] - marks[3], sum(spent_ns)
            timings = Timings(wait_ns=look.late_ns, infer_ns=infer_ns, total_ns=total_ns)
            self._tell(replace(found, timings=timings), look.due_ns)

    def _decide(self, due_ns: int) -> Gaze | None:
        """Where to look next; None stays. Whoever holds the mirror decides before the scheduler."""
        order = self.order
        if order and time.monotonic() < order.until_s:
            return order.gaze
        return self._panorama.grid.gaze(*self._scheduler.step(due_ns * 1e-9))

    def _aim(self, gaze: Gaze | None) -> None:
        mirror = self.mirror.current
        self.reach = mirror.range
        try:
            if gaze:
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
