"""Score networks for pictures on the twin's avenues, through the code that the daemon runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Group

from edgeperc.detect import Detector
from edgeperc.errors import ConfigError
from edgeperc.offline.score import Confusion, Scores, confusion_matrix, score
from edgeperc.offline.score_boxes import BoxScores, BoxTally, Things
from edgeperc.offline.sights import HELD_OUT_AVENUES, LIFE_S, SEARCH, SENSORS, WIDE, gaze_near
from edgeperc.packet import Frame, Stamp
from edgeperc.places import ModelFolder
from edgeperc.segment import Segmenter
from edgeperc.twin.avenue import KINDS, Avenue
from edgeperc.twin.plots import REGIONS
from edgeperc.twin.rig import Mount
from edgeperc.twin.truth import Truth
from edgeperc.twin.views import SearchView, UprightView

LOOKS, PICTURES = 100, 16
"""Of the search and the wide camera, of each avenue."""
USABLE_CELLS, FIELD_CELLS = 5.2, 12.0
"""A search counts on what lies so far from a look's middle; the field is so wide."""
LEAST_SCORE = 0.02
"""Boxes down to this score count for average precision."""
STANDS_FOR = {"car": "vehicle", "truck": "vehicle", "bus": "vehicle"}
"""Names by which other data sets know the twin's classes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SightEvaluation:
    """Scores of one model on the twin's avenues, by camera."""

    model: str
    sha256: str
    data: str
    score: float | None
    scores: dict[str, BoxScores] | dict[str, Scores]

    def as_json(self) -> dict[str, Any]:
        """JSON types, for `--json`."""
        return asdict(self)

    def table(self) -> Group:
        """One table a camera."""
        threshold = "" if self.score is None else f", score from {self.score:.2f}"
        return Group(
            *(
                scores.table(f"{self.model} on {self.data}, {camera} camera{threshold}")
                for camera, scores in self.scores.items()
            )
        )


def evaluate_sights(
    folder: ModelFolder,
    data: str,
    *,
    threads: int = 1,
    on_picture: Callable[[int, int], None] = lambda done, total: None,
) -> SightEvaluation:
    """Run a detector or a segmenter of frames over avenues of the twin and score it.

    data: `twin`, the held-out avenues, or `twin:SEED`. Raises ConfigError for other data, or a
    model that shares no class with the twin.
    """
    avenues = _avenues(data)
    ask = _boxes if folder.card.task == "detection" else _regions
    return ask(folder, data, avenues, threads, on_picture)


def _boxes(
    folder: ModelFolder,
    data: str,
    avenues: Sequence[int],
    threads: int,
    on_picture: Callable[[int, int], None],
) -> SightEvaluation:
    card = folder.card
    names = [STANDS_FOR.get(name, name) for name in card.classes]
    as_kind = np.array([KINDS.index(name) if name in KINDS else -1 for name in names])
    if (as_kind < 0).all():
        raise ConfigError(f"{card.name} finds neither of {', '.join(KINDS)}")
    operating = Detector(folder, threads=threads).score
    detector = Detector(folder, threads=threads, score=min(LEAST_SCORE, operating))
    tallies = [BoxTally(KINDS, operating) for _ in SENSORS]
    total = len(avenues) * (LOOKS + PICTURES)
    for done, (camera, image, truth) in enumerate(_pictures(avenues), start=1):
        found = detector(_frame(image))
        usable = _in_reach(truth, image.shape) & (camera == SEARCH)
        things = Things(
            boxes=truth.boxes, class_ids=truth.class_ids, visible=truth.visible, usable=usable
        )
        kinds = as_kind[found.class_ids]
        ours = kinds >= 0
        variance = None if found.variance is None else found.variance[ours]
        tallies[camera].add(things, found.boxes[ours], found.scores[ours], kinds[ours], variance)
        on_picture(done, total)
    return SightEvaluation(
        model=card.name,
        sha256=detector.ref.sha256,
        data=data,
        score=operating,
        scores={name: tally.scores() for name, tally in zip(SENSORS, tallies, strict=True)},
    )


def _in_reach(truth: Truth, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Whether a search counts on finding each thing in a look at this picture."""
    height_px, width_px = shape
    offset = (truth.boxes[:, :2] + truth.boxes[:, 2:]) / 2 - [width_px / 2, height_px / 2]
    reach_px = USABLE_CELLS / FIELD_CELLS * width_px
    return np.asarray(np.abs(offset).max(axis=1, initial=0) <= reach_px, np.bool_)


def _regions(
    folder: ModelFolder,
    data: str,
    avenues: Sequence[int],
    threads: int,
    on_picture: Callable[[int, int], None],
) -> SightEvaluation:
    if folder.card.classes != REGIONS:
        raise ConfigError(
            f"{folder.card.name} has the classes {', '.join(folder.card.classes)}; "
            f"the twin's avenues have {', '.join(REGIONS)}"
        )
    segmenter = Segmenter(folder, threads=threads)
    confusion: Confusion = np.zeros((len(REGIONS),) * 2, np.int64)
    total = len(avenues) * PICTURES
    for done, (view, time_s, number) in enumerate(_moments(avenues), start=1):
        labels = segmenter(_frame(view.image(time_s, noise=number))).labels
        confusion += confusion_matrix(view.regions(time_s), labels, len(REGIONS))
        on_picture(done, total)
    return SightEvaluation(
        model=folder.card.name,
        sha256=segmenter.ref.sha256,
        data=data,
        score=None,
        scores={"wide": score(confusion, REGIONS)},
    )


def _moments(avenues: Sequence[int]) -> Iterator[tuple[UprightView, float, int]]:
    """Views of the wide camera, times and numbers of pictures."""
    for seed in avenues:
        view = UprightView(Avenue(seed), mount=Mount.drawn(seed))
        rng = np.random.default_rng((seed, 33))
        for number in range(PICTURES):
            yield view, float(rng.uniform(0, LIFE_S)), number


def _pictures(avenues: Sequence[int]) -> Iterator[tuple[int, NDArray[np.uint8], Truth]]:
    """Camera (index into SENSORS), picture and truth; half of the looks are at somebody."""
    for seed in avenues:
        avenue, mount = Avenue(seed), Mount.drawn(seed)
        wide, search = UprightView(avenue, mount=mount), SearchView(avenue, mount)
        rng = np.random.default_rng((seed, 32))
        for number in range(LOOKS):
            time_s = float(rng.uniform(0, LIFE_S))
            gaze = gaze_near(wide.truth(time_s), rng, aimed=0.5)
            yield SEARCH, search.image(time_s, gaze, noise=number), search.truth(time_s, gaze)
        for number in range(PICTURES):
            time_s = float(rng.uniform(0, LIFE_S))
            yield WIDE, wide.image(time_s, noise=number), wide.truth(time_s)


def _avenues(data: str) -> Sequence[int]:
    if data == "twin":
        return HELD_OUT_AVENUES
    seed = data.removeprefix("twin:")
    if seed == data or not seed.isdecimal():
        raise ConfigError(
            f"--data {data}: networks for pictures are scored on `twin` or `twin:SEED`"
        )
    return [int(seed)]


def _frame(image: NDArray[np.uint8]) -> Frame:
    return Frame(stamp=Stamp(source="twin", seq=0, start_ns=0, end_ns=0), image=image)
