"""The loop on the twin's mirror, with a camera that paints what it is told and may fail."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from edgeperc.calibration.file import RigIdentity, uncalibrated
from edgeperc.clock import ReplayClock, SteppedClock
from edgeperc.drivers.galvo.twin import TwinMirror
from edgeperc.errors import DeviceError, ModelError
from edgeperc.meter import Meter
from edgeperc.packet import Frame, Gaze, Mirror, Packet, Stamp
from edgeperc.result import Detections, LabelMap, ModelRef, Result, SearchMap
from edgeperc.search.grid import Grid
from edgeperc.search.schedulers import Place, Scheduler, Sight, raster
from edgeperc.steering.device import Device
from edgeperc.steering.loop import STAGES, SearchLoop
from edgeperc.steering.panorama import Panorama
from edgeperc.steering.shutter import Shutter
from edgeperc.steering.slots import Slots

PERIOD_NS = 8_333_333
GRID = Grid()
SIDE = 32
REF = ModelRef(name="finder")
RIG = RigIdentity(wide="w", search="s", mirror="m", width_px=960, height_px=448)


class Camera:
    """Exposes for 1 ms; raises what stands in `failures` at that picture."""

    def __init__(self, clock: SteppedClock, failures: dict[int, Exception]) -> None:
        self.clock, self.failures = clock, failures
        self.shot = -1
        self.closed = 0

    def expose(self) -> Frame:
        self.shot += 1
        if self.shot in self.failures:
            raise self.failures[self.shot]
        now_ns = self.clock.now_ns()
        stamp = Stamp(source="search", seq=self.shot, start_ns=now_ns, end_ns=now_ns + 1_000_000)
        return Frame(stamp=stamp, image=np.zeros((SIDE, SIDE), np.uint8))

    def close(self) -> None:
        self.closed += 1


class Recorder:
    """A scheduler that looks where a script says and keeps what it is told."""

    def __init__(self, gazes: Iterable[Place]) -> None:
        self.gazes = iter(gazes)
        self.observed: list[tuple[Place, np.ndarray]] = []
        self.hints: list[np.ndarray] = []
        self.steps = 0
        self.dropped = 0

    def regions(self, t_s: float, labels: Any, weights: Any) -> None:
        self.hints.append(labels)

    def wide(self, t_s: float, detections: Any) -> None:
        self.hints.append(detections)

    def step(self, t_s: float) -> Place:
        self.steps += 1
        return next(self.gazes)

    def observe(self, t_s: float, gaze: Place, detections: Any) -> None:
        self.observed.append((gaze, detections))

    def snapshot(self, t_s: float) -> Any:
        return np.zeros(GRID.shape, np.float32), np.empty((0, 4))


def boxes_at(*middles: tuple[float, float], classes: int = 1) -> dict[str, Any]:
    at = np.array(middles, np.float32).reshape(-1, 2)
    return {
        "boxes": np.concatenate([at - 2, at + 2], axis=1),
        "scores": np.full(len(at), 0.5, np.float32),
        "class_ids": np.arange(len(at)) % classes,
    }


def in_the_middle(packet: Packet) -> Detections:
    assert isinstance(packet, Frame)
    return Detections(
        stamp=packet.stamp,
        classes=("person",),
        model=REF,
        picture_px=(SIDE, SIDE),
        **boxes_at((SIDE / 2, SIDE / 2)),
    )


@dataclass
class Rig:
    """A loop and everything around it."""

    scheduler: Scheduler
    slots: int = 10
    failures: dict[int, Exception] = field(default_factory=dict)
    mirrors: list[Any] = field(default_factory=list)
    hints: dict[int, list[Result]] = field(default_factory=dict)
    detector: Any = in_the_middle
    lossless: bool = False
    mirror_options: dict[str, Any] = field(default_factory=dict)
    emitted: list[Result] = field(default_factory=list)
    seen: list[Frame] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = SteppedClock(ReplayClock(None))
        self.camera = Camera(self.clock, self.failures)
        self.made: list[Mirror] = []
        self.shutter = Shutter(
            camera=Device("search", lambda: self.camera, lossless=self.lossless),
            mirror=Device("mirror", self._mirror, lossless=self.lossless),
            slots=Slots(PERIOD_NS, self.clock, end_ns=self.slots * PERIOD_NS),
            clock=self.clock,
            ahead=False,
        )
        self.panorama = Panorama(
            grid=GRID,
            calibration=lambda _size: uncalibrated(RIG, math.radians(60)),
            search_rad=math.radians(2.81),
            targets=frozenset({"person"}),
            prior={"road": 1.0},
        )
        self.loop = SearchLoop(
            shutter=self.shutter,
            detector=self.detector,
            scheduler=self.scheduler,
            scheduler_ref=ModelRef(name="script"),
            panorama=self.panorama,
            hints=self,
            meter=Meter(STAGES),
            emit=self.emitted.append,
            see=self.seen.append,
        )

    def take(self, now_ns: int) -> list[Result]:
        return self.hints.pop(round(now_ns / PERIOD_NS), [])

    def run(self) -> Rig:
        self.loop.run()
        return self

    def looks(self) -> list[Detections]:
        return [result for result in self.emitted if isinstance(result, Detections)]

    def _mirror(self) -> Mirror:
        wanted = self.mirrors.pop(0) if self.mirrors else TwinMirror
        if isinstance(wanted, Exception):
            raise wanted
        self.made.append(wanted(now_ns=self.clock.now_ns, **self.mirror_options))
        return self.made[-1]


def places(count: int = 100) -> Iterator[Place]:
    yield from [(20.0 + 7 * k % 200, 30.0 + 5 * k % 60) for k in range(count)]


def test_every_slot_has_a_look_at_the_gaze_decided_in_the_slot_before() -> None:
    rig = Rig(Recorder(places())).run()
    looks = rig.looks()
    assert [look.stamp.start_ns for look in looks] == [PERIOD_NS * k for k in range(1, 11)]
    assert [look.stamp.seq for look in looks] == list(range(10))
    for look, (x, y) in zip(looks[1:], places(), strict=False):
        assert look.gaze
        assert GRID.cell(look.gaze) == pytest.approx((x, y), abs=0.05)
    assert looks[0].gaze == Gaze(pan_rad=0.0, tilt_rad=0.0)
    assert rig.loop.meter.snapshot().results == 10
    assert rig.loop.meter.snapshot().dropped == 0


def test_what_a_look_finds_is_told_in_cells_with_where_the_mirror_truly_was() -> None:
    scheduler = Recorder(places())
    rig = Rig(scheduler).run()
    assert len(scheduler.observed) == 10
    for (gaze, cells), look in zip(scheduler.observed, rig.looks(), strict=True):
        assert look.gaze
        assert gaze == pytest.approx(GRID.cell(look.gaze))
        np.testing.assert_allclose(cells, [[*gaze, 0.5]], atol=1e-9)


def test_boxes_right_of_and_below_the_middle_lie_right_and_down_in_cells() -> None:
    def beside(packet: Packet) -> Detections:
        return replace(in_the_middle(packet), **boxes_at((SIDE / 2 + 8, SIDE / 2 + 4)))

    scheduler = Recorder([(128.0, 64.0)] * 10)
    Rig(scheduler, detector=beside).run()
    gaze, cells = scheduler.observed[-1]
    cell_px = SIDE / (2.81 / (60 / 256))
    np.testing.assert_allclose(cells[0, :2] - gaze, [8 / cell_px, 4 / cell_px], rtol=1e-6)


def test_a_move_that_takes_longer_than_a_slot_is_waited_for() -> None:
    rig = Rig(Recorder([(10.0, 10.0), (240.0, 110.0)] * 10), mirror_options={"natural_hz": 60.0})
    rig.run()
    looks = rig.looks()
    assert 3 <= len(looks) < 10
    for look, wanted in zip(looks[1:], [(10.0, 10.0), (240.0, 110.0)] * 10, strict=False):
        assert look.gaze
        assert GRID.cell(look.gaze) == pytest.approx(wanted, abs=0.1)
    assert rig.loop.meter.snapshot().dropped + len(looks) in (9, 10)  # the last one may not end
    assert rig.shutter.unsettled == 0


def test_a_mirror_that_never_settles_is_taken_as_it_is_and_counted() -> None:
    options = {"natural_hz": 5.0, "damping": 0.01}
    rig = Rig(Recorder([(10.0, 10.0), (240.0, 110.0)] * 10), mirror_options=options).run()
    assert len(rig.looks()) == 10
    assert rig.shutter.unsettled >= 8
    for look, wished in zip(rig.looks()[1:], [(10.0, 10.0), (240.0, 110.0)] * 10, strict=False):
        assert look.gaze
        assert GRID.cell(look.gaze) != pytest.approx(wished, abs=1.0)  # never the wish


def test_a_mirror_stays_within_its_range_whatever_it_is_asked() -> None:
    wild = [(1e6, -1e6), (-500.0, 900.0), (128.0, 64.0)] * 5
    rig = Rig(Recorder(wild)).run()
    assert rig.loop.clipped == 7
    for look in rig.looks():
        assert look.gaze
        assert abs(look.gaze.pan_rad) < math.radians(31)
        assert abs(look.gaze.tilt_rad) < math.radians(16)


def test_a_gaze_that_is_no_number_moves_nothing() -> None:
    rig = Rig(Recorder([(math.nan, 3.0), (30.0, 40.0)] * 5)).run()
    assert len(rig.looks()) == 10
    assert "finite" in rig.loop.error
    for look in rig.looks():
        assert look.gaze
        assert math.isfinite(look.gaze.pan_rad)


def test_a_lost_mirror_stops_motion_and_learning_and_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Breaking(TwinMirror):
        aims = 0

        def aim(self, gaze: Gaze) -> Gaze:
            self.aims += 1
            if self.aims == 3:
                raise DeviceError("unplugged", hint="plug it in")
            return super().aim(gaze)

    monkeypatch.setattr("edgeperc.steering.device._FIRST_PAUSE_S", 0.0)
    scheduler = Recorder(places())
    rig = Rig(scheduler, mirrors=[Breaking, DeviceError("still out"), TwinMirror], slots=20)
    states = []
    rig.loop._hints = rig  # type: ignore[assignment]
    take = rig.take

    def watching(now_ns: int) -> list[Result]:
        states.append((rig.loop.mirror.status.state, scheduler.steps))
        return take(now_ns)

    rig.take = watching  # type: ignore[method-assign]
    rig.run()
    lost = [steps for state, steps in states if state == "lost"]
    assert lost
    assert len(set(lost)) == 1  # nothing is decided while it is away
    assert states[-1][0] == "running"
    assert rig.loop.mirror.status.error == ""
    assert len(rig.made) == 2
    assert scheduler.steps > 10


def test_a_lost_camera_leaves_the_mirror_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeperc.steering.device._FIRST_PAUSE_S", 0.0)
    rig = Rig(Recorder(places()), failures={3: DeviceError("no picture")}).run()
    assert len(rig.looks()) == 9
    assert rig.camera.closed == 2  # when it was lost, and at the end
    assert len(rig.made) == 1
    assert rig.loop.camera.status.state == "running"


def test_in_a_replay_a_lost_device_is_the_end() -> None:
    failures: dict[int, Exception] = {3: DeviceError("no picture", hint="look")}
    rig = Rig(Recorder(places()), failures=failures, lossless=True).run()
    assert len(rig.looks()) == 3
    assert rig.loop.camera.status.state == "failed"
    assert (rig.loop.camera.status.error, rig.loop.camera.status.hint) == ("no picture", "look")


def test_a_picture_out_of_order_is_dropped_and_counted() -> None:
    class Jumping(Camera):
        def expose(self) -> Frame:
            frame = super().expose()
            if self.shot != 4:
                return frame
            early = replace(frame.stamp, start_ns=0, end_ns=1)
            return replace(frame, stamp=early)

    rig = Rig(Recorder(places()))
    rig.camera = Jumping(rig.clock, {})
    rig.run()
    assert [look.stamp.seq for look in rig.looks()] == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert rig.loop.camera.status.counters.backwards == 1


def test_a_detector_that_cannot_answer_costs_its_look_only() -> None:
    def moody(packet: Packet) -> Detections:
        if packet.stamp.seq % 2:
            raise ModelError("no answer")
        return in_the_middle(packet)

    scheduler = Recorder(places())
    rig = Rig(scheduler, detector=moody).run()
    assert (len(rig.looks()), scheduler.steps) == (5, 10)
    assert rig.loop.meter.snapshot().failed == 5
    assert rig.loop.error == "no answer"


def wide_boxes(*middles: tuple[float, float], classes: tuple[str, ...] = ("person",)) -> Detections:
    return Detections(
        stamp=Stamp(source="wide", seq=0, start_ns=0, end_ns=0),
        classes=classes,
        model=REF,
        picture_px=(960, 448),
        **boxes_at(*middles, classes=len(classes)),
    )


def test_hints_arrive_in_cells_and_only_of_what_is_searched_for() -> None:
    scheduler = Recorder(places())
    hint = wide_boxes((480, 224), (0, 0), (700, 224), classes=("person", "horse"))
    Rig(scheduler, hints={3: [hint]}).run()
    (cells,) = scheduler.hints
    assert cells[0] == pytest.approx([128, 64, 0.5], abs=1e-6)
    assert len(cells) == 2
    assert cells[1, 0] > 128 + 40


def labels(value: np.ndarray, classes: tuple[str, ...] = ("sky", "road")) -> LabelMap:
    stamp = Stamp(source="wide", seq=0, start_ns=0, end_ns=0)
    return LabelMap(stamp=stamp, labels=value, classes=classes, model=REF)


def test_a_label_map_becomes_regions_of_the_grid() -> None:
    scheduler = Recorder(places())
    road = np.zeros((448, 960), np.uint8)
    road[224:] = 1
    Rig(scheduler, hints={2: [labels(road)]}).run()
    (regions,) = scheduler.hints
    assert regions.shape == GRID.shape
    assert (regions[:60][regions[:60] != 255] == 0).all()
    assert (regions[68:][regions[68:] != 255] == 1).all()
    assert (regions != 255).mean() > 0.9


def test_a_wide_view_gone_black_is_no_hint() -> None:
    scheduler = Recorder(places())
    rig = Rig(scheduler, hints={2: [labels(np.zeros((448, 960), np.uint8))]}).run()
    assert scheduler.hints == []
    assert rig.loop.hints_dropped == 1
    assert len(rig.looks()) == 10


def test_a_map_comes_ten_times_a_second_with_the_trail_since_the_last() -> None:
    rig = Rig(raster(GRID, Sight()), slots=60).run()
    maps = [result for result in rig.emitted if isinstance(result, SearchMap)]
    assert len(maps) == 5
    assert [each.stamp.seq for each in maps] == list(range(5))
    trail = np.concatenate([each.trail for each in maps])
    gazes = [look.gaze for look in rig.looks() if look.gaze]
    np.testing.assert_allclose(
        trail, [(gaze.pan_rad, gaze.tilt_rad) for gaze in gazes[: len(trail)]], rtol=1e-6
    )


def test_viewers_are_shown_each_picture_with_its_gaze() -> None:
    rig = Rig(Recorder(places())).run()
    assert [frame.gaze for frame in rig.seen] == [look.gaze for look in rig.looks()]


def test_the_same_run_twice_is_the_same() -> None:
    first, second = (Rig(raster(GRID, Sight()), slots=30).run() for _ in range(2))
    assert [look.gaze for look in first.looks()] == [look.gaze for look in second.looks()]
    assert [look.stamp for look in first.looks()] == [look.stamp for look in second.looks()]


def test_a_mirror_that_is_lost_over_a_picture_is_not_the_cameras_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Forgetting(TwinMirror):
        asked = 0

        def measured(self, time_ns: int | None = None) -> Gaze:
            self.asked += 1
            if self.asked == 3:
                raise DeviceError("no answer")
            return super().measured(time_ns)

    monkeypatch.setattr("edgeperc.steering.device._FIRST_PAUSE_S", 0.0)
    scheduler = Recorder(places())
    rig = Rig(scheduler, mirrors=[Forgetting]).run()
    assert len(rig.looks()) == len(scheduler.observed) == 9
    assert len(rig.made) == 2
    assert rig.camera.closed == 1
    assert all(frame.gaze for frame in rig.seen)


def test_a_flood_of_boxes_and_boxes_that_are_no_numbers_do_no_harm() -> None:
    random = np.random.default_rng(3)
    flood = random.uniform(0, 900, (10_000, 2)).astype(np.float32)
    flood[::7] = np.nan
    scheduler = Recorder(places())

    def flooded(packet: Packet) -> Detections:
        return replace(in_the_middle(packet), **boxes_at(*flood / 30))

    rig = Rig(scheduler, detector=flooded, hints={3: [wide_boxes(*flood)]}).run()
    assert len(rig.looks()) == 10
    told = [cells for _, cells in scheduler.observed] + scheduler.hints
    assert all(0 < len(cells) <= 200 and np.isfinite(cells).all() for cells in told)
    assert rig.panorama.dropped == 11 * 9_800


def test_of_a_flood_the_most_confident_boxes_are_kept() -> None:
    def flooded(packet: Packet) -> Detections:
        many = boxes_at(*[(k % 30, 5) for k in range(1000)])
        many["scores"] = np.linspace(0, 1, 1000, dtype=np.float32)
        return replace(in_the_middle(packet), **many)

    scheduler = Recorder(places())
    Rig(scheduler, detector=flooded, slots=1).run()
    assert scheduler.observed[0][1][:, 2].min() == pytest.approx(800 / 999, abs=2e-3)
