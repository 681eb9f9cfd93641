from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from edgeperc.calibration import Calibration, Refiner, fit
from edgeperc.packet import Gaze

BOUND_PX = 20.0


@pytest.fixture(scope="session")
def calibration(truth: Any) -> Calibration:
    found = fit(truth.points(3, 80, (30.0, 30.0)), truth.lens, truth.view)
    return Calibration(model=found.fits[0].model, rig=truth.identity)


@pytest.fixture
def refiner(calibration: Calibration, truth: Any) -> Refiner:
    return Refiner(calibration, px_per_rad=truth.view.px_per_rad, bound_px=BOUND_PX)


class Rig:
    """The calibrated rig after it was knocked: the true gaze is off by an affine map."""

    def __init__(self, truth: Any, calibration: Calibration, constant: Any, slope: float) -> None:
        self.truth, self.calibration = truth, calibration
        self.constant, self.slope = np.array(constant), slope
        self.random = np.random.default_rng(1)

    def true_gaze(self, wide_px: Any) -> Any:
        off_px = self.constant + self.slope * (wide_px[:, :1] - 1920) / 1920
        return self.calibration.gaze(wide_px) + off_px / self.truth.view.px_per_rad

    def feed(self, refiner: Refiner, count: int, outliers: float = 0.0) -> None:
        """Detections with 2 px of noise, some of them of another object near by."""
        wide_px = self.random.uniform((1300, 700), (2500, 1450), (count, 2))
        for at, true in zip(wide_px, self.true_gaze(wide_px), strict=True):
            looked = refiner.gaze([at])[0]
            right, up = (true - looked) * self.truth.view.px_per_rad
            offset = np.array([right, -up]) + self.random.normal(0, 2, 2)
            if self.random.random() < outliers:
                offset += self.random.uniform(-100, 100, 2)
            gaze = Gaze(pan_rad=looked[0], tilt_rad=looked[1])
            refiner.observe(tuple(at), gaze, tuple(offset))

    def rms_px(self, refiner: Refiner) -> float:
        wide_px = self.random.uniform((1300, 700), (2500, 1450), (500, 2))
        miss = (refiner.gaze(wide_px) - self.true_gaze(wide_px)) * self.truth.view.px_per_rad
        return float(np.sqrt(np.mean(np.sum(miss**2, axis=1))))


@pytest.mark.parametrize("outliers", [0.0, 0.3])
def test_it_follows_a_rig_that_was_knocked(
    outliers: float, refiner: Refiner, calibration: Calibration, truth: Any
) -> None:
    rig = Rig(truth, calibration, (9.0, -5.0), slope=4.0)
    before = rig.rms_px(refiner)
    rig.feed(refiner, 2000, outliers)
    assert before > 9.0
    assert rig.rms_px(refiner) < 2.0


def test_a_crowd_on_one_side_hardly_pulls_it(
    refiner: Refiner, calibration: Calibration, truth: Any
) -> None:
    """A quarter of the detections are of another object, 50 px to the right."""
    rig = Rig(truth, calibration, (0.0, 0.0), slope=0.0)
    for _ in range(300):
        rig.feed(refiner, 3)
        at = rig.random.uniform((1300, 700), (2500, 1450))
        looked = refiner.gaze([at])[0]
        gaze = Gaze(pan_rad=looked[0], tilt_rad=looked[1])
        assert refiner.observe(tuple(at), gaze, (50.0, 0.0))
    assert rig.rms_px(refiner) < 5.0  # their mean would be 12


def test_it_is_slow(refiner: Refiner, calibration: Calibration, truth: Any) -> None:
    Rig(truth, calibration, (15.0, 0.0), slope=0.0).feed(refiner, 5)
    assert 0 < refiner.longest_px < 2.0


def test_a_right_calibration_stays(refiner: Refiner, calibration: Calibration, truth: Any) -> None:
    rig = Rig(truth, calibration, (0.0, 0.0), slope=0.0)
    rig.feed(refiner, 1000, outliers=0.1)
    assert rig.rms_px(refiner) < 1.5


@pytest.mark.parametrize("bias_px", [15.0, 40.0, 100.0, 1e6])
@pytest.mark.parametrize("direction", [(1.0, 0.0), (0.6, -0.8)])
def test_a_poisoned_stream_stays_within_the_bound(
    bias_px: float, direction: tuple[float, float], refiner: Refiner, truth: Any
) -> None:
    random = np.random.default_rng(0)
    offset = (bias_px * direction[0], bias_px * direction[1])
    corners = np.array([[0, 0], [3839, 0], [0, 2159], [3839, 2159], [1920, 1080], [9e4, -9e4]])
    for _ in range(3000):
        at = random.uniform((0, 0), (3840, 2160))
        pan, tilt = refiner.calibration.gaze([at])[0] + random.normal(0, 1e-4, 2)
        refiner.observe(tuple(at), Gaze(pan_rad=pan, tilt_rad=tilt), offset)
    moved = refiner.gaze(corners) - refiner.calibration.gaze(corners)
    assert np.linalg.norm(moved, axis=1).max() * truth.view.px_per_rad <= BOUND_PX + 1e-6
    if bias_px > 60:
        assert refiner.accepted == 0
        assert refiner.rejected == 3000


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_counted_and_does_nothing(bad: float, refiner: Refiner) -> None:
    still = Gaze(pan_rad=0.0, tilt_rad=0.0)
    assert not refiner.observe((bad, 1000.0), still, (0.0, 0.0))
    assert not refiner.observe((1900.0, 1000.0), still, (0.0, bad))
    assert not refiner.observe((1900.0, 1000.0), Gaze(pan_rad=bad, tilt_rad=0.0), (0.0, 0.0))
    assert refiner.longest_px == 0.0
    assert np.isfinite(refiner.gaze([[1900.0, 1000.0]])).all()


def test_a_pixel_comes_back(refiner: Refiner, calibration: Calibration, truth: Any) -> None:
    Rig(truth, calibration, (12.0, -6.0), slope=5.0).feed(refiner, 1000)
    wide_px = truth.points(4, 200, (30.0, 30.0)).wide_px
    back = refiner.wide_px(refiner.gaze(wide_px))
    assert np.abs(back - wide_px).max() < 0.05


def test_what_it_does_is_logged(
    refiner: Refiner, calibration: Calibration, truth: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edgeperc")
    Rig(truth, calibration, (45.0, 0.0), slope=0.0).feed(refiner, 1000)
    warnings = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert len([m for m in warnings if "has reached 20 px" in m]) == 1
    assert any("corrected by" in r.message for r in caplog.records)
    caplog.clear()
    still = Gaze(pan_rad=0.0, tilt_rad=0.0)
    for _ in range(200):
        refiner.observe((3000.0, 300.0), still, (0.0, 0.0))
    assert [r.message for r in caplog.records if "not where they should be" in r.message] != []
    assert len(caplog.records) == 1
