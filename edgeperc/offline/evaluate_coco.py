"""Masks in the boxes of a detector, or of a COCO json itself, scored by average precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeperc import masks
from edgeperc.detect import Detector
from edgeperc.errors import ConfigError
from edgeperc.offline.coco import Coco, CocoPicture, open_coco
from edgeperc.offline.contact_sheet import jpeg, layered, painted, sheet
from edgeperc.offline.score_coco import PrecisionScores, PrecisionTally, Things
from edgeperc.offline.shelf import Shelf
from edgeperc.packet import Frame, Stamp
from edgeperc.palette import write_numbers
from edgeperc.places import ModelFolder, find_model
from edgeperc.prompt import ImageSession, Prompt

LEAST_SCORE = 0.05
"""Boxes of a detector down to this score are prompts."""


def evaluate_coco(
    folder: ModelFolder,
    path: Path,
    *,
    limit: int | None = None,
    threads: int = 2,
    detector: str | None = None,
    out: Path | None = None,
    on_picture: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, PrecisionScores]:
    """AP of the `boxes`, and of the `masks` in them if the json has masks.

    detector: name or folder of a model; None takes the json's own boxes, so that the masks alone
    are in question. A mask has its box's score. Raises ConfigError if detector and json share no
    class, DataError for data that cannot be read.
    """
    truth = open_coco(path)
    pictures = Shelf([str(k) for k in range(len(truth.pictures))], lambda k: truth.pictures[int(k)])
    boxes_of = _boxes_of_json if detector is None else _Detected(detector, truth, threads)
    of_boxes, of_masks = PrecisionTally(truth.classes), PrecisionTally(truth.classes)
    session = ImageSession(folder, threads=threads)
    chosen = pictures.thinned(limit)
    try:
        for done, entry in enumerate(chosen, start=1):
            picture = entry.read()
            found = boxes_of(entry, picture)
            session.look(picture)
            answers = [session.ask(Prompt(box=box)).masks[0] for box in found.boxes]
            of_boxes.add(_truth(entry, with_masks=False), found)
            if truth.has_masks:
                of_masks.add(_truth(entry, with_masks=True), _with_masks(found, answers))
            if out is not None:
                _write(out, entry, picture, found, answers)
            on_picture(done, len(chosen))
    finally:
        session.close()
    scores = {"masks": of_masks.scores()} if truth.has_masks else {}
    return scores | {"boxes": of_boxes.scores()}


def _truth(entry: CocoPicture, *, with_masks: bool) -> Things:
    return Things(
        boxes=entry.boxes,
        class_ids=entry.class_ids,
        masks=entry.masks() if with_masks else None,
        areas=entry.areas,
        crowd=entry.crowd,
    )


def _with_masks(found: Things, answers: Sequence[NDArray[np.bool_]]) -> Things:
    return Things(
        boxes=found.boxes,
        class_ids=found.class_ids,
        scores=found.scores,
        masks=tuple(masks.encode(answer) for answer in answers),
    )


def _boxes_of_json(entry: CocoPicture, picture: NDArray[np.uint8]) -> Things:
    """The truth's own boxes as if they were found; not those of crowds."""
    return _within(entry.boxes[~entry.crowd], entry.class_ids[~entry.crowd], None, picture)


class _Detected:
    """Boxes that a detector finds, of the classes that it shares with the json."""

    def __init__(self, name: str, truth: Coco, threads: int) -> None:
        model = find_model(name)
        usual = Detector(model, threads=threads).score
        self._detector = Detector(model, threads=threads, score=min(LEAST_SCORE, usual))
        place = {label: k for k, label in enumerate(truth.classes)}
        self._as_ours = np.array([place.get(label, -1) for label in model.card.classes], np.int64)
        if (self._as_ours < 0).all():
            raise ConfigError(
                f"--detector {name} finds none of the json's {', '.join(truth.classes)}"
            )

    def __call__(self, entry: CocoPicture, picture: NDArray[np.uint8]) -> Things:
        stamp = Stamp(source=entry.name, seq=0, start_ns=0, end_ns=0)
        found = self._detector(Frame(stamp=stamp, image=picture))
        class_ids = self._as_ours[found.class_ids]
        ours = class_ids >= 0
        return _within(found.boxes[ours], class_ids[ours], found.scores[ours], picture)


def _within(
    boxes: NDArray[np.float32],
    class_ids: NDArray[np.int64],
    scores: NDArray[Any] | None,
    picture: NDArray[np.uint8],
) -> Things:
    """Boxes cut at the picture's edges, without those of no area. scores: 1 where None."""
    height_px, width_px = picture.shape[:2]
    cut = boxes.clip(0, np.array([width_px, height_px] * 2, np.float32))
    there = (cut[:, :2] < cut[:, 2:]).all(axis=1)
    sure = np.ones(len(boxes)) if scores is None else scores.astype(np.float64)
    return Things(boxes=cut[there], class_ids=class_ids[there], scores=sure[there])


def _write(
    out: Path,
    entry: CocoPicture,
    picture: NDArray[np.uint8],
    found: Things,
    answers: Sequence[NDArray[np.bool_]],
) -> None:
    """Masks as numbers in the order of the boxes, and a sheet with the boxes and the masks."""
    name = Path(entry.name).stem
    numbers = layered(dict(enumerate(answers, start=1)), picture.shape)
    write_numbers(out / f"{name}.png", numbers)
    boxed: Any = picture.copy()
    for x0, y0, x1, y1 in np.rint(found.boxes).astype(int).tolist():
        cv2.rectangle(boxed, (x0, y0), (x1 - 1, y1 - 1), (255, 255, 0), max(1, len(picture) // 360))
    row = [boxed, painted(picture, numbers)]
    (out / f"{name}.jpg").write_bytes(jpeg(sheet([row], ["boxes", "masks"], panel_px=800)))
