"""Pictures are read as they are seen, and a folder of them is a recording."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeperc.drivers import formats
from edgeperc.drivers.formats import sniff
from edgeperc.drivers.formats.pictures import read_picture
from edgeperc.drivers.replay import Replay
from edgeperc.errors import DataError
from edgeperc.packet import Frame

RED = np.zeros((32, 48, 3), np.uint8)
RED[:, :, 2] = 200  # OpenCV's order


def test_colours_are_rgb_whatever_the_file_has(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), RED)
    cv2.imwrite(str(tmp_path / "b.png"), np.dstack([RED, RED[:, :, :1]]))
    cv2.imwrite(str(tmp_path / "c.png"), RED[:, :, 2])
    cv2.imwrite(str(tmp_path / "d.png"), RED.astype(np.uint16) * 257)
    for name, expected in (("a", (200, 0, 0)), ("b", (200, 0, 0)), ("c", (200,) * 3)):
        picture = read_picture(tmp_path / f"{name}.png")
        assert (picture.shape, picture.dtype) == ((32, 48, 3), np.uint8)
        assert (picture == expected).all()
    assert (read_picture(tmp_path / "d.png") == (200, 0, 0)).all()


@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_a_picture_that_is_cut_off_is_said(ending: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    content = cv2.imencode(ending, noise)[1].tobytes()
    path = tmp_path / f"x{ending}"
    path.write_bytes(content + b"trailing")
    assert read_picture(path).shape == (64, 64, 3)
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(DataError, match="cut off"):
        read_picture(path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"", "empty"), (b"hello", "not a picture"), (b"\xff\xd8\xff\xff\xd9", "not a picture")],
)
def test_what_is_no_picture_is_said(content: bytes, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(DataError, match=complaint) as caught:
        read_picture(tmp_path / "x.jpg")
    assert "x.jpg" in str(caught.value)
    with pytest.raises(DataError, match="No such file"):
        read_picture(tmp_path / "gone.jpg")
    with pytest.raises(DataError, match="directory"):
        read_picture(tmp_path)


def test_a_folder_plays_in_the_order_of_its_names(tmp_path: Path) -> None:
    for number in (10, 2, 0):
        cv2.imwrite(str(tmp_path / f"{number:05d}.png"), np.full((8, 8), number, np.uint8))
    (tmp_path / "notes.txt").write_text("not a picture")
    assert sniff(tmp_path) is formats.FOLDER
    packets = list(Replay(str(tmp_path)).packets())
    assert all(isinstance(packet, Frame) for packet in packets)
    assert [int(packet.image[0, 0, 0]) for packet in packets if isinstance(packet, Frame)] == [
        0,
        2,
        10,
    ]
    assert np.diff([packet.stamp.end_ns for packet in packets]).tolist() == pytest.approx(
        [1e9 / 24] * 2, abs=2
    )


def test_what_was_good_comes_before_the_damage(tmp_path: Path) -> None:
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), RED)
    (tmp_path / "2.png").write_bytes((tmp_path / "1.png").read_bytes()[:40])
    came = []

    def play() -> None:
        for packet in Replay(str(tmp_path)).packets():
            came.append(packet)

    with pytest.raises(DataError, match=r"2\.png: the picture is cut off"):
        play()
    assert len(came) == 2


def test_a_bag_is_still_a_bag(tmp_path: Path) -> None:
    assert sniff(tmp_path) is formats.ROS2
    (tmp_path / "metadata.yaml").write_text("")
    cv2.imwrite(str(tmp_path / "0.png"), RED)
    assert sniff(tmp_path) is formats.ROS2
