from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgeperc.offline.clicks import Click, box_of, first_click, next_click

SIZES = st.tuples(st.integers(1, 12), st.integers(1, 12))
MASKS = arrays.arrays(np.bool_, SIZES)
PAIRS = SIZES.flatmap(lambda s: st.tuples(arrays.arrays(np.bool_, s), arrays.arrays(np.bool_, s)))


def depths(region: np.ndarray) -> np.ndarray:
    """Slow and obviously right: distance to the nearest pixel that is not of the region."""
    height, width = region.shape
    outside = [
        (y, x)
        for y in range(-1, height + 1)
        for x in range(-1, width + 1)
        if not (0 <= y < height and 0 <= x < width and region[y, x])
    ]
    found = np.zeros(region.shape)
    for y, x in np.argwhere(region):
        found[y, x] = min(np.hypot(y - v, x - u) for v, u in outside)
    return found


@settings(deadline=None)
@given(truth=MASKS)
def test_the_first_click_is_farthest_from_the_border(truth: np.ndarray) -> None:
    if not truth.any():
        with pytest.raises(ValueError, match="empty"):
            first_click(truth)
        return
    click = first_click(truth)
    depth = depths(truth)
    assert truth[click.y, click.x]
    assert depth[click.y, click.x] == pytest.approx(depth.max(), abs=1e-4)
    assert first_click(truth) == click


@settings(deadline=None)
@given(pair=PAIRS)
def test_a_correction_lies_in_the_deepest_error_and_says_its_kind(
    pair: tuple[np.ndarray, np.ndarray],
) -> None:
    truth, answer = pair
    click = next_click(truth, answer)
    if (truth == answer).all():
        assert click is None
        return
    assert click is not None
    assert truth[click.y, click.x] != answer[click.y, click.x]
    assert click.foreground == truth[click.y, click.x]
    deepest = max(depths(truth & ~answer).max(), depths(answer & ~truth).max())
    kind = truth & ~answer if click.foreground else answer & ~truth
    assert depths(kind)[click.y, click.x] == pytest.approx(deepest, abs=1e-4)


def test_what_ties_is_the_first_in_reading_order_however_distances_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    truth = np.zeros((60, 90), bool)
    truth[10:31, 5:26] = truth[20:41, 50:71] = True
    measured = cv2.distanceTransform

    def rounded_otherwise(*given: Any) -> Any:
        return measured(*given) * np.linspace(1, 1 + 1e-5, given[0].shape[1], dtype=np.float32)

    monkeypatch.setattr(cv2, "distanceTransform", rounded_otherwise)
    click = first_click(truth)
    assert (click.x, click.y) == (15, 20)


def test_a_click_in_the_middle_of_a_square_and_a_box_around_it() -> None:
    truth = np.zeros((20, 30), np.bool_)
    truth[5:10, 12:17] = True
    assert first_click(truth) == Click(x=14, y=7)
    assert box_of(truth).tolist() == [12, 5, 17, 10]
    with pytest.raises(ValueError, match="empty"):
        box_of(np.zeros((3, 3), np.bool_))


def test_a_large_error_comes_before_a_long_thin_one() -> None:
    truth = np.zeros((40, 100), np.bool_)
    truth[10, :] = True  # 100 px, thin
    answer = np.zeros_like(truth)
    answer[25:34, 50:59] = True  # 81 px, thick
    assert next_click(truth, answer) == Click(x=54, y=29, foreground=False)


def test_a_click_is_not_given_twice_and_void_is_not_asked_for() -> None:
    truth, answer = np.ones((5, 5), np.bool_), np.zeros((5, 5), np.bool_)
    first = next_click(truth, answer)
    assert first == Click(x=2, y=2)
    second = next_click(truth, answer, given=[first])
    assert second is not None
    assert second != first
    void = np.ones_like(truth)
    void[0, 3] = False
    assert next_click(truth, answer, void=void) == Click(x=3, y=0)
    assert next_click(truth, answer, void=np.ones_like(truth)) is None
