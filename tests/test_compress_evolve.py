from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeperc.offline.compress.calibrate.evolve import (
    LEAST_SHARE,
    MOST_SHARE,
    ellipses,
    evolve,
    grid_clicks,
    largest_region,
    stability,
    sureness,
    worth,
)

SIDE = 64


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def block(top: int, left: int, size: int) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), np.bool_)
    mask[top : top + size, left : left + size] = True
    return mask


def found(*masks: np.ndarray) -> np.ndarray:
    return np.stack(masks) if masks else np.zeros((0, SIDE, SIDE), np.bool_)


CURRENT = found(block(0, 0, 10), block(30, 30, 12))


@pytest.mark.parametrize("side", [64, 256])
def test_ellipses_are_objects_in_one_piece(side):
    masks = ellipses(60, side, rng())
    shares = masks.mean((1, 2))
    assert (shares > LEAST_SHARE).all()
    assert (shares < MOST_SHARE).all()
    assert all((largest_region(mask) == mask).all() for mask in masks)
    assert (masks == ellipses(60, side, rng())).all()
    assert (masks != ellipses(60, side, rng(1))).any()
    rows, columns = masks.any(2).sum(1), masks.any(1).sum(1)
    assert (np.maximum(rows, columns) > 1.5 * np.minimum(rows, columns)).any()
    inside = [mask[mask.any(1)][:, mask.any(0)] for mask in masks]
    tilted = [(each != each[:, ::-1]).mean() > 0.02 for each in inside]
    assert np.mean(tilted) > 0.5


def test_one_click_in_each_cell():
    points, labels = grid_clicks(3, 63, rng())
    x, y = points[:, 0].add(0.5).unbind(1)
    assert (x.div(21).floor() + 3 * y.div(21).floor()).tolist() == list(range(9))
    # Each pixel's middle is at a whole number, so the picture begins at -0.5.
    assert (points[0, 0] + 0.5).tolist() == pytest.approx((21 * rng().random(2)).tolist())
    assert labels.tolist() == [[1.0, -1.0, -2.0]] * 9
    assert not torch.equal(points, grid_clicks(3, 63, rng(1))[0])


def test_stability():
    edge = torch.zeros(8, 8)
    edge[:, :4], edge[:, 4:6], edge[:, 6:] = 5, 0.5, -5  # two columns of eight are unsure
    assert stability(torch.stack([edge, -5 + 0 * edge, 5 + 0 * edge])).tolist() == pytest.approx(
        [4 / 6, 0, 1]
    )


def test_worth_is_what_is_sure_and_stable():
    clear = torch.full((16, 16), -9.0)
    clear[:8, :8] = 9
    vague = clear / 20
    logits = torch.stack([clear, clear, vague])
    masks, scores = worth(logits, torch.tensor([0.9, 0.5, 0.9]), SIDE, (0.8, 0.9))
    assert scores.tolist() == pytest.approx([0.9])
    assert masks.shape == (1, SIDE, SIDE)
    assert (masks[0] ^ block(0, 0, 32)).mean() < 0.02
    assert len(worth(logits, torch.tensor([0.9, 0.5, 0.9]), SIDE, (0.4, 0.0))[0]) == 3
    masks, scores = worth(logits, torch.tensor([0.1, 0.1, 0.1]), SIDE, (0.8, 0.9))
    assert masks.shape == (0, SIDE, SIDE)
    assert scores.shape == (0,)


def test_a_mask_is_what_lies_above_0_and_counts_by_iou_and_stability():
    edge = torch.full((1, 16, 16), -2.0)
    edge[0, :8, :8], edge[0, :8, 8:10] = 2, 0.5  # 64 are surely in it, 16 are not sure
    masks, scores = worth(edge, torch.tensor([0.9]), 16, (0.0, 0.0))
    assert masks[0, :8, :10].all()
    assert masks.sum() == 80
    assert scores.tolist() == pytest.approx([0.9 * 64 / 80])


def test_what_is_sure_depends_on_the_network():
    strong = sureness(torch.tensor([0.2, 0.98]), torch.tensor([0.99, 0.5]))
    assert strong == pytest.approx((0.784, 0.792))
    weak = sureness(torch.tensor([0.2, 0.5]), torch.tensor([0.6, 0.5]))
    assert weak == pytest.approx((0.4, 0.48))


def test_largest_region():
    corner = block(0, 0, 5) | block(5, 5, 5) | block(40, 40, 6)
    assert (largest_region(corner) == (block(0, 0, 5) | block(5, 5, 5))).all()
    assert not largest_region(np.zeros((4, 4), np.bool_)).any()


def test_the_best_replace_what_was_there():
    low, high, middle = block(40, 2, 9), block(20, 20, 8), block(2, 40, 10)
    after = evolve(CURRENT, found(low, high, middle), np.float32([0.81, 0.95, 0.9]), rng())
    assert (after == found(high, middle)).all()


def test_only_the_largest_region_of_an_answer():
    answer = block(20, 4, 9) | block(50, 50, 4)
    after = evolve(CURRENT, found(answer), np.float32([0.9]), rng())
    assert (after[0] == block(20, 4, 9)).all()


def test_the_same_answer_counts_once_and_what_it_is_unlike_stays():
    answer, again = block(20, 4, 9), block(21, 4, 9)
    after = evolve(CURRENT, found(again, answer), np.float32([0.85, 0.9]), rng())
    assert (after == found(answer, CURRENT[0])).all()


def test_answers_that_overlap_a_little_both_stay():
    one, other = block(20, 4, 10), block(20, 9, 10)  # a third of both together
    after = evolve(CURRENT, found(one, other), np.float32([0.95, 0.9]), rng())
    assert (after == found(one, other)).all()


def test_an_answer_to_a_label_replaces_it():
    grown = block(29, 29, 14)
    after = evolve(CURRENT, found(grown), np.float32([0.9]), rng())
    assert (after == found(grown, CURRENT[0])).all()


@pytest.mark.parametrize("size", [3, 60])
def test_specks_and_the_whole_picture_are_no_objects(size):
    after = evolve(CURRENT, found(block(1, 1, size)), np.float32([0.99]), rng())
    assert (after == CURRENT).all()


def test_labels_that_shrank_are_drawn_anew():
    shrunk = found(block(0, 0, 2), block(30, 30, 12))
    after = evolve(shrunk, found(), np.float32([]), rng())
    assert (after[0] == block(30, 30, 12)).all()
    assert (after[1] == ellipses(1, SIDE, rng())[0]).all()
    assert after.shape == shrunk.shape
