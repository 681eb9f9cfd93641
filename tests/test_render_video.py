"""A video file has the pictures' number, rate and size, and plays however it ends."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeperc.errors import ConfigError
from edgeperc.render.video import RATE_HZ, VideoFile

from .test_recording_control import small_disk


def pictures(path: Path) -> list[NDArray[np.uint8]]:
    video = cv2.VideoCapture(str(path))
    found = []
    while (step := video.read())[0]:
        found.append(np.asarray(step[1], np.uint8)[:, :, ::-1])
    return found


def rate_hz(path: Path) -> float:
    return cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FPS)


def grey(value: int, height_px: int = 48, width_px: int = 64) -> NDArray[np.uint8]:
    return np.full((height_px, width_px, 3), value, np.uint8)


@pytest.mark.parametrize("ending", [".mp4", ".avi", ".webm"])
def test_pictures_come_back_in_order_and_colour(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{ending}"
    red = grey(0)
    red[:, :, 0] = 220
    with VideoFile(path, rate_hz=25) as video:
        for picture in (red, *(grey(40 * k) for k in range(5))):
            video.write(picture)
    first, *rest = pictures(path)
    assert first[:, :, 0].mean() > 180
    assert first[:, :, 2].mean() < 60
    assert np.allclose([picture.mean() for picture in rest], 40 * np.arange(5), atol=12)
    assert rate_hz(path) == pytest.approx(25, rel=0.01)
    assert video.count == 6


@pytest.mark.parametrize(
    ("steps_ns", "expected_hz"),
    [([40_000_000] * 9, 25), ([0] * 9, RATE_HZ), ([6_314_167] * 9, 158.374)],
)
def test_the_rate_is_that_of_the_stamps(
    steps_ns: list[int], expected_hz: float, tmp_path: Path
) -> None:
    with VideoFile(tmp_path / "x.mp4") as video:
        for time_ns in np.cumsum(steps_ns).tolist():
            video.write(grey(9), time_ns)
    assert rate_hz(tmp_path / "x.mp4") == pytest.approx(expected_hz, rel=0.01)
    assert len(pictures(tmp_path / "x.mp4")) == 9


def test_a_single_picture_is_a_video_and_none_is_no_file(tmp_path: Path) -> None:
    with VideoFile(tmp_path / "one.mp4") as video:
        video.write(grey(100))
    video.close()
    assert len(pictures(tmp_path / "one.mp4")) == 1
    with VideoFile(tmp_path / "none.mp4"):
        pass
    assert not (tmp_path / "none.mp4").exists()


def test_odd_sizes_and_a_size_that_changes_keep_the_first_ones(tmp_path: Path) -> None:
    with VideoFile(tmp_path / "x.mp4", rate_hz=30) as video:
        for height_px, width_px in ((47, 63), (47, 63), (100, 90), (48, 64)):
            video.write(grey(120, height_px, width_px))
    found = pictures(tmp_path / "x.mp4")
    assert [picture.shape for picture in found] == [(48, 64, 3)] * 4
    assert all(np.allclose(picture, 120, atol=6) for picture in found)


def test_what_waits_is_a_copy(tmp_path: Path) -> None:
    picture = grey(200)
    with VideoFile(tmp_path / "x.mp4") as video:
        video.write(picture, 0)
        picture[:] = 0
    assert pictures(tmp_path / "x.mp4")[0].mean() > 180


def test_whoever_breaks_off_leaves_a_file_that_plays(tmp_path: Path) -> None:
    video = VideoFile(tmp_path / "x.mp4")

    def broken_off() -> None:
        with video:
            for time_ns in (0, 1, 2):
                video.write(grey(7), time_ns)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert len(pictures(tmp_path / "x.mp4")) == 3
    video.write(grey(7))  # whoever comes late is not heard


@pytest.mark.parametrize("name", ["x.mov", "x", "gone/x.mp4", "folder.mp4"])
def test_a_file_that_cannot_be_is_said_at_once(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(ConfigError, match=r"cannot render to|no such folder|cannot be written"):
        VideoFile(tmp_path / name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_full_disk_is_said(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 200) as disk:
        video = VideoFile(disk / "a.mp4", rate_hz=25)
        noise = np.random.default_rng(0)
        for _ in range(40):
            video.write(noise.integers(0, 255, (480, 640, 3), np.uint8))
        with pytest.raises(ConfigError, match=r"a\.mp4: the disk is full"):
            video.close()
        video = VideoFile(disk / "b.avi", rate_hz=25)
        with pytest.raises(ConfigError, match=r"b\.avi: cannot be written: No space left"):
            video.write(grey(1))
