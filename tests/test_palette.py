from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgeperc.errors import DataError
from edgeperc.palette import colours, read_numbers, write_numbers

Image = pytest.importorskip("PIL.Image", reason="matplotlib brings Pillow")
SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))


@settings(deadline=None)
@given(numbers=arrays.arrays(np.uint8, SIZES))
def test_numbers_come_back_and_others_read_the_same(
    tmp_path_factory: pytest.TempPathFactory, numbers: np.ndarray
) -> None:
    path = tmp_path_factory.mktemp("palette") / "a.png"
    write_numbers(path, numbers)
    found, painted = read_numbers(path)
    assert painted
    np.testing.assert_array_equal(found, numbers)
    np.testing.assert_array_equal(np.array(Image.open(path)), numbers)


def test_files_of_others_with_few_colours_are_read(tmp_path: Path) -> None:
    """Pillow packs 2 and 4 bits a pixel and filters rows."""
    numbers = np.random.default_rng(0).integers(0, 3, (20, 33), dtype=np.uint8)
    picture = Image.fromarray(numbers, mode="P")
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    for bits in (2, 4, 8):
        picture.save(tmp_path / "a.png", bits=bits)
        found, painted = read_numbers(tmp_path / "a.png")
        assert painted
        np.testing.assert_array_equal(found, numbers)


def test_first_colours_are_those_of_pascal_voc() -> None:
    known = [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]]
    assert colours()[:5].tolist() == known
    assert colours()[[8, 255]].tolist() == [[64, 0, 0], [224, 224, 192]]
    assert len(np.unique(colours(), axis=0)) == 256


def test_grey_files_are_taken_as_they_are(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.array([[0, 7, 255]], np.uint8))
    numbers, painted = read_numbers(tmp_path / "a.png")
    assert (numbers.tolist(), painted) == ([[0, 7, 255]], False)


def test_what_is_no_label_map_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(DataError, match="No such file"):
        read_numbers(path)
    cv2.imwrite(str(path), np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(DataError, match="neither a palette nor one channel"):
        read_numbers(path)
    path.write_bytes(b"text")
    with pytest.raises(DataError, match="not a PNG"):
        read_numbers(path)
    write_numbers(path, np.zeros((4, 6), np.uint8))
    path.write_bytes(path.read_bytes().replace(b"PLTE", b"plte"))
    with pytest.raises(DataError, match="damaged|without its palette"):
        read_numbers(path)
