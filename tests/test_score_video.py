from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from edgeperc.errors import DataError
from edgeperc.offline.davis import open_davis
from edgeperc.offline.score_video import (
    VideoTally,
    boundary,
    boundary_f,
    by_frame,
    course,
    j_and_f,
    jaccard,
)

SIZES = st.tuples(st.integers(2, 14), st.integers(2, 14))


def _several(count: int) -> st.SearchStrategy[list[np.ndarray]]:
    """Masks of one size."""
    return SIZES.flatmap(
        lambda size: st.lists(arrays.arrays(np.bool_, size), min_size=count, max_size=count)
    )


def slow_boundary(mask: np.ndarray) -> list[tuple[int, int]]:
    """Pixels that differ from one of those to the right, below, and both, inside the picture."""
    height, width = mask.shape
    return [
        (y, x)
        for y in range(height)
        for x in range(width)
        for v, u in ((y, x + 1), (y + 1, x), (y + 1, x + 1))
        if v < height and u < width and mask[y, x] != mask[v, u]
    ]


def slow_f(truth: np.ndarray, answer: np.ndarray, tolerance: float) -> float:
    reach = np.ceil(tolerance * np.sqrt(truth.shape[0] ** 2 + truth.shape[1] ** 2))
    theirs, ours = set(slow_boundary(truth)), set(slow_boundary(answer))
    if not ours and not theirs:
        return 1.0
    if not ours or not theirs:
        return 0.0

    def share(of: set[tuple[int, int]], near: set[tuple[int, int]]) -> float:
        hits = [
            any((y - v) ** 2 + (x - u) ** 2 <= reach**2 for v, u in sorted(near))
            for y, x in sorted(of)
        ]
        return sum(hits) / len(hits)

    precision, recall = share(ours, theirs), share(theirs, ours)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@settings(deadline=None)
@given(masks=_several(2), tolerance=st.sampled_from([0.008, 0.1, 0.2]))
def test_f_is_that_of_the_slow_reference(masks: list[np.ndarray], tolerance: float) -> None:
    truth, answer = masks
    expected = slow_f(truth, answer, tolerance)
    assert boundary_f(truth, answer, tolerance=tolerance) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(masks=_several(1))
def test_boundaries_are_those_of_the_slow_reference(masks: list[np.ndarray]) -> None:
    assert set(map(tuple, np.argwhere(boundary(masks[0])))) == set(slow_boundary(masks[0]))


@settings(deadline=None)
@given(masks=_several(3))
def test_void_is_as_if_neither_had_anything_there(masks: list[np.ndarray]) -> None:
    truth, answer, void = masks
    cleared = truth & ~void, answer & ~void
    assert jaccard(truth, answer, void) == jaccard(*cleared)
    assert boundary_f(truth, answer, void) == boundary_f(*cleared)


@settings(deadline=None)
@given(masks=_several(2))
def test_equal_masks_are_perfect_and_order_does_not_count(masks: list[np.ndarray]) -> None:
    truth, answer = masks
    for measure in (jaccard, boundary_f):
        assert measure(truth, truth) == 1
        assert measure(truth, answer) == pytest.approx(measure(answer, truth))
        assert 0 <= measure(truth, answer) <= 1


def test_nothing_where_nothing_is_is_right() -> None:
    nothing, something = np.zeros((2, 20, 20), np.bool_)
    something[5:9, 5:9] = True
    assert (jaccard(nothing, nothing), boundary_f(nothing, nothing)) == (1, 1)
    assert (jaccard(nothing, something), boundary_f(nothing, something)) == (0, 0)


def published(truth: np.ndarray, answer: np.ndarray) -> tuple[float, float]:
    """J and F of whole pictures as the published formulas put them, with SciPy's morphology."""

    def lines(mask: np.ndarray) -> np.ndarray:
        east, south, both = np.zeros((3, *mask.shape), np.bool_)
        east[:, :-1], south[:-1], both[:-1, :-1] = mask[:, 1:], mask[1:], mask[1:, 1:]
        found = (mask ^ east) | (mask ^ south) | (mask ^ both)
        found[-1], found[:, -1] = mask[-1] ^ east[-1], mask[:, -1] ^ south[:, -1]
        found[-1, -1] = False
        return found

    radius = int(np.ceil(0.008 * np.linalg.norm(truth.shape)))
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disk = x**2 + y**2 <= radius**2
    ours, theirs = lines(answer), lines(truth)
    precision = (ours & ndimage.binary_dilation(theirs, disk)).sum() / ours.sum()
    recall = (theirs & ndimage.binary_dilation(ours, disk)).sum() / theirs.sum()
    j = (truth & answer).sum() / (truth | answer).sum()
    return float(j), float(2 * precision * recall / (precision + recall))


@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 99))
def test_pictures_of_full_size_agree_with_the_published_formulas(seed: int) -> None:
    rng = np.random.default_rng(seed)
    smooth = ndimage.zoom(rng.random((2, 6, 9)), (1, 40, 40), order=1)
    truth, answer = smooth[0] > 0.5, 0.7 * smooth[0] + 0.3 * smooth[1] > 0.5
    expected = published(truth, answer)
    assert (jaccard(truth, answer), boundary_f(truth, answer)) == pytest.approx(expected)


def test_real_masks_agree_with_the_published_formulas(real: Callable[[str], Path]) -> None:
    footage = open_davis(real("davis"), names=["breakdance"])[0]
    truth = np.stack([labels > 0 for labels in footage.labels[::28]])
    answer = np.roll(truth, 6, axis=2)
    answer[:, :150] = False
    expected = [published(t, a) for t, a in zip(truth, answer, strict=True)]
    j, f = by_frame(truth, answer)
    np.testing.assert_allclose(np.stack([j, f], 1), expected, atol=1e-12)
    assert 0.3 < j.mean() < f.mean() < 0.95


def test_recall_counts_frames_above_one_half_and_decay_takes_quarters() -> None:
    found = course(np.array([1.0, 1.0, 0.5, 0.8, 0.6, 0.5, 0.2, 0.0]))
    assert found.mean == pytest.approx(0.575)
    assert found.recall == pytest.approx(4 / 8)
    # Cut after places 1, 3, 5, 6, 8 of 1 to 8: the first quarter is 1 to 3, the last 6 to 8.
    assert found.decay == pytest.approx(2.5 / 3 - 0.7 / 3)
    assert course(np.array([0.7])).decay == 0
    long = course(np.linspace(1, 0, 1000))
    assert long.decay == pytest.approx(0.75, abs=2e-3)


def test_the_first_and_last_frame_do_not_count() -> None:
    truth = np.zeros((5, 24, 24), np.bool_)
    truth[:, 4:12, 4:12] = True
    answer = truth.copy()
    answer[[0, -1]] = False
    tally = VideoTally()
    tally.add("a", truth, answer)
    scores = tally.scores()
    assert (scores.j_and_f, scores.j.mean, scores.f.mean, scores.frames) == (1, 1, 1, 3)
    answer[1] = False
    tally.add("b", truth, answer)
    scores = tally.scores()
    assert scores.j.mean == pytest.approx((1 + 2 / 3) / 2)
    assert scores.objects["b"][0].recall == pytest.approx(2 / 3)
    assert scores.j_and_f == pytest.approx((scores.j.mean + scores.f.mean) / 2)
    assert j_and_f(truth, answer) == pytest.approx((2 / 5, 2 / 5))


def test_what_cannot_be_scored_is_said() -> None:
    mask = np.zeros((3, 8, 8), np.bool_)
    tally = VideoTally()
    with pytest.raises(DataError, match="no object"):
        tally.scores()
    with pytest.raises(DataError, match="dog_1: 2 frames"):
        tally.add("dog_1", mask[:2], mask[:2])
    with pytest.raises(DataError, match=r"\(1, 8, 7\) for a truth of \(1, 8, 8\)"):
        tally.add("dog_1", mask, mask[:, :, 1:])


def test_the_table_shows_every_object(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    mask = np.zeros((4, 8, 8), np.bool_)
    mask[:, 2:5, 2:5] = True
    tally = VideoTally()
    tally.add("dog_1", mask, mask)
    Console(width=100).print(tally.scores().table())
    shown = capsys.readouterr().out
    assert "dog_1" in shown
    assert "100.00" in shown
