"""Score promptable networks through the sessions that the daemon and the command line use.

--data           what is asked                                              what is scored
bsds500:FOLDER   every segment of every person: 1 click, 3 clicks, a box    mIoU
camvid:FOLDER    the same, of what is connected and of one class
davis-frames:F.  the same, of the objects of every frame
davis:FOLDER     to follow the objects of the first frame                   J, F, J&F
coco:JSON        masks in the boxes of a detector, or of the json itself    AP of masks and boxes
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rich.console import Group
from rich.markup import escape

from edgeperc.errors import ConfigError
from edgeperc.offline import davis
from edgeperc.offline.contact_sheet import jpeg, layered, painted, sheet
from edgeperc.offline.evaluate_coco import evaluate_coco
from edgeperc.offline.evaluate_video import evaluate_results, evaluate_video
from edgeperc.offline.examples import OPENERS, VOID_NUMBER, Example, Split, split_of_davis
from edgeperc.offline.score_coco import PrecisionScores, precision_table
from edgeperc.offline.score_masks import WAYS, PromptScores, PromptTally
from edgeperc.offline.score_video import VideoScores
from edgeperc.offline.shelf import Shelf
from edgeperc.palette import write_numbers
from edgeperc.places import ModelFolder
from edgeperc.prompt import ImageSession

OnPicture: TypeAlias = Callable[[int, int], None]

KINDS = ("bsds500", "camvid", "davis-frames", "davis", "coco")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptEvaluation:
    """Scores of one model on one data set. prompts: what they were. sha256: of the encoder."""

    model: str
    sha256: str
    data: str
    split: str
    prompts: str
    scores: PromptScores | VideoScores | dict[str, PrecisionScores]

    def as_json(self) -> dict[str, Any]:
        """JSON types, for `--json`."""
        return asdict(self)

    def table(self) -> Group:
        """What `edgeperc evaluate` shows."""
        title = escape(f"{self.model} on {self.data}, {self.prompts}")
        if isinstance(self.scores, dict):
            return Group(title, precision_table(self.scores))
        return Group(title, self.scores.table(), *self.scores.notes())


def evaluate_prompts(
    folder: ModelFolder,
    data: str,
    *,
    split: Split = "test",
    limit: int | None = None,
    threads: int = 2,
    detector: str | None = None,
    out: Path | None = None,
    on_picture: OnPicture = lambda done, total: None,
) -> PromptEvaluation:
    """Score a promptable model on `KIND:PATH`, see the top of this file.

    split: `valid` and `test` are both what nothing learns from, `all` is everything; a coco json
    has no parts. limit: at most so many pictures, spread evenly, or frames from a video's start.
    detector: by name or folder, gives the boxes on a coco json. out: folder for masks and sheets.
    Raises ConfigError for data of no such kind, DataError where it cannot be read, ModelError for
    a model that cannot be asked.
    """
    kind, path = _kind_and_path(data)
    if detector is not None and kind != "coco":
        raise ConfigError(f"--detector {detector}: boxes are for --data coco:JSON, not {kind}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    scores: PromptScores | VideoScores | dict[str, PrecisionScores]
    if kind == "davis":
        prompts = "masks of the first frames"
        scores = evaluate_video(
            folder,
            path,
            split=split_of_davis(split),
            limit=limit,
            threads=threads,
            out=out,
            on_frame=on_picture,
        )
    elif kind == "coco":
        prompts = "boxes of the json" if detector is None else f"boxes of {detector}"
        scores = evaluate_coco(
            folder,
            path,
            limit=limit,
            threads=threads,
            detector=detector,
            out=out,
            on_picture=on_picture,
        )
    else:
        prompts = f"the {split} part"
        examples = OPENERS[kind](path, split).thinned(limit)
        scores = _single(folder, examples, threads, out, on_picture)
    return PromptEvaluation(
        model=folder.card.name,
        sha256=next((e.sha256 for e in folder.card.files if e.role == "encoder"), ""),
        data=data,
        split="all" if kind == "coco" else split,
        prompts=prompts,
        scores=scores,
    )


def score_results(
    results: Path, data: str, *, on_picture: OnPicture = lambda done, total: None
) -> PromptEvaluation:
    """Score a folder of result PNG files on `davis:FOLDER`. Raises ConfigError, DataError."""
    kind, path = _kind_and_path(data)
    if kind != "davis":
        raise ConfigError(
            f"{results}: results of videos are scored on --data davis:FOLDER, not {kind}"
        )
    scores = evaluate_results(results, path, on_frame=on_picture)
    there = len({footage.name for footage in davis.open_davis(path)})
    scored = len({name.rsplit("_", 1)[0] for name in scores.objects})
    return PromptEvaluation(
        model=str(results),
        sha256="",
        data=data,
        split="all",
        prompts=f"{scored} of {there} sequences",
        scores=scores,
    )


def _single(
    folder: ModelFolder,
    examples: Shelf[Example],
    threads: int,
    out: Path | None,
    on_picture: OnPicture,
) -> PromptScores:
    """Every object of every map of every picture."""
    session = ImageSession(folder, threads=threads)
    tally = PromptTally()
    try:
        for done, example in enumerate(examples, start=1):
            session.look(example.picture)
            answers = [_answers(session, tally, labels) for labels in example.maps]
            if out is not None:
                _write(out, example, answers[0])
            on_picture(done, len(examples))
    finally:
        session.close()
    return tally.scores()


Answers: TypeAlias = dict[int, dict[str, NDArray[np.bool_]]]
"""Masks by number of the object and way of prompting."""


def _answers(session: ImageSession, tally: PromptTally, labels: NDArray[Any]) -> Answers:
    """labels: (H, W), VOID_NUMBER where nothing is known."""
    void = labels == VOID_NUMBER
    asked = {int(n): tally.add(session, labels == n, void) for n in np.unique(labels) if n > 0}
    return {number: answer for number, answer in asked.items() if answer is not None}


def _write(out: Path, example: Example, answers: Answers) -> None:
    """The answers to three clicks as numbers, and a sheet of all ways; of the first map."""
    picture = example.picture
    by_way = {
        way: layered({n: answer[way] for n, answer in answers.items()}, picture.shape)
        for way in WAYS
    }
    write_numbers(out / f"{example.name}.png", by_way[WAYS[1]])
    truth = np.maximum(example.maps[0], 0)
    row = [picture, *(painted(picture, numbers) for numbers in (truth, *by_way.values()))]
    (out / f"{example.name}.jpg").write_bytes(jpeg(sheet([row], ["", "truth", *WAYS])))


def _kind_and_path(data: str) -> tuple[str, Path]:
    kind, _, where = data.partition(":")
    if kind not in KINDS or not where:
        raise ConfigError(
            f"--data {data}: promptable networks are scored on KIND:PATH",
            hint=f"KIND is one of {', '.join(KINDS)}",
        )
    if not Path(where).exists():
        raise ConfigError(f"--data {data}: there is no {where}")
    return kind, Path(where)
