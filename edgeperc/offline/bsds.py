"""BSDS500: photographs, each cut into segments by about five people.

    images/train/12003.jpg
    groundTruth/train/12003.mat      cells of struct with `Segmentation`, (H, W) uint16 from 1

Also read below a folder `data`, as the published archive has it. `train` is for training, HELD_OUT
for evaluation only. Source: Arbeláez et al., Contour Detection and Hierarchical Image
Segmentation, PAMI 2011.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeperc.drivers.formats.pictures import read_picture
from edgeperc.errors import DataError
from edgeperc.offline.shelf import Shelf, same_size, stems

Split: TypeAlias = Literal["train", "val", "test"]
HELD_OUT: Split = "val"
"""Nothing learns from these photographs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmented:
    """picture: (H, W, 3) uint8 RGB. maps: one (H, W) uint16 a person, segments from 1."""

    name: str
    picture: NDArray[np.uint8]
    maps: tuple[NDArray[np.uint16], ...]


def open_bsds(folder: Path, *, split: Split) -> Shelf[Segmented]:
    """The photographs of one split by name. Raises DataError where a file is missing or damaged."""
    root = folder / "data" if (folder / "data" / "images").is_dir() else folder
    pictures, truths = root / "images" / split, root / "groundTruth" / split

    def read(name: str) -> Segmented:
        picture = read_picture(pictures / f"{name}.jpg")
        path = truths / f"{name}.mat"
        maps = read_segmentations(path)
        for each in maps:
            same_size(path, each, picture)
        return Segmented(name=name, picture=picture, maps=maps)

    return Shelf(stems(pictures, ".jpg"), read)


def read_segmentations(path: Path) -> tuple[NDArray[np.uint16], ...]:
    """All people's segment maps of one groundTruth file. Raises DataError."""
    import scipy.io

    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        cells: Any = scipy.io.loadmat(path)["groundTruth"]
        maps = tuple(np.asarray(cell["Segmentation"][0, 0]) for cell in cells.flat)
    except Exception as error:  # damaged files make scipy raise whatever comes to hand
        raise DataError(f"{path}: no segmentations of BSDS: {error}") from error
    if not maps or any(m.ndim != 2 or m.dtype.kind not in "iu" for m in maps):
        raise DataError(f"{path}: has no segment maps")
    return tuple(m.astype(np.uint16) for m in maps)
