"""Follow the objects of DAVIS from their masks in the first frame, and score what comes of it.

    found = evaluate_video(find_model("promptable"), Path("DAVIS"), split="held-out")
    found.j_and_f

    evaluate_results(Path("results"), Path("DAVIS"))    # PNG files that anybody wrote

Results are `results/dog/00000.png`, numbers of the objects with a palette, which is what is written
to `out`, so that both ways give the same scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeperc import masks
from edgeperc.errors import DataError
from edgeperc.offline import davis
from edgeperc.offline.contact_sheet import jpeg, painted, sheet
from edgeperc.offline.davis import VOID, Footage
from edgeperc.offline.score_video import VideoScores, VideoTally
from edgeperc.packet import Frame, Stamp
from edgeperc.palette import read_numbers, write_numbers
from edgeperc.places import ModelFolder
from edgeperc.prompt import Efficient, Prompt, VideoSession
from edgeperc.result import Instances

Numbers: TypeAlias = NDArray[np.uint8]
OnFrame: TypeAlias = Callable[[int, int], None]

RATE_HZ = 24
"""Of DAVIS; the stamps of its frames."""
AS_THE_CARD_SAYS = Efficient()
_SHOWN = 6
"""Frames of each sequence on its contact sheet."""


def evaluate_video(
    folder: ModelFolder,
    data: Path,
    *,
    split: davis.Split = "held-out",
    limit: int | None = None,
    threads: int = 2,
    efficient: Efficient = AS_THE_CARD_SAYS,
    out: Path | None = None,
    on_frame: OnFrame = lambda done, total: None,
) -> VideoScores:
    """Score a promptable video model on a DAVIS folder. limit: frames from each one's start.

    out: folder for the answers as PNG files and a contact sheet of each sequence. Raises DataError
    for data that cannot be read, ModelError for a model that cannot follow.
    """
    sequences = [_first(footage, limit) for footage in davis.open_davis(data, split=split)]
    total = sum(len(footage.pictures) for footage in sequences)
    session = VideoSession(folder, threads=threads, efficient=efficient)
    tally, done = VideoTally(), 0
    try:
        for footage in sequences:
            answers = []
            for answer in follow(session, footage):
                answers.append(answer)
                done += 1
                on_frame(done, total)
            _add(tally, footage, answers)
            if out is not None:
                _write(out, footage, answers)
    finally:
        session.close()
    return tally.scores()


def follow(session: VideoSession, footage: Footage) -> Iterator[Numbers]:
    """The numbers of all objects in each frame, after their masks were shown in the first.

    Where masks overlap the one counts of which the network is more sure.
    """
    session.reset()
    truth = footage.labels[0]
    asked = {number: Prompt(mask=truth == number) for number in footage.objects()}
    for index, picture in enumerate(footage.pictures):
        start_ns = index * 1_000_000_000 // RATE_HZ
        stamp = Stamp(source=footage.name, seq=index, start_ns=start_ns, end_ns=start_ns)
        found = session.step(Frame(stamp=stamp, image=picture), asked if index == 0 else {})
        yield numbered(found, picture.shape)


def numbered(found: Instances, shape: Sequence[int]) -> Numbers:
    """The masks of a frame as one map (H, W) of their ids."""
    numbers = np.zeros(tuple(shape[:2]), np.uint8)
    for index in np.argsort(found.scores * found.visible, kind="stable"):
        numbers[masks.decode(found.masks[index])] = found.ids[index]
    return numbers


def evaluate_results(
    results: Path, data: Path, *, on_frame: OnFrame = lambda done, total: None
) -> VideoScores:
    """Score PNG files as other programs write them: all sequences that the folder has.

    Raises DataError for a sequence that the data have not, a frame that is missing, of another size
    or with an object that was not asked for. The first and the last frame are not looked at.
    """
    names = sorted(path.name for path in results.iterdir() if path.is_dir())
    if not names:
        raise DataError(f"{results}: has no folder of a sequence")
    sequences = davis.open_davis(data, names=names)
    total = sum(len(footage.labels) for footage in sequences)
    tally, done = VideoTally(), 0
    for footage in sequences:
        answers = []
        for index, name in enumerate(footage.labels.names):
            path = results / footage.name / f"{name}.png"
            inner = 0 < index < len(footage.labels) - 1
            answers.append(_result(path, footage) if inner else footage.labels[index])
            done += 1
            on_frame(done, total)
        _add(tally, footage, answers)
    return tally.scores()


def is_results(folder: Path) -> bool:
    """Whether a folder holds results of sequences, and not a model."""
    return (
        folder.is_dir()
        and not (folder / "model.toml").exists()
        and next(folder.glob("*/*.png"), None) is not None
    )


def _result(path: Path, footage: Footage) -> Numbers:
    """Numbers in somebody's PNG; grey with 0 and 255 only is the one object."""
    found, painted_ = read_numbers(path)
    if not painted_ and not davis.numbers(found):
        found = np.asarray(found == VOID, np.uint8)
    if strange := set(davis.numbers(found)) - set(footage.objects()):
        raise DataError(
            f"{path}: has object {min(strange)}; "
            f"the first frame of {footage.name} has {', '.join(map(str, footage.objects()))}"
        )
    return found


def _first(footage: Footage, limit: int | None) -> Footage:
    if limit is None:
        return footage
    return Footage(
        name=footage.name, pictures=footage.pictures[:limit], labels=footage.labels[:limit]
    )


def _add(tally: VideoTally, footage: Footage, answers: Sequence[Numbers]) -> None:
    """Hold the numbers in each frame to the truth, object by object."""
    truth = list(footage.labels)
    for index, (label, answer) in enumerate(zip(truth, answers, strict=True)):
        if label.shape != answer.shape:
            raise DataError(
                f"{footage.name}, frame {footage.labels.names[index]}: the answer has "
                f"{answer.shape[::-1]} px, the truth {label.shape[::-1]} px"
            )
    truth_map, answer_map = np.stack(truth), np.stack(answers)
    void = truth_map == VOID
    for number in footage.objects():
        tally.add(f"{footage.name}_{number}", truth_map == number, answer_map == number, void)


def _write(out: Path, footage: Footage, answers: Sequence[Numbers]) -> None:
    (out / footage.name).mkdir(parents=True, exist_ok=True)
    for name, answer in zip(footage.labels.names, answers, strict=True):
        write_numbers(out / footage.name / f"{name}.png", answer)
    rows = []
    for index in np.linspace(0, len(answers) - 1, min(_SHOWN, len(answers))).astype(int):
        picture, truth = footage.frame(int(index))
        known = np.where(truth == VOID, 0, truth)
        rows.append([painted(picture, known), painted(picture, answers[index])])
    (out / f"{footage.name}.jpg").write_bytes(jpeg(sheet(rows, ["truth", "answer"])))
