"""DAVIS: videos with the objects of every frame, one object (2016) or several (2017).

    JPEGImages/480p/dog/00000.jpg          or without `480p`
    Annotations/480p/dog/00000.png         palette: number of the object, 0 none, 255 void
                                           grey: 0 and 255, one object

Sources: Perazzi et al., CVPR 2016; Pont-Tuset et al., arXiv 1704.00675.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeperc.drivers.formats.pictures import read_picture
from edgeperc.errors import DataError
from edgeperc.offline.shelf import Shelf, same_size, stems
from edgeperc.palette import read_numbers

Split: TypeAlias = Literal["train", "held-out", "all"]
HELD_OUT = ("dog", "car-shadow", "breakdance")
"""Nothing learns from these: an animal, a vehicle with a shadow that moves along, and a person who
changes shape among people; of each there is something akin among the other sequences. All three
are in the validation set of DAVIS, so the published figures of others are about unseen videos too.
"""
VOID = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Footage:
    """One sequence. pictures: (H, W, 3) uint8 RGB. labels: (H, W) uint8 of the same names.

    Labels are 0 where nothing is, the numbers of objects from 1, VOID where nobody should ask.
    """

    name: str
    pictures: Shelf[NDArray[np.uint8]]
    labels: Shelf[NDArray[np.uint8]]

    def frame(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Picture and labels of one frame. Raises DataError if their sizes differ."""
        picture, labels = self.pictures[index], self.labels[index]
        same_size(Path(self.name, f"{self.labels.names[index]}.png"), labels, picture)
        return picture, labels

    def objects(self) -> tuple[int, ...]:
        """Numbers of the objects in the first frame: the published task is to follow these."""
        return numbers(self.labels[0])


def open_davis(
    folder: Path, *, split: Split = "all", names: Sequence[str] | None = None
) -> tuple[Footage, ...]:
    """The sequences of a split in order of their names, or those of `names`.

    Raises DataError for a sequence that is missing, a frame without annotation, a damaged file.
    """
    pictures, truths = _below(folder, "JPEGImages"), _below(folder, "Annotations")
    there = sorted(path.name for path in truths.iterdir() if path.is_dir())
    if names is None:
        names = [n for n in there if split == "all" or (n in HELD_OUT) == (split == "held-out")]
        if not names:
            raise DataError(f"{truths}: has no sequence of the split '{split}'")
    if missing := [name for name in names if name not in there]:
        raise DataError(f"{truths}: has no sequence {', '.join(missing)}")
    return tuple(_footage(name, pictures / name, truths / name) for name in names)


def numbers(labels: NDArray[np.uint8]) -> tuple[int, ...]:
    """Objects in a label map, neither 0 nor VOID."""
    return tuple(int(n) for n in np.unique(labels) if n not in (0, VOID))


def is_davis(folder: Path) -> bool:
    """Whether a folder looks like DAVIS."""
    return (folder / "Annotations").is_dir() and (folder / "JPEGImages").is_dir()


def _below(folder: Path, kind: str) -> Path:
    found = folder / kind
    if not found.is_dir():
        raise DataError(f"{folder}: not DAVIS, there is no folder {kind}")
    return found / "480p" if (found / "480p").is_dir() else found


def _footage(name: str, pictures: Path, truths: Path) -> Footage:
    frames = stems(pictures, ".jpg")
    annotated = set(stems(truths, ".png"))
    if bare := [frame for frame in frames if frame not in annotated]:
        raise DataError(f"{truths / bare[0]}.png: missing, its picture is there")
    return Footage(
        name=name,
        pictures=Shelf(frames, lambda frame: read_picture(pictures / f"{frame}.jpg")),
        labels=Shelf(frames, partial(_labels, truths, frames[0])),
    )


def _labels(truths: Path, first: str, frame: str) -> NDArray[np.uint8]:
    """One annotation; a sequence whose first one is grey with 0 and 255 only has one object."""
    path = truths / f"{frame}.png"
    labels, painted = read_numbers(path)
    start, _ = (labels, painted) if frame == first else read_numbers(truths / f"{first}.png")
    if start.shape != labels.shape:
        raise DataError(f"{path}: {labels.shape[::-1]} px, the first frame {start.shape[::-1]} px")
    if not painted and not numbers(start):
        return np.asarray(labels == VOID, np.uint8)
    return labels
