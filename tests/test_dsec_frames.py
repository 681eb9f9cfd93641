from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeperc.errors import DataError
from edgeperc.offline import dsec_frames
from edgeperc.offline.datasets import open_dataset
from edgeperc.offline.samples import Sample

from .test_dsec import NAME, OFFSET_US, write_events, write_labels

TIMES_US = [10_000 * k for k in range(9)]
CALIBRATION = """\
intrinsics:
  camRect0:
    camera_matrix: [560.0, 560.0, 330.0, 240.0]
    camera_model: pinhole
  camRect1:
    camera_matrix: [1150.0, 1150.0, 720.0, 530.0]
extrinsics:
  T_10:
  - [1.0, 0.0, 0.0, -0.05]
  - [0.0, {cos}, -{sin}, 0.01]
  - [0.0, {sin}, {cos}, 0.0]
  - [0.0, 0.0, 0.0, 1.0]
  R_rect0:
  - [0.0, 1.0, 0.0]
  - [-1.0, 0.0, 0.0]
  - [0.0, 0.0, 1.0]
  R_rect1:
  - [0.0, 1.0, 0.0]
  - [-1.0, 0.0, 0.0]
  - [0.0, 0.0, 1.0]
"""


def write_sequence(root: Path, *, ess: bool = False) -> Path:
    """A tiny sequence with events and labels; returns its folder."""
    folder = root / NAME
    write_events(folder / "events" / "left", count=5_000, duration_us=100_000)
    write_labels(folder / "semantic" if ess else folder, NAME, TIMES_US)
    if ess:
        old = folder / "semantic" / f"{NAME}_semantic_timestamps.txt"
        old.rename(folder / "semantic" / "timestamps.txt")
        target = folder / "semantic" / "left" / "11classes"
        target.mkdir(parents=True)
        (folder / "semantic" / "11classes").rename(target / "data")
    return folder


def picture(size_px: tuple[int, int], seed: int) -> np.ndarray:
    """A smooth picture, RGB."""
    small = np.random.default_rng(seed).integers(0, 255, (8, 10, 3)).astype(np.uint8)
    return cv2.resize(small, size_px, interpolation=cv2.INTER_LINEAR)


def write_pictures(folder: Path, size_px: tuple[int, int]) -> None:
    folder.mkdir(parents=True)
    for k in range(len(TIMES_US)):
        rgb = picture(size_px, k)
        cv2.imwrite(str(folder / f"{k:06d}.png"), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))


def only(root: Path) -> Sample:
    first, _ = open_dataset(str(root))
    return first


@pytest.mark.parametrize("ess", [False, True])
def test_aligned_pictures_come_with_their_labels(tmp_path: Path, ess: bool) -> None:
    folder = write_sequence(tmp_path, ess=ess)
    assert only(tmp_path).frame is None
    write_pictures(folder / "images" / "left" / "ev_inf", (640, 480))
    frame = only(tmp_path).frame
    assert frame is not None
    assert np.array_equal(frame.image, picture((640, 480), 6))
    assert frame.stamp.end_ns == 1000 * (OFFSET_US + TIMES_US[6])


def test_rectified_pictures_are_turned_into_the_event_cameras_view(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path)
    write_pictures(folder / "images" / "left" / "rectified", (1440, 1080))
    with pytest.raises(DataError, match=r"no calibration/cam_to_cam\.yaml") as raised:
        only(tmp_path)
    assert "calibration.zip" in raised.value.hint
    (folder / "calibration").mkdir()
    angle = 0.01
    text = CALIBRATION.format(cos=np.cos(angle), sin=np.sin(angle))
    (folder / "calibration" / "cam_to_cam.yaml").write_text(text)
    frame = only(tmp_path).frame
    assert frame is not None
    assert frame.image.shape == (480, 640, 3)

    # By hand: what the event camera sees at a pixel, undone, turned by the angle about the axis
    # that both undistortions make of x, and seen by the other camera.
    source = picture((1440, 1080), 6).astype(float)
    for x, y in ((100, 50), (330, 240), (600, 400)):
        ray = np.array([(x - 330) / 560, (y - 240) / 560, 1.0])
        axis = np.array([0.0, -1.0, 0.0])  # R_rect1 applied to x
        turned = ray * np.cos(angle) + np.cross(axis, ray) * np.sin(angle)
        turned += axis * (axis @ ray) * (1 - np.cos(angle))
        column, row = 1150 * turned[:2] / turned[2] + [720, 530]
        expected = source[round(float(row)), round(float(column))]
        assert np.abs(frame.image[y, x] - expected).max() < 6


def test_pictures_of_another_time_than_their_labels_are_refused(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path)
    write_pictures(folder / "images" / "left" / "ev_inf", (640, 480))
    stamps = folder / "images" / "timestamps.txt"
    stamps.write_text("\n".join(str(OFFSET_US + t + 40) for t in TIMES_US))
    assert only(tmp_path).frame is not None
    dsec_frames._times.cache_clear()
    stamps.write_text("\n".join(str(OFFSET_US + t + 50_000) for t in TIMES_US))
    with pytest.raises(DataError, match=r"picture 6 is of \d+ µs, its label of \d+ µs"):
        only(tmp_path)
    dsec_frames._times.cache_clear()
    stamps.write_text(str(OFFSET_US))
    with pytest.raises(DataError, match="has 1 pictures"):
        only(tmp_path)


def test_broken_pictures_and_calibrations_name_themselves(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path)
    aligned = folder / "images" / "left" / "ev_inf"
    write_pictures(aligned, (320, 240))
    with pytest.raises(DataError, match=r"000006\.png: 320 × 240 px, not 640 × 480"):
        only(tmp_path)
    (aligned / "000006.png").unlink()
    with pytest.raises(DataError, match=r"000006\.png: No such file"):
        only(tmp_path)
    path = tmp_path / "cam_to_cam.yaml"
    for text in ("intrinsics: {}", "[1, 2", "a: b"):
        path.write_text(text)
        with pytest.raises(DataError, match=r"cam_to_cam\.yaml: no calibration"):
            dsec_frames.homography(path)
