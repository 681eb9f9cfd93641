"""From a plan to a search loop with its camera, mirror, detector and scheduler."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeperc import places, plugin
from edgeperc.clock import Clock, SteppedClock
from edgeperc.detect import Detector
from edgeperc.errors import ConfigError, DeviceError, blame
from edgeperc.meter import Meter
from edgeperc.packet import Frame, Gaze, Mirror
from edgeperc.plan import Plan, open_model
from edgeperc.recording.looks import waits_of
from edgeperc.result import ModelRef, Result
from edgeperc.search.grid import Grid
from edgeperc.search.schedulers import Scheduler, Sight
from edgeperc.status import PipelineStatus, SensorStatus
from edgeperc.steering.calibrated import calibrated_size, calibrations
from edgeperc.steering.device import Device
from edgeperc.steering.free_running import AsItComes, FreeRunning
from edgeperc.steering.hints import Hints
from edgeperc.steering.loop import STAGES, SearchLoop
from edgeperc.steering.panorama import Panorama
from edgeperc.steering.recorded import RecordedLooks
from edgeperc.steering.shutter import Shutter, SteeredCamera
from edgeperc.steering.slots import Slots

DEFAULT_RATE_HZ = 120.0
CELLS = 256
"""Columns of the search's grid."""
USABLE = 5.2 / 12
"""Half of what of a search picture's width is searched; things at the very edge are cut."""


@dataclass(kw_only=True)
class Parts:
    """A loop, the clock that ends it, and what tells how it goes."""

    loop: SearchLoop
    clock: Clock
    name: str
    refs: tuple[ModelRef, ModelRef]
    panorama: Panorama
    has_calibration: bool
    note: str = ""

    def status(self) -> tuple[tuple[SensorStatus, ...], PipelineStatus]:
        """Camera and mirror, and the loop as a pipeline."""
        loop = self.loop
        notes = [self.note] if self.note else []
        notes += [self.calibration()]
        notes += [f"gaze {loop.mirror_source}"] if loop.mirror_source else []
        for count, what in (
            (loop.clipped, "gazes clipped to the mirror's range"),
            (loop.shutter.unsettled, "looks before the mirror lay still"),
            (loop.hints_dropped, "hints that said nothing"),
            (self.panorama.dropped, "boxes left out"),
        ):
            notes += [f"{count:,} {what}"] if count else []
        pipeline = PipelineStatus(
            name=self.name,
            model=self.refs[0],
            meter=loop.meter.snapshot(),
            error=loop.error,
            note="; ".join(notes),
        )
        mirror = replace(loop.mirror.status, moves=loop.mirror.status.packets)
        return (replace(loop.camera.status), mirror), pipeline

    def calibration(self) -> str:
        """What brings wide pixels to gazes."""
        if not self.has_calibration:
            return "no calibration: the wide camera's pixels are gazes by a guess"
        if not self.panorama.confirmed:
            return "calibrated"
        refiner = self.panorama.confirmed.refiner
        return (
            f"calibrated, corrected by {refiner.longest_px:.1f} px"
            f" after {refiner.accepted:,} confirmed hints"
        )


class Pointing:
    """The mirror as its camera sees it: whichever one is connected now."""

    def __init__(self, mirror: Device[Mirror]) -> None:
        self._mirror = mirror

    def measured(self, time_ns: int | None = None) -> Gaze:
        """Where it points. Raises DeviceError while it is lost."""
        mirror = self._mirror.get()
        if mirror is None:
            raise DeviceError("the mirror is lost")
        try:
            return mirror.measured(time_ns)
        except DeviceError as error:
            self._mirror.lost(error)
            raise


def build(
    plan: Plan,
    *,
    clock: Clock,
    hints: Hints,
    emit: Callable[[Result], None],
    see: Callable[[Frame], None] | None = None,
    lossless: bool = False,
) -> Parts:
    """Load the detector and make everything nameable; devices are opened when the loop runs.

    clock: of the run. lossless: time steps from slot to slot, and a lost device is the end. The
    loop ends with the `duration_s` of its camera, if that has one. A camera of the driver "replay"
    plays what was recorded through the mirror. Raises ConfigError or ModelError.
    """
    search = plan.app.search
    assert search
    table, where = plan.pipeline(search.gaze)
    if lossless:
        clock = SteppedClock(clock)
    with blame(f"{where} model"):
        detector = open_model(places.find_model(table.model), table)
        if not isinstance(detector, Detector):
            raise ConfigError(f"'{table.model}' gives no boxes, and a search looks for some")
    period_ns = round(1e9 / (table.rate_hz or DEFAULT_RATE_HZ))
    if plan.rig.sensors[table.input].get("driver") == "replay":
        if not lossless:
            raise ConfigError(
                f"{where} input: '{table.input}' is a recording, and a search that is live steers",
                hint="edgeperc replay RECORDING",
            )
        shutter: Shutter | RecordedLooks = _recorded(plan, table.input, clock, period_ns)
    else:
        shutter = _shutter(plan, table.input, clock, period_ns, lossless=lossless)
    panorama = panorama_of(plan)
    if size_px := calibrated_size(plan):
        panorama.prepare(size_px)
    _rehearse(scheduler_of(plan, panorama, period_ns), panorama.grid)
    scheduler_ref = ModelRef(name=search.scheduler, engine="search")
    loop = SearchLoop(
        shutter=shutter,
        detector=detector,
        scheduler=scheduler_of(plan, panorama, period_ns),
        scheduler_ref=scheduler_ref,
        panorama=panorama,
        hints=hints,
        meter=Meter(STAGES),
        emit=emit,
        see=see,
    )
    return Parts(
        loop=loop,
        clock=clock,
        name=table.name,
        refs=(detector.ref, scheduler_ref),
        panorama=panorama,
        has_calibration=bool(plan.rig.calibration),
    )


def _shutter(plan: Plan, sensor: str, clock: Clock, period_ns: int, *, lossless: bool) -> Shutter:
    """What looks through the rig's mirror. Raises ConfigError."""
    injected = {"clock": clock, "now_ns": clock.now_ns}
    mirror: Device[Mirror] = Device("mirror", plan.mirror(injected), lossless=lossless)
    open_camera = plan.sensor(sensor, {**injected, "mirror": Pointing(mirror)})
    camera: Device[SteeredCamera] = Device(
        sensor, lambda: _steered(open_camera()), lossless=lossless
    )
    duration_s = plan.rig.sensors[sensor].get("duration_s")
    end_ns = None if duration_s is None else round(duration_s * 1e9)
    # A camera that cannot be told when to expose sets the pace.
    is_told = hasattr(plan.driver(sensor), "expose")
    slots = Slots(period_ns, clock, end_ns=end_ns) if is_told else AsItComes(clock)
    return Shutter(camera=camera, mirror=mirror, slots=slots, clock=clock, ahead=not lossless)


def _recorded(plan: Plan, sensor: str, clock: Clock, period_ns: int) -> RecordedLooks:
    """What was seen through the mirror, from a recording of ours."""
    open_camera = plan.sensor(sensor, {"clock": clock})
    table = plan.rig.sensors[sensor]
    waits = waits_of(Path(str(table.get("path"))), str(table.get("sensor") or sensor))
    return RecordedLooks(
        camera=Device(sensor, open_camera, lossless=True),
        waits=waits,
        period_ns=period_ns,
        max_gap_us=plan.app.validate.max_gap_us,
    )


def _rehearse(scheduler: Scheduler, grid: Grid) -> None:
    """Lead a scheduler, which is then thrown away, through all that compiles on its first use."""
    middle = np.array([[grid.width / 2, grid.height / 2, 0.9]])
    labels = np.zeros(grid.shape, np.uint8)
    labels[grid.height // 2 :] = 1
    scheduler.regions(0.0, labels, {1: 1.0})
    for k in range(3):
        scheduler.wide(0.1 * k, middle + k)
        gaze = scheduler.step(0.1 * k)
        scheduler.observe(0.1 * k, gaze, np.array([[*gaze, 0.9]]))
    scheduler.snapshot(0.3)


def _steered(camera: Any) -> SteeredCamera:
    """The camera itself if it exposes when asked to, else its newest frames."""
    return camera if hasattr(camera, "expose") else FreeRunning(camera)


def panorama_of(plan: Plan) -> Panorama:
    """Where what a rig's cameras see lies on the grid. Raises ConfigError."""
    assert plan.app.search
    field = plan.rig.field
    cell_rad = math.radians(field.width_deg) / CELLS
    return Panorama(
        grid=Grid(height=round(CELLS * field.height_deg / field.width_deg), cell_rad=cell_rad),
        calibration=calibrations(plan),
        search_rad=math.radians(field.search_deg),
        targets=frozenset(plan.app.search.targets),
        prior=plan.app.search.prior,
    )


def scheduler_of(plan: Plan, panorama: Panorama, period_ns: int) -> Scheduler:
    """The scheduler that an app names. Raises ConfigError."""
    search = plan.app.search
    assert search
    fov = panorama.search_rad / panorama.grid.cell_rad
    construct = plugin.prepare(
        {"scheduler": search.scheduler, **search.options},
        kind="scheduler",
        where=f"{plan.app_where} [search]",
        folder=plan.app_path.parent,
        injected={
            "grid": panorama.grid,
            "sight": Sight(fov=fov, half=USABLE * fov, pd=search.pd, slot_s=period_ns * 1e-9),
        },
    )
    scheduler: Scheduler = construct()
    return scheduler
