from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeperc.calibration.fit import fit
from edgeperc.calibration.models import IdealLens, Model, Physical, Polynomial

MODELS = ["ideal lens", "cubic", "cubic-1z", "physical"]


@pytest.fixture(scope="session")
def models(truth: Any) -> dict[str, Model]:
    found = fit(truth.points(3, 100, (5.0, 60.0)), truth.lens, truth.view)
    fitted: dict[str, Model] = {one.model.name: one.model for one in found.fits}
    return {"ideal lens": IdealLens.of_view(3840, 2160, np.radians(90)), **fitted}


@pytest.mark.parametrize("name", MODELS)
def test_a_pixel_comes_back(name: str, models: dict[str, Model], truth: Any) -> None:
    points = truth.points(4, 500, (5.0, 60.0))
    gaze = models[name].gaze(points.wide_px, points.inverse_depth)
    back = models[name].wide_px(gaze, points.inverse_depth)
    assert np.abs(back - points.wide_px).max() < 0.01


@pytest.mark.parametrize("name", MODELS)
def test_a_row_that_is_not_finite_is_nan_and_spoils_no_other(
    name: str, models: dict[str, Model]
) -> None:
    wide_px = np.array([[1800.0, 1000.0], [np.nan, np.nan], [2000.0, 1200.0]])
    far = np.zeros(3)
    gaze = models[name].gaze(wide_px, far)
    assert np.isfinite(gaze).all(axis=1).tolist() == [True, False, True]
    assert np.allclose(gaze[[0, 2]], models[name].gaze(wide_px[[0, 2]], far[:2]), atol=1e-7)
    seen = models[name].wide_px(gaze, far)
    assert np.isfinite(seen).all(axis=1).tolist() == [True, False, True]


@pytest.mark.parametrize("name", MODELS)
def test_no_rows_are_no_rows(name: str, models: dict[str, Model]) -> None:
    none = np.zeros((0, 2))
    assert models[name].gaze(none, np.zeros(0)).shape == (0, 2)
    assert models[name].wide_px(none, np.zeros(0)).shape == (0, 2)


@pytest.mark.parametrize("name", MODELS)
def test_right_and_up_are_positive(name: str, models: dict[str, Model]) -> None:
    wide_px = np.array([[1900.0, 1000.0], [2100.0, 1000.0], [1900.0, 800.0]])
    here, right, up = models[name].gaze(wide_px, np.zeros(3))
    assert right[0] > here[0] + 0.05
    assert up[1] > here[1] + 0.05


def test_what_no_gaze_shows_is_nan_not_a_wrong_pixel(models: dict[str, Model]) -> None:
    behind = np.array([[3.0, 0.0], [0.0, 40.0]])
    assert np.isnan(models["cubic"].wide_px(behind, np.zeros(2))).any(axis=1).all()


def test_an_ideal_lens_is_a_pinhole_of_the_given_view() -> None:
    model = IdealLens.of_view(960, 448, np.radians(60))
    edges = np.array([[0.0, 224.0], [960.0, 224.0], [480.0, 224.0]])
    pan, tilt = np.degrees(model.gaze(edges, np.zeros(3))).T
    assert pan == pytest.approx([-30, 30, 0], abs=1e-9)
    assert tilt == pytest.approx([0, 0, 0], abs=1e-9)


def test_a_wider_lens_is_a_fisheye() -> None:
    model = IdealLens.of_view(960, 448, np.radians(150))
    edges = np.array([[0.0, 224.0], [960.0, 224.0], [720.0, 224.0], [480.0, 64.0]])
    pan, tilt = np.degrees(model.gaze(edges, np.zeros(4))).T
    assert pan == pytest.approx([-75, 75, 37.5, 0], abs=1e-9)
    assert tilt == pytest.approx([0, 0, 0, 25], abs=1e-9)
    everywhere = np.random.default_rng(0).uniform((0, 0), (960, 448), (200, 2))
    back = model.wide_px(model.gaze(everywhere, np.zeros(200)), np.zeros(200))
    assert back == pytest.approx(everywhere, abs=1e-6)


def test_a_pinhole_does_not_see_behind_itself() -> None:
    model = IdealLens.of_view(960, 448, np.radians(60))
    behind = np.radians([[95.0, 0.0], [0.0, 100.0], [180.0, 0.0], [10.0, 10.0]])
    seen = np.isfinite(model.wide_px(behind, np.zeros(4))).all(axis=1)
    assert seen.tolist() == [False, False, False, True]


def test_straight_mirrors_send_each_gaze_where_it_says(models: dict[str, Model]) -> None:
    guess = models["cubic"]
    assert isinstance(guess, Polynomial)
    ideal = Physical((0.0, 0.0), guess, focal_px=1000.0, gap_m=0.012)
    origin, direction = ideal.rays(np.radians([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]))
    sin, cos = np.sin(np.radians(10)), np.cos(np.radians(10))
    assert direction == pytest.approx(
        np.array([[0, 0, 1], [sin, 0, cos], [0, sin, cos]]), abs=1e-12
    )
    assert origin[0] == pytest.approx([0, 0, 0], abs=1e-12)
    assert origin[1, 0] == pytest.approx(0.012 * np.tan(np.radians(10)))


def test_depth_moves_only_what_needs_it(models: dict[str, Model]) -> None:
    wide_px = np.array([[1900.0, 1000.0]])
    for name in MODELS[1:]:
        far, near = (models[name].gaze(wide_px, np.array([z])) for z in (0.0, 0.1))
        moved = bool(np.abs(far - near).max() > 1e-4)
        assert moved is (name != "cubic")
