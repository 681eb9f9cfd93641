from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from edgeperc.offline.score_masks import WAYS, PromptTally
from edgeperc.prompt import Answer, Prompt


class Threshold:
    """Understands a prompt as what has nearly the colour of the clicks on it, and is connected.

    Three masks, from strict to lax; a single click gets the strictest first, clicks beside the
    object take away what is like them. A box is what is like its middle, inside it.
    """

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self._image = image.copy()
        self.asked: list[tuple[Prompt, bool, bool]] = []

    def ask(
        self,
        prompt: Prompt,
        *,
        all_masks: bool = False,
        logits: NDArray[np.float32] | None = None,
    ) -> Answer:
        self.asked.append((prompt, all_masks, logits is not None))
        prompt.check(self._image.shape[1], self._image.shape[0])
        steps = (4, 20, 60) if all_masks else (4,)
        masks = np.stack([self._mask(prompt, step) for step in steps])
        scores = np.linspace(0.9, 0.5, len(masks), dtype=np.float32)
        return Answer(masks=masks, scores=scores, logits=masks.astype(np.float32) - 0.5)

    def _mask(self, prompt: Prompt, step: int) -> NDArray[np.bool_]:
        mask = np.zeros(self._image.shape[:2], np.bool_)
        if prompt.box is not None:
            x0, y0, x1, y1 = (int(edge) for edge in prompt.box)
            like = self._like(((x0 + x1) / 2, (y0 + y1) / 2), step)
            mask[y0:y1, x0:x1] = like[y0:y1, x0:x1]
            return mask
        assert prompt.labels is not None
        for point, label in zip(prompt.points, prompt.labels, strict=True):
            found = self._like(point, step)
            mask = mask | found if label else mask & ~found
        return mask

    def _like(
        self, point: NDArray[np.float32] | tuple[float, float], step: int
    ) -> NDArray[np.bool_]:
        height, width = self._image.shape[:2]
        found = np.zeros((height + 2, width + 2), np.uint8)
        how = 8 | cv2.FLOODFILL_FIXED_RANGE | cv2.FLOODFILL_MASK_ONLY | 1 << 8
        start = int(point[0]), int(point[1])
        cv2.floodFill(self._image, found, start, (0,), (step,) * 3, (step,) * 3, how)
        return found[1:-1, 1:-1] > 0


def picture() -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A thing of two shades on grey; the first click is on the larger, darker part."""
    image = np.full((60, 80, 3), 120, np.uint8)
    truth = np.zeros((60, 80), np.bool_)
    image[10:50, 10:50], image[10:50, 50:60] = 200, 210
    truth[10:50, 10:60] = True
    return image, truth


def test_a_second_click_mends_what_the_first_missed() -> None:
    image, truth = picture()
    session = Threshold(image)
    tally = PromptTally()
    answers = tally.add(session, truth)
    scores = tally.scores()
    assert scores.objects == 1
    assert tuple(scores.ways) == WAYS
    assert scores.ways["1 click"].selected == pytest.approx(0.8)
    assert scores.ways["1 click"].oracle == 1  # the lax mask has both shades
    assert scores.ways["3 clicks"].selected == 1
    assert scores.ways["box"].selected == pytest.approx(0.8)
    assert answers is not None
    assert (answers["3 clicks"] == truth).all()
    clicks = [(len(p.points), every, mends) for p, every, mends in session.asked if p.box is None]
    # Two clicks are enough here: the answer to the second is perfect, and corrects the first.
    answered, offered = [(1, False, False), (2, False, True)], [(1, True, False), (2, True, True)]
    assert clicks == answered + offered


def test_clicks_beside_the_object_say_so() -> None:
    image, truth = picture()
    image[10:50, 50:60] = 200
    truth[10:50, 40:60] = False
    session = Threshold(image)
    PromptTally().add(session, truth)
    labels = [p.labels for p, every, _ in session.asked if p.box is None and not every]
    assert [label.tolist() for label in labels if label is not None][1] == [1, 0]


def test_who_does_not_listen_is_not_told_the_same_again() -> None:
    class Deaf(Threshold):
        def _mask(self, prompt: Prompt, step: int) -> NDArray[np.bool_]:
            return np.zeros(self._image.shape[:2], np.bool_)

    image, truth = picture()
    session = Deaf(image)
    tally = PromptTally()
    tally.add(session, truth)
    given = [p.points for p, every, _ in session.asked if p.box is None and not every]
    assert [len(np.unique(points, axis=0)) for points in given] == [1, 2, 3]
    assert {way.selected for way in tally.scores().ways.values()} == {0}


def test_every_object_weighs_the_same_and_small_ones_are_left_out() -> None:
    image, truth = picture()
    small = np.zeros_like(truth)
    small[0:3, 0:3] = True  # 9 of 4800 px
    background = ~truth
    tally = PromptTally()
    session = Threshold(image)
    assert tally.add(session, small) is None
    assert tally.add(session, np.zeros_like(truth)) is None
    tally.add(session, truth)
    tally.add(session, background)
    scores = tally.scores()
    assert (scores.objects, scores.left_out) == (2, 2)
    assert scores.ways["1 click"].selected == pytest.approx((0.8 + 1) / 2)
    fewer = PromptTally(least_share=0.0)
    assert fewer.add(session, small) is not None


def test_void_counts_neither_way() -> None:
    image, truth = picture()
    void = np.zeros_like(truth)
    void[:, 45:] = True  # the answer goes on to 50
    tally = PromptTally()
    tally.add(Threshold(image), truth & ~void, void)
    assert tally.scores().ways["1 click"].selected == 1


def test_nothing_asked_is_zero_and_the_table_says_what_was_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    image, truth = picture()
    tally = PromptTally()
    assert tally.scores().ways["box"].oracle == 0
    tally.add(Threshold(image), truth)
    tally.add(Threshold(image), np.zeros_like(truth))
    Console(width=90).print(tally.scores().table(), *tally.scores().notes())
    shown = capsys.readouterr().out
    assert "80.00" in shown
    assert "1 below 0.2 %" in shown
