"""Pictures with the objects that one may ask for in them, from any of the data sets here.

for example in OPENERS["bsds500"](folder, "test"):
    example.picture, example.maps
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeperc.offline import bsds, camvid, davis
from edgeperc.offline.shelf import Shelf

Split: TypeAlias = Literal["train", "valid", "test", "all"]
"""`valid` and `test` are the same: what nothing learns from."""
VOID_NUMBER = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One picture. maps: (H, W) int32 of numbers each; 0 is nothing, VOID_NUMBER is not known."""

    name: str
    picture: NDArray[np.uint8]
    maps: tuple[NDArray[np.int32], ...]


def _of_bsds(path: Path, split: Split) -> Shelf[Example]:
    parts: dict[str, tuple[bsds.Split, ...]] = {
        "train": ("train",),
        "all": ("train", bsds.HELD_OUT),
    }
    shelves = [bsds.open_bsds(path, split=part) for part in parts.get(split, (bsds.HELD_OUT,))]

    def example(sample: bsds.Segmented) -> Example:
        maps = tuple(each.astype(np.int32) for each in sample.maps)
        return Example(name=sample.name, picture=sample.picture, maps=maps)

    return _joined([(shelf, example) for shelf in shelves])


def _of_camvid(path: Path, split: Split) -> Shelf[Example]:
    parts: dict[str, tuple[camvid.Split, ...]] = {
        "train": ("train",),
        "all": ("train", camvid.HELD_OUT),
    }
    shelves = [
        camvid.open_camvid(path, split=part) for part in parts.get(split, (camvid.HELD_OUT,))
    ]

    def example(sample: camvid.Labelled) -> Example:
        segments = camvid.components(sample.labels)
        return Example(name=sample.name, picture=sample.picture, maps=(segments,))

    return _joined([(shelf, example) for shelf in shelves])


def _of_davis_frames(path: Path, split: Split) -> Shelf[Example]:
    sequences = davis.open_davis(path, split=split_of_davis(split))
    places = {
        f"{footage.name}-{name}": (footage, index)
        for footage in sequences
        for index, name in enumerate(footage.labels.names)
    }

    def read(name: str) -> Example:
        footage, index = places[name]
        picture, labels = footage.frame(index)
        known = np.where(labels == davis.VOID, np.int32(VOID_NUMBER), labels)
        return Example(name=name, picture=picture, maps=(known,))

    return Shelf(tuple(places), read)


OPENERS: dict[str, Callable[[Path, Split], Shelf[Example]]] = {
    "bsds500": _of_bsds,
    "camvid": _of_camvid,
    "davis-frames": _of_davis_frames,
}


def _joined(shelves: Sequence[tuple[Shelf[Any], Callable[[Any], Example]]]) -> Shelf[Example]:
    places = {
        name: (shelf, index, example)
        for shelf, example in shelves
        for index, name in enumerate(shelf.names)
    }

    def read(name: str) -> Example:
        shelf, index, example = places[name]
        return example(shelf[index])

    return Shelf(tuple(places), read)


def split_of_davis(split: Split) -> davis.Split:
    """The name that `edgeperc.offline.davis` has for a part."""
    return "held-out" if split in ("valid", "test") else "all" if split == "all" else "train"
