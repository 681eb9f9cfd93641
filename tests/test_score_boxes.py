from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from edgeperc.offline.score_boxes import BoxScores, BoxTally, Things

TWO = np.array([[0, 0, 10, 10], [20, 20, 40, 40]], np.float32)


def things(
    boxes: object = TWO,
    class_ids: object = (0, 1),
    visible: object = (1.0, 1.0),
    usable: object = (True, True),
) -> Things:
    return Things(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        class_ids=np.array(class_ids, np.int64),
        visible=np.array(visible),
        usable=np.array(usable, bool),
    )


def scored(
    truth: Things, boxes: object, scores: object, class_ids: object, variance: object = None
) -> BoxScores:
    tally = BoxTally(("a", "b"), 0.5)
    tally.add(
        truth,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(class_ids, np.int64),
        None if variance is None else np.array(variance, np.float32),
    )
    return tally.scores()


def test_a_perfect_detector_has_full_marks() -> None:
    answer = scored(things(), TWO, [0.9, 0.8], [0, 1])
    assert answer.ap50 == {"a": 1.0, "b": 1.0}
    assert answer.recall == {"a": 1.0, "b": 1.0}
    assert (answer.pd, answer.false_per_look, answer.centre_rms_px) == (1.0, 0.0, 0.0)


def test_a_silent_detector_has_none() -> None:
    answer = scored(things(), [], [], [])
    assert answer.ap50 == {"a": 0.0, "b": 0.0}
    assert (answer.pd, answer.false_per_look, answer.centre_rms_px) == (0.0, 0.0, None)
    nothing = BoxTally(("a", "b"), 0.5).scores()
    assert nothing.ap50 == {"a": None, "b": None}


def test_boxes_of_another_class_or_elsewhere_are_false() -> None:
    answer = scored(things(), [[0, 0, 10, 10], [60, 60, 80, 80]], [0.9, 0.8], [1, 1])
    assert answer.ap50 == {"a": 0.0, "b": 0.0}
    assert answer.false_per_look == 2


def test_a_second_box_on_a_thing_is_false() -> None:
    answer = scored(things(), [[0, 0, 10, 10], [0, 0, 10, 9]], [0.9, 0.8], [0, 0])
    assert answer.ap50["a"] == 1.0  # it comes after the right one
    assert answer.false_per_look == 1
    before = scored(things(), [[50, 0, 60, 10], [0, 0, 10, 10]], [0.9, 0.8], [0, 0])
    assert before.ap50["a"] == 0.5


def test_average_precision_is_the_area_under_the_best_precision() -> None:
    """Right, wrong, right out of 4 things: precision 1 to recall 1/4, 2/3 to recall 1/2."""
    row = np.arange(4)[:, None] * 20 + [0, 0, 10, 0]
    boxes = np.array(row, np.float32)
    boxes[:, 1], boxes[:, 3] = 0, 10
    truth = things(boxes, [0] * 4, [1.0] * 4, [True] * 4)
    answer = scored(truth, [boxes[0], [0, 90, 9, 99], boxes[2]], [0.9, 0.8, 0.7], [0, 0, 0])
    assert answer.ap50["a"] == pytest.approx(0.25 + 0.25 * 2 / 3)
    assert answer.recall["a"] == 0.5
    # Wrong, right, right: the 2/3 at recall 1/2 counts at 1/4, too.
    late = scored(truth, [[0, 90, 9, 99], boxes[0], boxes[2]], [0.9, 0.8, 0.7], [0, 0, 0])
    assert late.ap50["a"] == pytest.approx(0.5 * 2 / 3)


def test_weak_boxes_count_for_precision_but_not_for_recall() -> None:
    answer = scored(things(), TWO, [0.9, 0.3], [0, 1])
    assert answer.ap50["b"] == 1.0
    assert answer.recall["b"] == 0.0
    assert answer.pd == 0.5


def test_the_hardly_visible_is_neither_asked_for_nor_false() -> None:
    answer = scored(things(visible=(1.0, 0.4)), TWO, [0.8, 0.9], [0, 1])
    assert answer.ap50 == {"a": 1.0, "b": None}
    assert answer.false_per_look == 0
    assert answer.recall_by_visible["0.3 to 0.5"] == 1.0
    assert answer.recall_by_visible["0.8 to 1.0"] == 1.0
    assert answer.recall_by_visible["0.5 to 0.8"] is None
    both = scored(things(class_ids=(0, 0), visible=(1.0, 0.4)), TWO, [0.8, 0.9], [0, 0])
    assert both.ap50["a"] == 1.0
    near = [[0, 0, 10, 10], [20, 20, 34, 34]]
    beside = scored(things(class_ids=(0, 0), visible=(1.0, 0.4)), near, [0.8, 0.9], [0, 0])
    assert beside.ap50["a"] == 1.0
    roughly = scored(things(visible=(1.0, 0.4)), [[20, 20, 34, 34]], [0.9], [1])
    assert roughly.false_per_look == 0


def test_a_box_goes_to_the_thing_that_counts() -> None:
    """Two things at one place, of which one is hidden."""
    truth = things([[0, 0, 10, 10], [0, 0, 10, 9.5]], [0, 0], [0.1, 1.0])
    answer = scored(truth, [[0, 0, 10, 10]], [0.9], [0])
    assert answer.ap50["a"] == 1.0


def test_only_usable_things_count_for_a_look() -> None:
    answer = scored(things(usable=(True, False)), TWO[:1], [0.9], [0])
    assert answer.pd == 1.0
    assert answer.recall["b"] == 0.0


def test_honest_variances_have_ratio_one() -> None:
    rng = np.random.default_rng(0)
    truth = np.array([[k * 100, 0, k * 100 + 60, 60] for k in range(400)], np.float32)
    sd = rng.uniform(0.5, 3, (400, 4))
    boxes = truth + rng.normal(0, 1, (400, 4)) * sd
    many = things(truth, [0] * 400, [1.0] * 400, [True] * 400)
    answer = scored(many, boxes, [0.9] * 400, [0] * 400, sd**2)
    assert answer.variance_ratio == pytest.approx(1, abs=0.1)
    half = scored(many, boxes, [0.9] * 400, [0] * 400, sd**2 * 2)
    assert half.variance_ratio == pytest.approx(0.5, abs=0.05)
    centre = (boxes - truth).reshape(-1, 2, 2).mean(axis=1)
    assert answer.centre_rms_px == pytest.approx(np.sqrt((centre**2).sum(1).mean()), rel=1e-4)


def test_pictures_add_up_and_are_shown() -> None:
    tally = BoxTally(("a", "b"), 0.5)
    for k in range(4):
        keep = slice(0, 2 if k % 2 else 1)
        tally.add(things(), TWO[keep], np.ones(2, np.float32)[keep], np.array([0, 1])[keep])
    answer = tally.scores()
    assert answer.recall == {"a": 1.0, "b": 0.5}
    assert (answer.pictures, answer.things) == (4, {"a": 4, "b": 4})
    shown = io.StringIO()
    Console(file=shown, width=100).print(answer.table("scores"))
    assert "75.00" in shown.getvalue()
    assert answer.headline == "AP50 75.0 %"
