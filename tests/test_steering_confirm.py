"""A calibration that is a little off is pulled right by what both cameras see together."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeperc.calibration.file import RigIdentity, uncalibrated
from edgeperc.calibration.refine import Refiner
from edgeperc.packet import Gaze, Stamp
from edgeperc.result import Detections, ModelRef
from edgeperc.steering.confirm import Confirmations

RIG = RigIdentity(wide="w", search="s", mirror="m", width_px=960, height_px=448)
SIDE = 224
PX_PER_RAD = SIDE / math.radians(2.81)
OFF = Gaze(pan_rad=12 / PX_PER_RAD, tilt_rad=-5 / PX_PER_RAD)
"""How far the mirror has shifted since the calibration."""


def result(source: str, at_ms: float, gaze: Gaze | None, size_px: tuple[int, int]) -> Detections:
    return Detections(
        stamp=Stamp(source=source, seq=0, start_ns=0, end_ns=round(at_ms * 1e6)),
        boxes=np.zeros((0, 4), np.float32),
        scores=np.zeros(0, np.float32),
        class_ids=np.zeros(0, np.int64),
        classes=(),
        model=ModelRef(name="m"),
        picture_px=size_px,
        gaze=gaze,
    )


class Scene:
    """Things at wide pixels; looks a little beside them, wide pictures of some moment."""

    def __init__(self) -> None:
        self.calibration = uncalibrated(RIG, math.radians(60))
        self.refiner = Refiner(self.calibration, px_per_rad=PX_PER_RAD)
        self.confirmations = Confirmations(self.refiner, px_per_rad=PX_PER_RAD)
        self.rng = np.random.default_rng(5)
        self.now_ms = 0

    def look_and_hint(
        self, wide_px: NDArray[np.float64], *, apart_ms: float, beside_px: float = 0.0
    ) -> None:
        """A look at the first thing, then the hint with all things, `apart_ms` later."""
        pan_rad, tilt_rad = self.calibration.gaze(wide_px[:1])[0]
        truth = Gaze(pan_rad=pan_rad + OFF.pan_rad, tilt_rad=tilt_rad + OFF.tilt_rad)
        aside_px = self.rng.uniform(-30, 30, 2)
        looked = Gaze(
            pan_rad=truth.pan_rad - aside_px[0] / PX_PER_RAD,
            tilt_rad=truth.tilt_rad + aside_px[1] / PX_PER_RAD,
        )
        middle = SIDE / 2 + aside_px + beside_px
        box = np.concatenate([middle - 10, middle + 10]).astype(np.float32)
        self.now_ms += 1000
        self.confirmations.found(result("search", self.now_ms, looked, (SIDE, SIDE)), box[None])
        hint = result("wide", self.now_ms + apart_ms, None, (960, 448))
        self.confirmations.hinted(hint, wide_px)

    def left_px(self) -> float:
        """What the correction leaves of the shift, in the middle."""
        at = [[480.0, 224.0]]
        moved = (self.refiner.gaze(at) - self.calibration.gaze(at))[0]
        return float(np.hypot(*(moved - (OFF.pan_rad, OFF.tilt_rad)))) * PX_PER_RAD


@pytest.fixture
def scene() -> Scene:
    return Scene()


def anywhere(rng: np.random.Generator, count: int = 1) -> NDArray[np.float64]:
    return rng.uniform((100, 50), (860, 400), (count, 2))


def test_confirmed_hints_pull_the_calibration_right(scene: Scene) -> None:
    before_px = scene.left_px()
    for _ in range(400):
        scene.look_and_hint(anywhere(scene.rng), apart_ms=10)
    assert before_px == pytest.approx(13.0)
    assert scene.left_px() < 1.5


def test_pictures_of_another_moment_confirm_nothing(scene: Scene) -> None:
    for _ in range(50):
        scene.look_and_hint(anywhere(scene.rng), apart_ms=40)
    assert scene.refiner.accepted == 0


def test_a_find_between_two_hints_confirms_neither(scene: Scene) -> None:
    for _ in range(50):
        one = anywhere(scene.rng)
        scene.look_and_hint(np.concatenate([one, one + 1.0]), apart_ms=5)
    assert scene.refiner.accepted == 0


def test_another_thing_in_the_look_confirms_nothing(scene: Scene) -> None:
    for _ in range(50):
        scene.look_and_hint(anywhere(scene.rng), apart_ms=5, beside_px=90)
    assert scene.refiner.accepted == 0


def test_a_hint_of_nothing_and_a_look_at_nothing_are_no_news(scene: Scene) -> None:
    nothing = np.empty((0, 4), np.float32)
    gaze = Gaze(pan_rad=0.0, tilt_rad=0.0)
    scene.confirmations.found(result("search", 0, gaze, (SIDE, SIDE)), nothing)
    scene.confirmations.hinted(result("wide", 0, None, (960, 448)), np.empty((0, 2)))
    assert (scene.refiner.accepted, scene.refiner.rejected) == (0, 0)


def test_a_thing_cut_by_the_edge_of_the_look_confirms_nothing(scene: Scene) -> None:
    gaze = Gaze(pan_rad=0.0, tilt_rad=0.0)
    for edge in ([0, 100, 60, 120], [100, 0, 120, 60], [180, 100, 224, 120], [100, 180, 120, 224]):
        look = result("search", 1000, gaze, (SIDE, SIDE))
        scene.confirmations.found(look, np.array([edge], np.float32))
        hint = result("wide", 1000, None, (960, 448))
        scene.confirmations.hinted(hint, np.array([[480.0, 224.0]]))
    assert scene.refiner.accepted == 0
