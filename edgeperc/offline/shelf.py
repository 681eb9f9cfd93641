"""Data sets of pictures: things in a fixed order that are read from disk when they are asked for.

shelf = open_bsds(folder, split="train")     # or any other opener
shelf[3].picture                             # read now
shelf.thinned(20)                            # twenty of them, spread evenly
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeperc.errors import DataError

T = TypeVar("T")


class Shelf(Sequence[T], Generic[T]):
    """One thing for each of `names`, made by read(name). Nothing is kept, a slice is a shelf."""

    def __init__(self, names: Sequence[str], read: Callable[[str], T]) -> None:
        self.names, self._read = tuple(names), read

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Shelf[T]: ...
    def __getitem__(self, index: int | slice) -> T | Shelf[T]:
        if isinstance(index, slice):
            return Shelf(self.names[index], self._read)
        return self._read(self.names[index])

    def thinned(self, limit: int | None) -> Shelf[T]:
        """At most `limit` of them, spread evenly, in the same order."""
        if limit is None or limit >= len(self):
            return self
        chosen = np.linspace(0, len(self) - 1, limit).round().astype(int)
        return Shelf([self.names[i] for i in chosen], self._read)


def stems(folder: Path, *suffixes: str) -> tuple[str, ...]:
    """Names without suffix of a folder's files of these kinds, sorted.

    Raises DataError if the folder is missing or has none of them.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    found = sorted(path.stem for path in folder.iterdir() if path.suffix.lower() in suffixes)
    if not found:
        raise DataError(f"{folder}: has no {' or '.join(suffixes)} files")
    return tuple(found)


def read_grey(path: Path) -> NDArray[np.uint8]:
    """(H, W) uint8 as stored, of a file that has one channel of 8 bits. Raises DataError."""
    pixels: Any = _decoded(path)
    if pixels.ndim != 2 or pixels.dtype != np.uint8:
        raise DataError(f"{path}: not one channel of 8 bits")
    return np.asarray(pixels)


def same_size(path: Path, labels: NDArray[Any], picture: NDArray[Any]) -> None:
    """Raises DataError if what was read from `path` does not lie on the picture."""
    if labels.shape != picture.shape[:2]:
        (height, width), (high, wide) = labels.shape[:2], picture.shape[:2]
        raise DataError(f"{path}: {width} × {height} px, its picture has {wide} × {high} px")


def _decoded(path: Path) -> Any:
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    pixels: Any = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
    if pixels is None:
        raise DataError(f"{path}: not a picture, or a damaged one")
    return pixels
