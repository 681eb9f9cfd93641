"""How a camera's lens is told: in the rig's file, in one of ROS, or by the rig's calibration."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from edgeperc import places
from edgeperc.bench.two_mirrors import RigIdentity
from edgeperc.calibration import IdealLens, save_calibration
from edgeperc.calibration.file import Calibration
from edgeperc.calibration.fit import Errors
from edgeperc.calibration.intrinsics import Intrinsics, intrinsics_of
from edgeperc.calibration.models import Physical, Polynomial
from edgeperc.config import Rig
from edgeperc.drivers.twin import Twin
from edgeperc.errors import ConfigError
from edgeperc.twin.backdrop import Lens
from edgeperc.twin.rig import upright, wide_lens

LENS = {"width_px": 640, "height_px": 480, "focal_px": [500.0, 510.0], "centre_px": [320.5, 239.5]}
OF_ROS = """
image_width: 640
image_height: 480
camera_name: narrow_stereo
camera_matrix:
  rows: 3
  cols: 3
  data: [438.783367, 0.000000, 305.593336, 0.000000, 437.302876, 243.738352, 0.0, 0.0, 1.0]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [-0.361976, 0.110510, 0.001014, 0.000505, 0.000000]
rectification_matrix:
  rows: 3
  cols: 3
  data: [0.9999, 0.002789, -0.006046, -0.002816, 0.9999, -0.004401, 0.006034, 0.004417, 0.9999]
projection_matrix:
  rows: 3
  cols: 4
  data: [393.653800, 0.0, 322.797939, 0.0, 0.0, 393.653800, 241.090902, 0.0, 0.0, 0.0, 1.0, 0.0]
"""


def known(lens: dict[str, Any], path: Path = Path("rig.toml"), **sensor: Any) -> Intrinsics:
    rig = msgspec.convert(
        {"sensors": {"wide": {"driver": "basler", **sensor}}, "intrinsics": {"wide": lens}}, Rig
    )
    return intrinsics_of(rig, path)["wide"]


def test_a_table_is_a_lens_of_one_eye() -> None:
    lens = known({**LENS, "distortion": [-0.3, 0.1]}, offset_x_px=16, offset_y_px=8)
    assert lens.matrix == (500, 0, 320.5, 0, 510, 239.5, 0, 0, 1)
    assert lens.distortion == (-0.3, 0.1, 0, 0, 0)
    assert lens.rectification == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    assert lens.projection == (500, 0, 320.5, 0, 0, 510, 239.5, 0, 0, 0, 1, 0)
    assert lens.window_px == (16, 8)


def test_a_file_of_ros_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "ost.yaml").write_text(OF_ROS)
    lens = known({"file": "ost.yaml"}, tmp_path / "rig.toml")
    assert (lens.model, lens.width_px, lens.height_px) == ("plumb_bob", 640, 480)
    assert lens.distortion[0] == -0.361976
    assert lens.rectification[1] == 0.002789
    assert lens.projection[0] == 393.6538
    assert known(msgspec.to_builtins(lens.table)) == lens


@pytest.mark.parametrize(
    ("lens", "why"),
    [
        ({}, r"\[intrinsics\.wide\]: needs width_px, height_px, focal_px and centre_px"),
        ({**LENS, "focal_px": [0.0, 1.0]}, "must be above 0"),
        ({**LENS, "centre_px": [float("nan"), 1.0]}, "not finite"),
        ({**LENS, "distortion": [0.0] * 6}, "plumb_bob has 5 coefficients"),
        ({"file": "none.yaml"}, "No such file"),
        ({"file": "list.yaml"}, "is no calibration of ROS"),
        ({"file": "odd.yaml"}, "'fisheye_of_mine' is not known"),
        ({"file": "short.yaml"}, "2 numbers where 9 belong"),
        ({"file": "broken.yaml"}, "is no calibration of ROS"),
    ],
)
def test_what_is_no_lens_is_said(tmp_path: Path, lens: dict[str, Any], why: str) -> None:
    (tmp_path / "list.yaml").write_text("- 1\n- 2\n")
    (tmp_path / "broken.yaml").write_text("a: [1, 2\nb: }")
    (tmp_path / "odd.yaml").write_text(OF_ROS.replace("plumb_bob", "fisheye_of_mine"))
    short = OF_ROS.replace("[438.783367, 0.000000, 305.593336, 0.000000, 437.302876, ", "[")
    (tmp_path / "short.yaml").write_text(short.replace("243.738352, 0.0, 0.0, 1.0]", "1, 2]"))
    with pytest.raises(ConfigError, match=why):
        known(lens, tmp_path / "rig.toml")


def test_a_lens_of_no_sensor_is_a_mistake_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "rig.toml"
    path.write_text("[sensors.dvs]\n[intrinsics.wide]\n")
    with pytest.raises(ConfigError, match=r"\[intrinsics\.wide\]: is no sensor"):
        places.find_rig(str(path))
    rig = msgspec.convert({"sensors": {"dvs": {}}, "intrinsics": {"wide": LENS}}, Rig)
    assert intrinsics_of(rig, path) == {}  # as a run has it that leaves sensors out


@pytest.mark.parametrize(
    ("name", "truth"), [("wide", wide_lens()), ("dvs", upright(346, 260, focal_px=300.0))]
)
def test_the_twins_lenses_are_those_it_is_painted_with(name: str, truth: Lens) -> None:
    lens = intrinsics_of(*places.find_rig("twin-search"))[name]
    assert (lens.width_px, lens.height_px) == (truth.width_px, truth.height_px)
    focal, across, down = truth.focal_px, truth.centre_px, truth.horizon_px
    assert lens.matrix == pytest.approx((focal, 0, across, 0, focal, down, 0, 0, 1))


def test_so_is_that_of_the_twins_event_camera() -> None:
    rig, path = places.find_rig("twin")
    lens = intrinsics_of(rig, path)["dvs"]
    twin = {name: each.default for name, each in signature(Twin).parameters.items()}
    assert (lens.width_px, lens.height_px) == (twin["width_px"], twin["height_px"])
    middle = ((lens.width_px - 1) / 2, (lens.height_px - 1) / 2)
    focal = twin["focal_px"]
    assert lens.matrix == (focal, 0, middle[0], 0, focal, middle[1], 0, 0, 1)


def calibrated(path: Path, *, is_physical: bool) -> None:
    guess = Polynomial(
        IdealLens((320, 240), 400.0), True, np.zeros(2), np.ones(2), np.ones((2, 10))
    )
    model = Physical((320, 240), guess, 410.0, k1=-0.05, k2=0.01) if is_physical else guess
    rig = RigIdentity(wide="a", search="b", mirror="c", width_px=640, height_px=480)
    errors = Errors(rms_px=1.0, p95_px=1.0, share_within=1.0)
    save_calibration(Calibration(model=model, rig=rig, errors=errors), path)


def test_the_physical_calibration_is_an_equidistant_lens(tmp_path: Path) -> None:
    calibrated(tmp_path / "c.toml", is_physical=True)
    rig = Rig(sensors={"wide": {}}, calibration="c.toml")
    lens = intrinsics_of(rig, tmp_path / "rig.toml")["wide"]
    assert (lens.model, lens.distortion) == ("equidistant", (-0.05, 0.01, 0, 0))
    # OpenCV's fisheye model is the one that ROS calls so; its pixels count from their middles.
    ray = np.array([[[0.3, -0.2, 1.0]]])
    k, d = np.array(lens.matrix).reshape(3, 3), np.array(lens.distortion)
    seen, _ = cv2.fisheye.projectPoints(ray, np.zeros(3), np.zeros(3), k, d)
    angle = np.arctan(np.hypot(0.3, 0.2))
    radius = 410 * angle * (1 - 0.05 * angle**2 + 0.01 * angle**4)
    ours = np.array([320, 240]) + radius * np.array([0.3, -0.2]) / np.hypot(0.3, 0.2)
    assert seen[0, 0] == pytest.approx(ours - 0.5)


def test_other_calibrations_say_nothing_of_a_lens(tmp_path: Path) -> None:
    calibrated(tmp_path / "c.toml", is_physical=False)
    rig = Rig(sensors={"wide": {}}, calibration="c.toml")
    assert intrinsics_of(rig, tmp_path / "rig.toml") == {}
    gone = Rig(sensors={"wide": {}}, calibration="gone.toml")
    assert intrinsics_of(gone, tmp_path / "rig.toml") == {}
