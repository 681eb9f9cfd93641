from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from edgeperc import masks
from edgeperc.errors import DataError
from edgeperc.masks import Rle

coco = pytest.importorskip("pycocotools.mask", reason="pip install 'edgeperc[dev]'")
Mask = NDArray[np.bool_]
sizes = st.tuples(st.integers(1, 24), st.integers(1, 24))
small = arrays.arrays(np.bool_, sizes)


def blob(seed: int, height: int, width: int) -> Mask:
    noise = np.random.default_rng(seed).random((height, width), np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 1 + seed % 7)
    return np.asarray(smooth > np.median(smooth))


blobs = st.builds(blob, st.integers(0, 1 << 30), st.integers(1, 300), st.integers(1, 300))


def theirs(mask: Mask) -> dict[str, object]:
    return coco.encode(np.asfortranarray(mask.view(np.uint8)))


@settings(deadline=None)
@given(small | blobs)
@example(np.ones((3, 4), np.bool_))
@example(np.zeros((3, 4), np.bool_))
@example(np.eye(20, dtype=np.bool_))
def test_the_bytes_are_those_of_pycocotools_and_come_back(mask: Mask) -> None:
    rle = masks.encode(mask)
    assert rle.counts == theirs(mask)["counts"]
    np.testing.assert_array_equal(masks.decode(rle), mask)


def test_long_runs_and_large_differences_are_packed_as_pycocotools_does() -> None:
    mask = np.zeros((4000, 3000), np.bool_)
    mask[1:, 7] = mask[:, 9:2000] = mask[3999, 2999] = True
    rle = masks.encode(mask)
    assert rle.counts == theirs(mask)["counts"]
    np.testing.assert_array_equal(masks.decode(rle), mask)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
def test_all_but_zero_is_on_whatever_the_type_and_layout(dtype: type) -> None:
    mask = blob(3, 40, 50)
    values = mask.astype(dtype) * 7
    before = values.copy()
    for each in (values, np.asfortranarray(values), np.repeat(values, 2, axis=1)[:, ::2]):
        assert masks.encode(each) == masks.encode(mask)
    np.testing.assert_array_equal(values, before)


@settings(deadline=None)
@given(small | blobs)
def test_area_and_box_are_those_of_the_pixels(mask: Mask) -> None:
    rle = masks.encode(mask)
    assert masks.area(rle) == mask.sum() == coco.area(theirs(mask))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not mask.any():
        assert masks.box(rle).tolist() == [0, 0, 0, 0]
        return
    expected = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    assert masks.box(rle).tolist() == expected
    assert masks.box(rle).dtype == np.float32


@settings(deadline=None)
@given(arrays.arrays(np.bool_, st.tuples(st.just(2), st.integers(1, 20), st.integers(1, 20))))
def test_overlap_is_that_of_the_pixels(pair: Mask) -> None:
    one, other = pair
    either = (one | other).sum()
    expected = (one & other).sum() / either if either else 0.0
    found = masks.iou(masks.encode(one), masks.encode(other))
    assert found == pytest.approx(expected, abs=1e-12)
    if either:
        assert found == pytest.approx(coco.iou([theirs(one)], [theirs(other)], [0])[0, 0])


def test_runs_of_no_length_are_read_as_pycocotools_reads_them() -> None:
    counts = [0, 0, 2, 0, 1, 3, 0, 0, 6, 0]
    rle = masks.from_coco({"size": [4, 3], "counts": counts})
    known = coco.frPyObjects({"size": [4, 3], "counts": counts}, 4, 3)
    assert rle.counts == known["counts"]
    mask = coco.decode(known).astype(np.bool_)
    np.testing.assert_array_equal(masks.decode(rle), mask)
    assert masks.iou(rle, masks.encode(mask)) == 1
    np.testing.assert_array_equal(masks.box(rle), masks.box(masks.encode(mask)))


def test_masks_of_different_pictures_have_no_overlap() -> None:
    with pytest.raises(ValueError, match="different sizes"):
        masks.iou(masks.encode(np.ones((2, 3))), masks.encode(np.ones((3, 2))))


def test_a_mask_without_pixels_is_one_too() -> None:
    for shape in ((0, 5), (5, 0), (0, 0)):
        rle = masks.encode(np.zeros(shape, np.bool_))
        assert masks.decode(rle).shape == shape
        assert masks.area(rle) == 0
        assert masks.box(rle).tolist() == [0, 0, 0, 0]
        assert masks.polygons(rle) == ()


def test_pictures_are_not_masks() -> None:
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        masks.encode(np.zeros((4, 4, 3)))


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        (b"", "empty"),
        (b"\x00", "character"),
        (b"5\xff", "character"),
        (b"P", "inside a number"),
        (b"04", "do not fill"),
        (b"9", "do not fill"),
        (b"o" * 40 + b"0", "bits"),
        (b"0NO0", "do not fill"),
    ],
)
def test_damaged_run_lengths_are_refused_with_the_reason(counts: bytes, reason: str) -> None:
    for use in (masks.decode, masks.area, masks.box, masks.polygons, masks.png):
        with pytest.raises(DataError, match=reason):
            use(Rle(counts, 3, 4))


@pytest.mark.parametrize("size", [(-1, 5), (1 << 20, 1 << 20), (-4, -4)])
def test_a_size_that_no_mask_has_allocates_nothing(size: tuple[int, int]) -> None:
    with pytest.raises(DataError, match="size"):
        masks.decode(Rle(b"0", *size))


@settings(deadline=None)
@given(st.binary(max_size=60), st.integers(0, 40), st.integers(0, 40))
def test_whatever_is_in_the_string_it_is_a_mask_or_an_error(
    counts: bytes, height: int, width: int
) -> None:
    try:
        mask = masks.decode(Rle(counts, height, width))
    except DataError:
        return
    assert mask.shape == (height, width)
    assert mask.sum() == masks.area(Rle(counts, height, width))


@settings(deadline=None)
@given(blobs, st.integers(0, 1 << 20), st.integers(0, 255))
def test_one_wrong_byte_is_a_mask_or_an_error(mask: Mask, place: int, byte: int) -> None:
    rle = masks.encode(mask)
    damaged = bytearray(rle.counts)
    damaged[place % len(damaged)] = byte
    try:
        found = masks.decode(Rle(bytes(damaged), *mask.shape))
    except DataError:
        return
    assert found.shape == mask.shape


@settings(deadline=None)
@given(small | blobs)
@example(np.eye(5, dtype=np.bool_))
@example(np.pad(np.zeros((1, 1), np.bool_), 1, constant_values=True))
def test_polygons_enclose_exactly_the_pixels(mask: Mask) -> None:
    parts = masks.polygons(masks.encode(mask))
    lines = [line for part in parts for line in (part.outline, *part.holes)]
    count = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)[0] - 1
    assert len(parts) == count
    assert sum(_shoelace(line) for line in lines) == pytest.approx(mask.sum())
    np.testing.assert_array_equal(_filled(lines, mask.shape), mask)


def _shoelace(line: NDArray[np.int32]) -> float:
    """Signed area; outlines of parts are positive, of holes negative."""
    x, y = line.astype(np.int64).T
    return float((np.roll(x, 1) * y - np.roll(y, 1) * x).sum()) / -2


def _filled(lines: list[NDArray[np.int32]], shape: tuple[int, int]) -> Mask:
    """Pixels whose centre has an odd number of upright edges to its left."""
    odd = np.zeros((shape[0], shape[1] + 1), np.int64)
    for line in lines:
        for (x0, y0), (x1, y1) in zip(line, np.roll(line, -1, axis=0), strict=True):
            assert x0 == x1 or y0 == y1
            odd[min(y0, y1) : max(y0, y1), x0] += x0 == x1
    return np.asarray(np.cumsum(odd, axis=1)[:, :-1] % 2 == 1)


def test_a_tolerance_saves_corners_and_keeps_the_shape() -> None:
    mask = np.zeros((200, 200), np.uint8)
    cv2.circle(mask, (100, 100), 80, 1, -1)
    rle = masks.encode(mask)
    exact, rough = masks.polygons(rle)[0], masks.polygons(rle, tolerance_px=1.5)[0]
    assert len(rough.outline) < len(exact.outline) / 4
    drawn = np.zeros((200, 200), np.uint8)
    cv2.fillPoly(drawn, [rough.outline], 1)
    assert masks.iou(masks.encode(drawn), rle) > 0.95


def test_the_picture_of_a_mask_is_black_and_white() -> None:
    mask = blob(5, 30, 40)
    image = cv2.imdecode(
        np.frombuffer(masks.png(masks.encode(mask)), np.uint8), cv2.IMREAD_UNCHANGED
    )
    np.testing.assert_array_equal(image, mask.astype(np.uint8) * 255)


def test_json_of_coco_goes_there_and_back() -> None:
    rle = masks.encode(blob(9, 21, 33))
    assert masks.from_coco(masks.to_coco(rle)) == rle
    assert masks.to_coco(rle)["size"] == [21, 33]


@pytest.mark.parametrize(
    "damaged",
    [
        None,
        [[1, 2, 3, 4, 5, 6]],
        {"size": [3, 4]},
        {"size": [3.0, 4], "counts": "04"},
        {"size": [3, 4, 5], "counts": "04"},
        {"size": [3, 4], "counts": [12, -1, 1]},
        {"size": [3, 4], "counts": [1 << 40]},
        {"size": [3, 4], "counts": [True]},
        {"size": [3, 4], "counts": [5]},
        {"size": [3, 4], "counts": "ü"},
        {"size": [3, 4], "counts": []},
    ],
)
def test_json_that_is_no_mask_is_refused(damaged: object) -> None:
    with pytest.raises(DataError):
        masks.from_coco(damaged)


def test_a_full_hd_mask_is_packed_within_a_frame() -> None:
    mask = blob(6, 1080, 1920)
    masks.encode(mask)
    best_s = min(_timed(mask) for _ in range(5))
    assert best_s < 0.02  # 1.5 ms on a quiet core; this catches a loop over pixels, no more


def _timed(mask: Mask) -> float:
    start = time.perf_counter()
    masks.encode(mask)
    return time.perf_counter() - start
