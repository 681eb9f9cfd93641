"""Suppression, tiles, and the merging of what a perfect detector sees in each tile."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeperc.detection.decode import Candidates
from edgeperc.detection.jitter import box_iou
from edgeperc.detection.merge import MOST, merge_tiles, suppress
from edgeperc.detection.tiles import tile_views

Boxes = NDArray[np.float32]


def candidates(
    boxes: object, scores: object = None, class_ids: object = None, variance: Boxes | None = None
) -> Candidates:
    held = np.array(boxes, np.float32).reshape(-1, 4)
    return Candidates(
        boxes=held,
        scores=np.full(len(held), 0.5, np.float32)
        if scores is None
        else np.array(scores, np.float32),
        class_ids=np.zeros(len(held), np.int64) if class_ids is None else np.array(class_ids),
        variance=variance,
    )


def seen_through(
    tiles: NDArray[np.int64], objects: Boxes, class_ids: NDArray[np.int64] | None = None
) -> tuple[Candidates, NDArray[np.int64]]:
    """What a perfect detector says of each tile: the visible part of each object, if any."""
    boxes, scores, ids, tile_of = [], [], [], []
    for number, (x0, y0, x1, y1) in enumerate(tiles):
        for k, box in enumerate(objects):
            part = box.clip([x0, y0, x0, y0], [x1, y1, x1, y1])
            visible = (part[2:] - part[:2]).prod() / (box[2:] - box[:2]).prod()
            if visible > 0:
                boxes.append(part)
                scores.append(0.5 + 0.4 * visible)
                ids.append(0 if class_ids is None else class_ids[k])
                tile_of.append(number)
    return candidates(boxes, scores, ids), np.array(tile_of, np.int64)


def merged(tiles: NDArray[np.int64], objects: Boxes, iou: float = 0.45) -> Candidates:
    found, tile_of = seen_through(tiles, objects)
    return merge_tiles(found, tiles.astype(np.float32), tile_of, iou=iou)


def in_order(boxes: Boxes) -> Boxes:
    return boxes[np.lexsort(boxes.T[::-1])]


def test_the_best_of_overlapping_boxes_of_a_class_stays() -> None:
    boxes = [[0, 0, 10, 10], [1, 0, 11, 10], [1, 0, 11, 10], [30, 0, 40, 10]]
    kept = suppress(candidates(boxes, [0.5, 0.9, 0.6, 0.7], [0, 0, 1, 0]), iou=0.45)
    assert kept.scores.tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert kept.class_ids.tolist() == [0, 0, 1]


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.45, 0.8]))
@settings(max_examples=50, deadline=None)
def test_what_is_left_does_not_overlap_and_covers_what_went(seed: int, iou: float) -> None:
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(0, 40, (60, 2)), rng.uniform(1, 20, (60, 2))
    found = candidates(np.hstack([corner, corner + size]), rng.random(60), rng.integers(0, 2, 60))
    kept = suppress(found, iou=iou)
    assert (np.diff(kept.scores) <= 0).all()
    same = kept.class_ids[:, None] == kept.class_ids
    among = np.where(same, box_iou(kept.boxes, kept.boxes), 0)
    assert (among[~np.eye(len(kept), dtype=bool)] <= iou + 1e-5).all()
    beside = box_iou(found.boxes, kept.boxes) >= min(iou, 1) - 1e-5
    better = found.scores[:, None] <= kept.scores
    assert (beside & better & (found.class_ids[:, None] == kept.class_ids)).any(axis=1).all()
    again = suppress(kept, iou=iou)
    np.testing.assert_array_equal(again.boxes, kept.boxes)


def test_a_flood_of_boxes_is_cut_to_the_best() -> None:
    rng = np.random.default_rng(0)
    corner = np.stack(np.meshgrid(np.arange(100) * 10, np.arange(100) * 10), -1).reshape(-1, 2)
    found = candidates(np.hstack([corner, corner + 5]), rng.random(10_000))
    kept = suppress(found, iou=0.45)
    assert len(kept) == MOST
    assert kept.scores.min() >= np.sort(found.scores)[-MOST]
    tiles = np.array([[0, 0, 1000, 1000]])
    joined = merge_tiles(found, tiles.astype(np.float32), np.zeros(10_000, np.int64), iou=0.45)
    assert len(joined) == MOST


def test_no_boxes_are_no_boxes() -> None:
    assert len(suppress(candidates([]), iou=0.45)) == 0
    tiles = np.array([[0, 0, 10, 10]], np.float32)
    assert len(merge_tiles(candidates([]), tiles, np.zeros(0, np.int64), iou=0.45)) == 0


@given(
    st.integers(1, 900),
    st.integers(1, 700),
    st.lists(st.integers(16, 1000), max_size=3),
    st.sampled_from([0.0, 0.2, 0.5]),
)
@settings(max_examples=60, deadline=None)
def test_tiles_of_each_size_cover_the_picture_and_overlap(
    width: int, height: int, sides: list[int], overlap: float
) -> None:
    tiles = tile_views(width, height, sides, overlap=overlap)
    assert (tiles[:, :2] >= 0).all()
    assert (tiles[:, 2:] <= [width, height]).all()
    for side in sides or [max(width, height)]:
        shape = [min(side, width), min(side, height)]
        ours = tiles[((tiles[:, 2:] - tiles[:, :2]) == shape).all(axis=1)]
        for axis, length in enumerate((width, height)):
            starts = np.unique(ours[:, axis])
            assert starts[0] == 0
            assert starts[-1] + shape[axis] == length
            assert (np.diff(starts) <= max(side * (1 - overlap), 1) + 1).all()


def test_a_box_seen_in_four_tiles_is_one_box() -> None:
    tiles = tile_views(180, 180, [100], overlap=0.2)
    assert len(tiles) == 4
    small = np.array([[82, 82, 97, 97]], np.float32)  # whole in each
    large = np.array([[60, 55, 130, 125]], np.float32)  # cut in each
    for box in (small, large):
        found, _ = seen_through(tiles, box)
        assert len(found) == 4
        np.testing.assert_allclose(merged(tiles, box).boxes, box)


def test_a_box_through_a_whole_row_of_tiles_is_one_box() -> None:
    tiles = tile_views(500, 100, [100], overlap=0.2)
    box = np.array([[20, 30, 480, 70]], np.float32)
    np.testing.assert_allclose(merged(tiles, box).boxes, box)


def test_a_whole_box_stands_for_its_parts() -> None:
    tiles = tile_views(180, 100, [100, 180], overlap=0.2)  # and the whole picture
    box = np.array([[60, 30, 130, 70]], np.float32)
    found, tile_of = seen_through(tiles, box)
    # Even if a part looks better, and seems to reach further up and down than it does.
    found.scores[tile_of < 2] = 0.95
    found.boxes[tile_of < 2] += np.array([0, -5, 0, 5], np.float32)
    answer = merge_tiles(found, tiles.astype(np.float32), tile_of, iou=0.45)
    np.testing.assert_allclose(answer.boxes, box)
    assert answer.scores.tolist() == pytest.approx([0.95])


def test_neighbours_and_classes_stay_apart() -> None:
    tiles = tile_views(180, 100, [100], overlap=0.2)
    side_by_side = np.array([[70, 20, 110, 50], [70, 50, 110, 80]], np.float32)
    np.testing.assert_allclose(in_order(merged(tiles, side_by_side).boxes), side_by_side)
    same_place = np.array([[70, 20, 110, 50], [70, 20, 110, 50]], np.float32)
    found, tile_of = seen_through(tiles, same_place, np.array([0, 1]))
    answer = merge_tiles(found, tiles.astype(np.float32), tile_of, iou=0.45)
    assert sorted(answer.class_ids.tolist()) == [0, 1]
    np.testing.assert_allclose(answer.boxes, same_place)


def test_at_the_pictures_own_border_a_box_is_whole() -> None:
    tiles = tile_views(180, 100, [100], overlap=0.2)
    found = candidates([[0, 20, 40, 60], [0, 25, 35, 50]], [0.9, 0.6])
    answer = merge_tiles(found, tiles.astype(np.float32), np.array([0, 0]), iou=0.9)
    assert len(answer) == 2  # neither is a part of the other: no tile cut them


def test_the_variance_of_a_box_stays_with_it() -> None:
    tiles = tile_views(180, 100, [100], overlap=0.2)
    variance = np.array([[1, 1, 1, 1], [2, 2, 2, 2]], np.float32)
    found = candidates([[10, 10, 30, 30], [120, 10, 140, 30]], [0.5, 0.9], variance=variance)
    answer = merge_tiles(found, tiles.astype(np.float32), np.array([0, 1]), iou=0.45)
    assert answer.variance is not None
    assert answer.variance[:, 0].tolist() == [2, 1]


def apart(seed: int, count: int = 12) -> Boxes:
    """Boxes in a 600 × 400 picture, 3 px or more apart, some of them longer than the overlap."""
    rng = np.random.default_rng(seed)
    chosen: list[NDArray[np.float64]] = []
    for _ in range(400):
        size = rng.uniform(6, 110, 2)
        corner = rng.uniform(20, [580, 380] - size - 20)
        box = np.concatenate([corner, corner + size])
        if all(
            (box[:2] > other[2:] + 3).any() or (box[2:] + 3 < other[:2]).any() for other in chosen
        ):
            chosen.append(box)
        if len(chosen) == count:
            break
    return np.array(chosen, np.float32)


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("sides", [[160], [160, 300]])
def test_a_perfect_detector_finds_each_object_once(seed: int, sides: list[int]) -> None:
    objects = apart(seed)
    tiles = tile_views(600, 400, sides, overlap=0.25)
    answer = merged(tiles, objects)
    np.testing.assert_allclose(in_order(answer.boxes), in_order(objects), rtol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_a_shift_of_picture_and_tiles_shifts_the_answer(seed: int) -> None:
    objects = apart(seed)
    tiles = tile_views(600, 400, [160], overlap=0.25)
    shift = np.array([37, -12, 37, -12])
    moved = merged(tiles + shift, objects + shift.astype(np.float32))
    np.testing.assert_allclose(
        in_order(moved.boxes), in_order(merged(tiles, objects).boxes) + shift, atol=1e-3
    )
