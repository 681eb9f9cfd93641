"""CamVid in the form of the SegNet tutorial: street pictures and a class for each pixel.

    train/0001TP_006690.jpg      trainannot/0001TP_006690.png     8 bits, 0 to 10, 11 = void
    val/…                        valannot/…

`train` is for training. `val`, 101 consecutive pictures of one drive at 15 Hz, is HELD_OUT and, in
order, a video. Source: Brostow et al., Semantic Object Classes in Video, 2008;
alexgkendall/SegNet-Tutorial for the order of the classes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeperc.drivers.formats.pictures import read_picture
from edgeperc.errors import DataError
from edgeperc.offline.samples import IGNORE
from edgeperc.offline.shelf import Shelf, read_grey, same_size, stems

Split: TypeAlias = Literal["train", "val", "test"]
HELD_OUT: Split = "val"
"""Nothing learns from these pictures."""
CLASSES = (
    *("sky", "building", "pole", "road", "pavement", "tree"),
    *("sign", "fence", "car", "pedestrian", "bicyclist"),
)
RATE_HZ = 15.0
"""Of the pictures in `val`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """picture: (H, W, 3) uint8 RGB. labels: (H, W) uint8 into CLASSES, IGNORE where void."""

    name: str
    picture: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def open_camvid(folder: Path, *, split: Split) -> Shelf[Labelled]:
    """The pictures of one split in the order of their names, which is that of time.

    Raises DataError where a file is missing, damaged, or has labels that CLASSES has not.
    """
    pictures, truths = folder / split, folder / f"{split}annot"
    suffixes = {path.stem: path.suffix for path in pictures.glob("*")}

    def read(name: str) -> Labelled:
        picture = read_picture(pictures / f"{name}{suffixes[name]}")
        path = truths / f"{name}.png"
        labels = read_grey(path)
        same_size(path, labels, picture)
        labels = np.where(labels == len(CLASSES), np.uint8(IGNORE), labels)
        if (wrong := labels[(labels >= len(CLASSES)) & (labels != IGNORE)]).size:
            raise DataError(f"{path}: has class {wrong[0]}, there are 0 to 10 and 11 for void")
        return Labelled(name=name, picture=picture, labels=labels)

    return Shelf(stems(pictures, ".jpg", ".png"), read)


def components(labels: NDArray[np.uint8], void: Collection[int] = (IGNORE,)) -> NDArray[np.int32]:
    """Connected components (8 neighbours) of a class map (H, W), from 1; 0 where it is void."""
    numbered = np.zeros(labels.shape, np.int32)
    count = 0
    for label in np.unique(labels):
        if label not in void:
            found, parts = cv2.connectedComponents((labels == label).astype(np.uint8))
            numbered[parts > 0] = parts[parts > 0] + count
            count += found - 1
    return numbered
