"""What is drawn of the twin to learn from, how it is altered, and what each cell should say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgeperc.offline import sight_batches, sights
from edgeperc.offline.sight_batches import BACKGROUND, NOBODY_ASKS, assign, box_batch, region_batch
from edgeperc.offline.sights import SEARCH, SIDE_PX, WIDE, Sights, cached_sights, cut_boxes
from edgeperc.twin.plots import REGIONS

Boxes = NDArray[np.float32]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def drawn(folder: Path) -> Sights:
    return cached_sights([3], folder, looks=8, cuts=8)


def test_both_cameras_see_the_avenue(drawn: Sights) -> None:
    assert drawn.images.shape == (16, SIDE_PX, SIDE_PX)
    assert np.bincount(drawn.sensors).tolist() == [8, 8]
    assert drawn.first[0] == 0
    assert drawn.first[-1] == len(drawn.boxes) == len(drawn.class_ids) == len(drawn.visible)
    assert (drawn.regions[drawn.sensors == SEARCH] == 255).all()
    assert (drawn.regions[drawn.sensors == WIDE] < len(REGIONS)).all()
    assert (drawn.boxes >= 0).all()
    assert (drawn.boxes <= SIDE_PX).all()
    assert ((drawn.visible > 0.5) & (drawn.class_ids == 0)).any()
    assert ((drawn.visible > 0.5) & (drawn.class_ids == 1)).any()


def test_regions_show_movers_where_their_boxes_are(drawn: Sights) -> None:
    vehicle = REGIONS.index("vehicle")
    checked = 0
    for index in np.flatnonzero(drawn.sensors == WIDE):
        boxes, class_ids, visible = drawn.things(int(index))
        for box in boxes[(class_ids == 1) & (visible > 0.9)]:
            x0, y0, x1, y1 = box.round().astype(int)
            assert (drawn.regions[index][y0:y1, x0:x1] == vehicle).mean() > 0.5
            checked += 1
    assert checked


def test_what_is_drawn_is_kept(
    drawn: Sights, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_args: object, **_options: object) -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr(sights, "draw_sights", never)
    again = cached_sights([3, 3], folder, looks=8, cuts=8)
    assert len(again) == 2 * len(drawn)
    np.testing.assert_array_equal(again.things(17)[0], drawn.things(1)[0])
    np.testing.assert_array_equal(again.images[16:], drawn.images)
    with pytest.raises(AssertionError, match="drawn again"):
        cached_sights([4], folder, looks=8, cuts=8)


def test_a_batch_follows_from_its_key(drawn: Sights) -> None:
    first, again, other = (box_batch(drawn, (0, step), 6) for step in (5, 5, 6))
    torch.testing.assert_close(first.pictures, again.pictures, rtol=0, atol=0)
    torch.testing.assert_close(first.boxes, again.boxes, rtol=0, atol=0)
    assert not torch.equal(first.pictures, other.pictures)
    assert first.pictures.shape == (6, 1, SIDE_PX, SIDE_PX)
    assert (first.pictures.min() >= 0, first.pictures.max() <= 1) == (True, True)
    assert set(np.unique(first.class_ids)) <= {BACKGROUND, NOBODY_ASKS, 0, 1}
    asked = first.class_ids >= 0
    assert (first.boxes[asked][:, 2:] > first.boxes[asked][:, :2]).all()


def one_thing(image: NDArray[np.uint8], regions: NDArray[np.uint8], box: Boxes) -> Sights:
    return Sights(
        images=np.stack([image, image]),
        regions=np.stack([regions, regions]),
        sensors=np.array([SEARCH, WIDE]),
        first=np.array([0, 1, 2]),
        boxes=np.stack([box, box]),
        class_ids=np.array([1, 1]),
        visible=np.ones(2, np.float32),
    )


@pytest.mark.parametrize("step", range(12))
def test_boxes_and_regions_move_with_the_picture(step: int) -> None:
    """A bright block stays inside its box, however it is mirrored, enlarged and shifted."""
    image = np.full((SIDE_PX, SIDE_PX), 60, np.uint8)
    regions = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    image[80:120, 90:150], regions[80:120, 90:150] = 255, 3
    box = np.array([90, 80, 150, 120], np.float32)
    rng = np.random.default_rng(step)
    moved, labels, boxes, visible = sight_batches._moved(
        rng, image, regions, box[None], np.ones(1, np.float32)
    )
    rows, columns = np.nonzero(moved > 157)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(boxes[0], found, atol=1.1)
    assert (labels[moved > 250] == 3).mean() > 0.97
    assert visible.tolist() == [1]
    pictures, asked = region_batch(one_thing(image, regions, box), (0, step), 2)
    assert pictures.shape == (2, 1, SIDE_PX, SIDE_PX)
    bright = pictures[:, 0] > pictures.mean() + 0.5 * (pictures.max() - pictures.mean())
    assert (asked[bright] == 3).float().mean() > 0.9


def test_what_is_covered_is_less_visible(drawn: Sights) -> None:
    box = np.array([[40, 40, 180, 180]], np.float32)
    changes = []
    for step in range(40):
        rng = np.random.default_rng(step)
        image, visible = sight_batches._covered(rng, drawn.images[0], box, np.ones(1, np.float32))
        assert (visible[0] < 1) <= (not np.array_equal(image, drawn.images[0]))
        changes.append(visible[0])
    assert 5 < np.sum(np.array(changes) < 1) < 20
    assert min(changes) >= 0


def test_the_cells_in_the_middle_answer() -> None:
    boxes = np.array([[0, 0, 8, 8], [100, 100, 160, 140]], np.float32)
    owner = assign(boxes, np.ones(2, np.float32))
    assert owner[0, 0] == 0
    assert (owner == 0).sum() == 1
    rows, columns = np.nonzero(owner == 1)
    centres = np.stack([columns, rows], 1) * 8 + 4
    assert len(centres) in (9, 12)  # the block's middle lies between two rows
    assert (np.abs(centres - [130, 120]).max(axis=1) <= 12).all()
    assert (owner[5] == BACKGROUND).all()


@pytest.mark.parametrize("corner", [(0.0, 0.0), (63.9, 64.1), (219.0, 200.5), (101.3, 40.0)])
def test_the_smallest_thing_has_the_cell_that_holds_its_middle(corner: tuple[float, float]) -> None:
    box = np.array([[*corner, corner[0] + 3, corner[1] + 5]], np.float32)
    owner = assign(box, np.ones(1, np.float32))
    x, y = ((box[0, :2] + box[0, 2:]) / 16).astype(int)
    assert owner[y, x] == 0


def test_the_smaller_thing_wins_and_the_hardly_visible_is_not_asked_for() -> None:
    boxes = np.array([[40, 40, 60, 60], [0, 0, 100, 100], [150, 150, 190, 190]], np.float32)
    assert assign(boxes, np.ones(3, np.float32))[6, 6] == 0
    hidden = assign(boxes, np.array([0.01, 0.9, 0.2], np.float32))
    assert hidden[6, 6] == 1
    assert (hidden == 2).sum() == 0
    assert hidden[21, 21] == NOBODY_ASKS


def test_cutting_lessens_what_is_visible() -> None:
    boxes, visible = cut_boxes(
        np.array([[-10, 0, 10, 20], [300, 0, 310, 9]], np.float32), np.ones(2)
    )
    assert boxes[0].tolist() == [0, 0, 10, 20]
    assert visible.tolist() == pytest.approx([0.5, 0])
