from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays

from edgeperc.result import decode_rle, encode_rle

label_maps = arrays.arrays(np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=40))


@given(label_maps)
def test_rle_round_trip(labels: np.ndarray) -> None:
    height_px, width_px = labels.shape
    decoded = decode_rle(encode_rle(labels), height_px=height_px, width_px=width_px)
    assert (decoded == labels).all()


def test_rle_of_one_value_is_one_run() -> None:
    assert len(encode_rle(np.full((480, 640), 7, np.uint8))) == 5


def test_rle_of_an_empty_map() -> None:
    assert decode_rle(encode_rle(np.zeros((0, 5), np.uint8)), height_px=0, width_px=5).size == 0


@pytest.mark.parametrize("code", [b"1234", b"\x01\x05\x00\x00\x00"])
def test_rle_that_does_not_fit_is_refused(code: bytes) -> None:
    with pytest.raises(ValueError, match="run-length"):
        decode_rle(code, height_px=2, width_px=2)
