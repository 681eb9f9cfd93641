from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edgeperc.calibration import (
    Calibration,
    calibration_of,
    fit,
    identify,
    load_calibration,
    save_calibration,
    uncalibrated,
)
from edgeperc.calibration.depth import Ground
from edgeperc.config import Rig
from edgeperc.errors import ConfigError, DataError

KINDS = ["cubic", "cubic-1z", "physical"]


@pytest.fixture(scope="session")
def calibrations(truth: Any) -> dict[str, Calibration]:
    found = fit(truth.points(3, 80, (10.0, 60.0)), truth.lens, truth.view)
    return {
        one.model.name: Calibration(
            model=one.model,
            rig=truth.identity,
            errors=one.errors,
            inverse_depth=0.04,
            points=80,
            outliers=2,
            date="2026-11-26",
            software="edgeperc 0.1.0",
        )
        for one in found.fits
    }


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_is_loaded(
    kind: str, calibrations: dict[str, Calibration], truth: Any, tmp_path: Path
) -> None:
    kept = calibrations[kind]
    save_calibration(kept, tmp_path / "new folder" / "rig.toml")
    again = load_calibration(tmp_path / "new folder" / "rig.toml", truth.identity)
    wide_px = truth.points(4, 50, (10.0, 60.0)).wide_px
    for depth_m in (None, 12.0):
        assert np.array_equal(again.gaze(wide_px, depth_m), kept.gaze(wide_px, depth_m))
    for name in ("rig", "errors", "inverse_depth", "points", "outliers", "date"):
        assert getattr(again, name) == getattr(kept, name)


def test_it_is_a_file_that_a_person_can_read(
    calibrations: dict[str, Calibration], tmp_path: Path
) -> None:
    save_calibration(calibrations["cubic-1z"], tmp_path / "rig.toml")
    text = (tmp_path / "rig.toml").read_text()
    assert 'model = "cubic-1z"' in text
    assert 'search = "basler 123"' in text
    assert re.search(r"p95_px = \d+\.\d+\n", text)


@pytest.mark.parametrize(
    ("key", "value"),
    [("wide", "gige"), ("search", "basler 124"), ("mirror", "sigma"), ("width_px", 1920)],
)
def test_another_rigs_file_is_refused(
    key: str, value: Any, calibrations: dict[str, Calibration], truth: Any, tmp_path: Path
) -> None:
    save_calibration(calibrations["cubic"], tmp_path / "rig.toml")
    other = msgspec.structs.replace(truth.identity, **{key: value})
    with pytest.raises(ConfigError, match=rf"rig.toml \[rig\] {key}: calibrated for .* {value!r}"):
        load_calibration(tmp_path / "rig.toml", other)


def test_every_truncation_is_a_clear_error(
    calibrations: dict[str, Calibration], tmp_path: Path
) -> None:
    save_calibration(calibrations["physical"], tmp_path / "rig.toml")
    whole = (tmp_path / "rig.toml").read_text()
    last = whole.rindex("translation_z_m")
    for length in [*range(0, last, 97), last - 1]:
        (tmp_path / "rig.toml").write_text(whole[:length])
        with pytest.raises(ConfigError, match=r"rig\.toml"):
            load_calibration(tmp_path / "rig.toml")


@pytest.mark.parametrize(
    ("pattern", "text", "complaint"),
    [
        (r"pan_rad = \[[^,]*", "pan_rad = [nan", r"\[polynomial\] pan_rad: nan, must be finite"),
        (r"pan_rad = \[[^,]*,", "pan_rad = [", "need 10 numbers each"),
        (r"gap_m = .*", "gap_m = inf", r"\[physical\] gap_m: inf, must be finite"),
        (r"\nscale = .*", "\nscale = [0.0, 1.0]", "scale"),
        (r"rms_px = .*", "rms_px = nan", r"\[errors\] rms_px: nan, must be finite"),
        (r"format = 1", "format = 2", "this version reads 1"),
        (r"\[physical\](.|\n)*", "", r"table \[physical\] is missing"),
        (r"model = .*", 'model = "ideal lens"', "ideal lens"),
        (r"points = 80", "pionts = 80", "pionts"),
    ],
)
def test_a_damaged_file_is_a_clear_error(
    pattern: str, text: str, complaint: str, calibrations: dict[str, Calibration], tmp_path: Path
) -> None:
    path = tmp_path / "rig.toml"
    save_calibration(calibrations["physical"], path)
    damaged = re.sub(pattern, text, path.read_text(), count=1)
    assert damaged != path.read_text()
    path.write_text(damaged)
    with pytest.raises(ConfigError, match=rf"rig\.toml.*{complaint}"):
        load_calibration(path)


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_calibration(tmp_path / "gone.toml")


def test_a_save_puts_a_whole_new_file_in_place(
    calibrations: dict[str, Calibration], tmp_path: Path
) -> None:
    path = tmp_path / "rig.toml"
    save_calibration(calibrations["cubic"], path)
    with path.open() as reading:
        save_calibration(calibrations["physical"], path)
        assert 'model = "cubic"' in reading.read()  # a reader has the old one or the new one
    assert load_calibration(path).model.name == "physical"


def test_a_save_that_fails_leaves_the_old_file(
    calibrations: dict[str, Calibration], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rig.toml"
    save_calibration(calibrations["cubic"], path)
    before = path.read_text()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_calibration(calibrations["physical"], path)
    assert path.read_text() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["rig.toml"]


def test_depth_is_used_where_it_is_known(calibrations: dict[str, Calibration], truth: Any) -> None:
    points = truth.points(4, 300, (10.0, 60.0), noise_px=0.0)
    kept = calibrations["cubic-1z"]
    known = truth.error_px(kept.gaze(points.wide_px, points.depth_m), points)
    assumed = truth.error_px(kept.gaze(points.wide_px), points)
    assert np.sqrt(np.mean(known**2)) < 3.0
    assert np.sqrt(np.mean(assumed**2)) > 8.0
    assert np.allclose(kept.gaze(points.wide_px), kept.gaze(points.wide_px, 1 / 0.04))


def test_depth_does_nothing_where_no_depth_was_calibrated(truth: Any) -> None:
    points = truth.points(3, 80, (30.0, 30.0))
    blind = fit(type(points)(points.wide_px, points.gaze), truth.lens, truth.view)
    kept = calibration_of(blind, truth.identity, date="", software="")
    for one in blind.fits:
        kept = replace(kept, model=one.model)
        here, near = kept.gaze(points.wide_px), kept.gaze(points.wide_px, 2.0)
        assert near == pytest.approx(here, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_nonsense_in_is_nan_out(kind: str, calibrations: dict[str, Calibration]) -> None:
    kept = calibrations[kind]
    some = np.array([[1900.0, 1000.0], [np.nan, 5.0], [np.inf, 5.0]])
    assert np.isfinite(kept.gaze(some)).all(axis=1).tolist() == [True, False, False]
    for depth_m in (np.nan, -1.0, 0.0):
        assert np.isfinite(kept.gaze(some[:1], depth_m)).all() == (kind == "cubic")
    with pytest.raises(ValueError, match="expected"):
        kept.gaze(np.zeros(2))


def test_a_poor_fit_is_not_kept(truth: Any) -> None:
    points = truth.points(0, 60, (1.0, 6.0))
    found = fit(type(points)(points.wide_px, points.gaze), truth.lens, truth.view)
    with pytest.raises(DataError, match="quarter of the view"):
        calibration_of(found, truth.identity, date="", software="")


def test_a_rig_without_calibration_says_so(truth: Any, tmp_path: Path) -> None:
    bare = uncalibrated(truth.identity, np.radians(90))
    assert bare.model.name == "ideal lens"
    assert bare.errors is None
    with pytest.raises(ConfigError, match="nothing to be saved"):
        save_calibration(bare, tmp_path / "rig.toml")


def test_a_rig_is_known_by_its_drivers_and_serials() -> None:
    rig = Rig(
        sensors={
            "wide": {"driver": "video", "source": 0},
            "search": {"driver": "basler", "exposure_us": 800.0, "serial": "123"},
        },
        mirror={"driver": "sigma", "port": "/dev/ttyUSB0", "pan_sign": -1},
    )
    found = identify(rig, "wide", "search", (3840, 2160))
    assert found.wide == "video"
    assert found.search == "basler serial=123"
    assert found.mirror == "sigma pan_sign=-1"
    assert (found.width_px, found.height_px) == (3840, 2160)


def test_the_ground_gives_depths(calibrations: dict[str, Calibration], tmp_path: Path) -> None:
    ground = Ground(10.0, 0.1, 1920.0, (1920.0, 1080.0), farthest_m=200.0)
    kept = replace(calibrations["cubic-1z"], ground=ground)
    wide_px = np.array([[1920.0, 1200.0], [1500.0, 1500.0], [2200.0, 700.0]])
    assert np.array_equal(kept.gaze(wide_px), kept.gaze(wide_px, ground.depth_m(wide_px)))
    assert np.abs(kept.wide_px(kept.gaze(wide_px)) - wide_px).max() < 0.5
    save_calibration(kept, tmp_path / "rig.toml")
    again = load_calibration(tmp_path / "rig.toml")
    assert again.ground == ground
    assert np.array_equal(again.gaze(wide_px), kept.gaze(wide_px))
