from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeperc import masks
from edgeperc.errors import DataError
from edgeperc.prompt import ImageSession, Rules
from edgeperc.prompting import everything as module
from edgeperc.prompting.everything import Everything, everything, grid
from edgeperc.prompting.seam import Decoded

from .tiny_promptable import exported, film, tiny_sam

SIDE, PICTURE_PX = 64, (96, 64)
BOXES = [(4, 4, 24, 28), (30, 8, 60, 40), (8, 44, 12, 48)]
"""Three things on the decoder's grid; the last one has 4 x 4 cells."""


def logits_of(box: tuple[int, int, int, int], height: float = 8.0) -> NDArray[np.float32]:
    logits = np.full((SIDE, SIDE), -height, np.float32)
    logits[box[1] : box[3], box[0] : box[2]] = height
    return logits


def ask(point: NDArray[np.float32]) -> Decoded:
    """The thing under a click: whole, shaky, and doubted."""
    x, y = point[0] * (SIDE / PICTURE_PX[0], SIDE / PICTURE_PX[1])
    here = [box for box in BOXES if box[0] <= x < box[2] and box[1] <= y < box[3]]
    if not here:
        return Decoded(masks=np.full((4, SIDE, SIDE), -9, np.float32), ious=np.full(4, 0.99))
    whole = logits_of(here[0])
    shaky = cv2.GaussianBlur(logits_of(here[0], 1.2), (0, 0), 3)
    better = 0.9 + 0.001 * float(x)
    return Decoded(
        masks=np.stack([whole, whole, shaky, whole]),
        ious=np.array([0.99, better, 0.99, 0.5], np.float32),
    )


def to_picture(logits: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.asarray(cv2.resize(logits, PICTURE_PX) > 0)


def find(points_per_side: int = 16, **rules: float) -> Everything:
    return everything(
        ask,
        to_picture,
        PICTURE_PX,
        points_per_side=points_per_side,
        rules=Rules(**rules),  # type: ignore[arg-type]
    )


def test_each_thing_is_found_once_and_the_best_comes_first() -> None:
    found = find(area_px=40)
    assert len(found.masks) == 2
    assert (np.diff(found.scores) <= 0).all()
    np.testing.assert_allclose(found.boxes, [(45, 8, 90, 40), (6, 4, 36, 28)], atol=1)
    for rle, box in zip(found.masks, found.boxes, strict=True):
        assert (rle.width_px, rle.height_px) == PICTURE_PX
        np.testing.assert_array_equal(masks.box(rle), box)
    assert found.scores[0] == pytest.approx(0.9 + 0.001 * (15 - 0.5 - 5) * 4 + 0.02, abs=0.01)
    assert (found.stability > 0.95).all()


@pytest.mark.parametrize(
    ("rules", "count"),
    [
        ({"area_px": 10}, 3),  # the small one, too
        ({"area_px": 100, "score": 0.97}, 0),
        ({"area_px": 40, "stability": 0.0}, 2),  # shaky ones, of the same boxes
        ({"area_px": 40, "overlap": 1.0}, 2),
    ],
)
def test_rules_say_what_is_kept(rules: dict[str, float], count: int) -> None:
    dense = find(40, **rules)
    if rules.get("overlap") == 1.0:
        assert len(dense.masks) > 50  # nothing is a duplicate
    else:
        assert len(dense.masks) == count


def test_answers_are_merged_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many clicks there are, few masks are held."""
    most = 0

    def counting(kept: list[object], overlap: float) -> list[object]:
        nonlocal most
        most = max(most, len(kept))
        return distinct(kept, overlap)  # type: ignore[arg-type, return-value]

    distinct = module._distinct
    monkeypatch.setattr(module, "_distinct", counting)
    find(40, stability=0.0)
    assert 0 < most <= 3 * module.EVERY + 3


def test_the_grid_lies_in_the_middle_of_cells() -> None:
    np.testing.assert_allclose(grid(2, (8, 4)), [(2, 1), (6, 1), (2, 3), (6, 3)])


def test_a_picture_in_which_nothing_is_found_has_no_masks() -> None:
    found = find(2, score=1.1)
    assert (found.masks, found.boxes.shape, found.scores.shape) == ((), (0, 4), (0,))


def test_a_session_segments_everything_and_tells_how_far_it_is(tmp_path: Path) -> None:
    session = ImageSession(exported(tiny_sam(3), tmp_path / "m"), threads=1)
    session.look(film(1)[0])
    told: list[tuple[int, int]] = []
    rules = Rules(score=-9, stability=0.0, area_px=0, overlap=1.0)
    found = session.everything(
        points_per_side=4, rules=rules, on_progress=lambda done, total: told.append((done, total))
    )
    assert told == [(done, 16) for done in range(1, 17)]
    assert len(found.masks) > 1
    assert {(rle.width_px, rle.height_px) for rle in found.masks} == {(90, 50)}
    with pytest.raises(DataError, match="points_per_side is 0"):
        session.everything(points_per_side=0)
