from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from edgeperc.offline.score import confusion_matrix, score

CLASSES = ("a", "b", "c")
LABELS = npst.arrays(np.uint8, (5, 7), elements=st.sampled_from([0, 1, 2, 255]))


@given(truth=LABELS, answer=LABELS)
def test_scores_agree_with_counting_by_hand(
    truth: NDArray[np.uint8], answer: NDArray[np.uint8]
) -> None:
    scores = score(confusion_matrix(truth, answer, 3), CLASSES)

    pairs = [
        (int(t), int(a)) for t, a in zip(truth.flat, answer.flat, strict=True) if 255 not in (t, a)
    ]
    expected = {}
    for k, name in enumerate(CLASSES):
        union = [pair for pair in pairs if k in pair]
        expected[name] = sum(t == a for t, a in union) / len(union) if union else None
    assert scores.pixels == len(pairs)
    assert scores.iou == pytest.approx(expected)
    known = [value for value in expected.values() if value is not None]
    assert scores.miou == pytest.approx(sum(known) / len(known) if known else 0)
    assert scores.accuracy == pytest.approx(
        sum(t == a for t, a in pairs) / len(pairs) if pairs else 0
    )


@given(truth=LABELS)
def test_the_truth_scores_one(truth: NDArray[np.uint8]) -> None:
    scores = score(confusion_matrix(truth, truth, 3), CLASSES)
    assert scores.miou == (1.0 if scores.pixels else 0.0)


@given(truth=LABELS, answer=LABELS)
def test_matrices_of_parts_add_up(truth: NDArray[np.uint8], answer: NDArray[np.uint8]) -> None:
    whole = confusion_matrix(truth, answer, 3)
    parts = sum(confusion_matrix(truth[k:][:1], answer[k:][:1], 3) for k in range(5))
    assert np.array_equal(whole, parts)
