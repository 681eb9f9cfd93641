from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeperc.drivers.formats.pictures import read_picture
from edgeperc.errors import DataError
from edgeperc.offline.shelf import Shelf, read_grey, stems


def test_it_reads_only_what_is_asked_for() -> None:
    read: list[str] = []

    def upper(name: str) -> str:
        read.append(name)
        return name.upper()

    shelf = Shelf("abcdef", upper)
    assert (len(shelf), shelf[1], shelf[-1], read) == (6, "B", "F", ["b", "f"])
    assert list(shelf[2:4]) == ["C", "D"]


def test_it_is_thinned_evenly_and_never_beyond_what_is_there() -> None:
    shelf = Shelf("abcdefghi", str)
    assert list(shelf.thinned(3)) == ["a", "e", "i"]
    assert list(shelf.thinned(1)) == ["a"]
    assert list(shelf.thinned(None)) == list(shelf.thinned(100)) == list("abcdefghi")


def test_pictures_come_in_rgb(tmp_path: Path) -> None:
    red = np.zeros((4, 6, 3), np.uint8)
    red[..., 2] = 255  # OpenCV writes BGR
    cv2.imwrite(str(tmp_path / "red.png"), red)
    assert read_picture(tmp_path / "red.png")[2, 3].tolist() == [255, 0, 0]


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(50)])
def test_damaged_pictures_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "0001.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"0001\.png: .*damaged"):
        read_grey(path)
    with pytest.raises(DataError, match=r"0001\.png: .*(empty|cut off|not a picture)"):
        read_picture(path)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone.jpg: No such file"):
        read_picture(tmp_path / "gone.jpg")
    with pytest.raises(DataError, match="gone: no such folder"):
        stems(tmp_path / "gone", ".jpg")
    with pytest.raises(DataError, match="has no .jpg files"):
        stems(tmp_path, ".jpg")


def test_colour_is_no_label_map(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(DataError, match="one channel"):
        read_grey(tmp_path / "a.png")
