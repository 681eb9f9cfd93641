"""CameraInfo by ROS's conventions, https://docs.ros.org/en/rolling/p/sensor_msgs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgeperc.calibration.intrinsics import Intrinsics
from edgeperc.ros.camera_info import CAMERA_INFO, Cameras
from edgeperc.ros.codec import deserialize, serialize
from edgeperc.ros.messages import to_ros
from edgeperc.ros.topics import topics_of

from .test_recorder import frame

LENS = Intrinsics(
    model="rational_polynomial",
    width_px=640,
    height_px=480,
    matrix=(500.0, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0),
    distortion=(0.1, 0.2),
)


def info(lens: Intrinsics | None, picture_px: tuple[int, int]) -> Any:
    """A CameraInfo after a way over the wire."""
    header = to_ros(frame(0), 0)[0][1].header
    cameras = Cameras({"wide": lens} if lens else {})
    message = cameras.message(header, "wide", picture_px)
    return deserialize(serialize(message, CAMERA_INFO), CAMERA_INFO)


def roi(message: Any) -> tuple[int, int, int, int, bool]:
    r = message.roi
    return r.x_offset, r.y_offset, r.width, r.height, bool(r.do_rectify)


def test_a_camera_that_is_not_calibrated_says_so() -> None:
    message = info(None, (7, 5))
    assert (message.width, message.height, message.distortion_model) == (7, 5, "")
    assert message.d.size == 0
    for matrix in (message.k, message.r, message.p):
        assert not np.any(matrix)


def test_a_calibrated_camera_says_how_it_sees() -> None:
    message = info(LENS, (640, 480))
    assert (message.width, message.height) == (640, 480)
    assert message.distortion_model == "rational_polynomial"
    assert message.d.tolist() == [0.1, 0.2, 0, 0, 0, 0, 0, 0]
    assert tuple(message.k) == LENS.matrix
    assert message.r.tolist() == np.eye(3).ravel().tolist()
    assert message.p.reshape(3, 4)[:, :3].ravel().tolist() == list(LENS.matrix)
    assert message.p.reshape(3, 4)[:, 3].tolist() == [0, 0, 0]
    assert (message.binning_x, message.binning_y) == (0, 0)
    assert roi(message) == (0, 0, 0, 0, False)


def test_binning_leaves_k_that_of_the_whole_sensor() -> None:
    message = info(replace(LENS, binning=2), (320, 240))
    assert (message.width, message.height, message.k[0]) == (640, 480, 500)
    assert (message.binning_x, message.binning_y) == (2, 2)
    assert roi(message) == (0, 0, 0, 0, False)


def test_a_window_of_the_sensor_is_a_region_of_interest() -> None:
    message = info(replace(LENS, window_px=(16, 8)), (320, 200))
    assert (message.width, message.height, message.k[2]) == (640, 480, 320)
    assert roi(message) == (16, 8, 320, 200, True)
    binned = info(replace(LENS, window_px=(16, 8), binning=2), (300, 200))
    assert roi(binned) == (16, 8, 600, 400, True)


@pytest.mark.parametrize("window_px", [None, (321, 0), (0, 281)])
def test_pictures_of_another_size_are_not_calibrated(
    window_px: tuple[int, int] | None, caplog: pytest.LogCaptureFixture
) -> None:
    cameras = Cameras({"wide": replace(LENS, window_px=window_px)})
    header = to_ros(frame(0), 0)[0][1].header
    for _ in range(3):
        message = cameras.message(header, "wide", (320, 200))
    assert (message.width, message.height, message.k[0]) == (320, 200, 0)
    assert len(caplog.records) == 1
    assert "640 x 480 px, it sends 320 x 200" in caplog.text


def test_each_picture_has_one_with_its_header() -> None:
    (topic, picture), (beside, message) = to_ros(frame(3), 7)
    assert (topic.name, beside.name) == ("wide/image_raw", "wide/camera_info")
    assert message.header == picture.header
    assert beside in topics_of("wide")
