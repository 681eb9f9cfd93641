from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeperc.calibration import Points, read_points, read_sizes, write_points
from edgeperc.errors import DataError


def test_what_is_written_is_read(truth: Any, tmp_path: Path) -> None:
    for name, points in (
        ("with.csv", truth.points(1, 40, (5.0, 60.0))),
        (
            "without.csv",
            Points(*(getattr(truth.points(1, 40, (5, 60)), n) for n in ("wide_px", "gaze"))),
        ),
    ):
        write_points(tmp_path / name, points, {"wide_px": (3840, 2160)})
        assert read_sizes(tmp_path / name) == {"wide_px": (3840, 2160)}
        again = read_points(tmp_path / name)
        assert again.wide_px == pytest.approx(points.wide_px, abs=1e-5)
        assert again.gaze == pytest.approx(points.gaze, abs=1e-7)
        assert (again.depth_m is None) is (points.depth_m is None)


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (["u,v,pan_deg", "1,2,3"], "column tilt_deg is missing"),
        (["u,v,pan_deg,tilt_deg", "1,2,3,up"], "point 1: needs a number"),
        (["u,v,pan_deg,tilt_deg", "1,2,3"], "point 1: needs a number"),
        (["u,v,pan_deg,tilt_deg", "1,2,3,nan"], "point 1: gaze is"),
        (["u,v,pan_deg,tilt_deg", "1,2,100,0"], "point 1: a gaze beyond 90 degrees"),
        (["u,v,pan_deg,tilt_deg,depth_m", "1,2,3,4,0"], "depth_m: must be one number above 0"),
        (["u,v,pan_deg,tilt_deg", "1,2,3,4"], "1 different points, need 20"),
        ([], "column u, v, pan_deg, tilt_deg is missing"),
    ],
)
def test_a_bad_file_says_what_is_wrong(rows: list[str], complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text("\n".join(rows))
    with pytest.raises(DataError, match=f"points.csv.*{complaint}"):
        read_points(path)


def test_a_file_that_is_missing_or_no_text_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_points(tmp_path / "gone.csv")
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\xff\xfe\x00")
    with pytest.raises(DataError, match="picture.csv"):
        read_points(tmp_path / "picture.csv")


def test_repetitions_do_not_count(truth: Any) -> None:
    points = truth.points(1, 20, (30.0, 30.0))
    few = np.arange(60) % 15
    with pytest.raises(DataError, match=r"15 different points, need 20 \(45 are repetitions\)"):
        Points(points.wide_px[few], points.gaze[few]).check()


@pytest.mark.parametrize("what", ["pixels", "gazes"])
@pytest.mark.parametrize("spread", [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)])
def test_points_in_one_place_or_on_a_line_are_refused(
    what: str, spread: tuple[float, float], truth: Any
) -> None:
    points = truth.points(1, 40, (30.0, 30.0))
    along = np.linspace(0, 1, 40)[:, None] * spread
    flat = (1900 + 500 * along, points.gaze) if what == "pixels" else (points.wide_px, along)
    with pytest.raises(DataError, match=f"{what} of the points all lie in one place"):
        Points(*flat).check()
