"""How well single prompts are understood: mIoU after one click, three clicks, and of a box.

    tally = PromptTally()
    tally.add(session, truth)         # a session that has looked at the picture; each object's mask
    tally.scores()

An object's second and third click go where the answer before was most wrong. `selected` is the mask
that the session gives as its answer, `oracle` the best of all that it can offer. Every object
weighs the same, those below a share of the picture are left out and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from edgeperc.offline.clicks import Click, box_of, first_click, next_click
from edgeperc.offline.score_video import Mask, jaccard
from edgeperc.prompt import Answer, Prompt

LEAST_SHARE = 0.002
"""Of the picture's area; 309 px of a photograph of BSDS500. Smaller objects are not asked for."""
CLICKS = 3
WAYS = ("1 click", f"{CLICKS} clicks", "box")


class Asked(Protocol):
    """What answers prompts about the picture that it has looked at: an ImageSession."""

    def ask(
        self, prompt: Prompt, *, all_masks: bool = False, logits: NDArray[np.float32] | None = None
    ) -> Answer:
        """As ImageSession does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WayScore:
    """mIoU of one way of prompting, 0..1. oracle: of the best of all masks that were offered."""

    selected: float
    oracle: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptScores:
    """ways: by name of WAYS. left_out: objects below least_share of their picture, not scored."""

    ways: dict[str, WayScore]
    objects: int
    left_out: int
    least_share: float

    def table(self) -> Table:
        """One line a way of prompting, in percent."""
        table = Table(box=None, pad_edge=False)
        table.add_column("prompt")
        table.add_column("mIoU %", justify="right")
        table.add_column("oracle %", justify="right")
        for name, way in self.ways.items():
            table.add_row(name, f"{100 * way.selected:.2f}", f"{100 * way.oracle:.2f}")
        return table

    def notes(self) -> tuple[str, ...]:
        """What the table does not say."""
        share = f"{100 * self.least_share:g} %"
        return (f"{self.objects} objects; {self.left_out} below {share} of their picture left out",)


class PromptTally:
    """IoU of the answers about one object after the other."""

    def __init__(self, *, least_share: float = LEAST_SHARE) -> None:
        self._least_share = least_share
        self._ious: list[tuple[tuple[float, float], ...]] = []
        self._left_out = 0

    def add(self, session: Asked, truth: Mask, void: Mask | None = None) -> dict[str, Mask] | None:
        """Ask in each way for the object of mask (H, W); returns the answers, None if left out."""
        if truth.sum() < max(self._least_share * truth.size, 1):
            self._left_out += 1
            return None
        clicked = _clicked(session, truth, void)
        boxed = _Try(session, Prompt(box=box_of(truth)))
        tries = (clicked[0], clicked[-1], boxed)
        self._ious.append(tuple(_ious(session, each, truth, void) for each in tries))
        return {way: each.mask for way, each in zip(WAYS, tries, strict=True)}

    def scores(self) -> PromptScores:
        """Means over all objects that were asked for; 0 if there were none."""
        ious = np.array(self._ious).reshape(-1, len(WAYS), 2)
        means = ious.mean(axis=0) if len(ious) else np.zeros((len(WAYS), 2))
        return PromptScores(
            ways={
                way: WayScore(selected=float(selected), oracle=float(oracle))
                for way, (selected, oracle) in zip(WAYS, means, strict=True)
            },
            objects=len(ious),
            left_out=self._left_out,
            least_share=self._least_share,
        )


class _Try:
    """A prompt, what it corrects, and what came of it."""

    def __init__(
        self, session: Asked, prompt: Prompt, corrects: NDArray[np.float32] | None = None
    ) -> None:
        self.prompt, self.corrects = prompt, corrects
        answer = session.ask(prompt, logits=corrects)
        self.mask, self.logits = answer.masks[0], answer.logits[0]


def _clicked(session: Asked, truth: Mask, void: Mask | None) -> list[_Try]:
    """Tries after one click, two, and so on; once an answer is perfect, clicking on is over."""
    given = [first_click(truth)]
    tries = [_Try(session, _prompt(given))]
    while len(given) < CLICKS:
        click = next_click(truth, tries[-1].mask, given=given, void=void)
        if click is None:
            break
        given.append(click)
        tries.append(_Try(session, _prompt(given), tries[-1].logits))
    return tries


def _prompt(given: Sequence[Click]) -> Prompt:
    return Prompt(
        points=np.array([click.point for click in given], np.float32),
        labels=np.array([click.foreground for click in given], np.float32),
    )


def _ious(session: Asked, each: _Try, truth: Mask, void: Mask | None) -> tuple[float, float]:
    """IoU of the answer, and of the best of it and all that was offered."""
    offered = session.ask(each.prompt, all_masks=True, logits=each.corrects).masks
    answered = jaccard(truth, each.mask, void)
    return answered, max(answered, *(jaccard(truth, mask, void) for mask in offered))
