"""Masks as COCO's compressed run lengths, and what can be said about them without unpacking.

rle = masks.encode(mask)          # (H, W) bool -> the very bytes that pycocotools gives
masks.area(rle), masks.box(rle), masks.iou(rle, other)
mask = masks.decode(rle)

Runs go down the columns, the left one first, and begin with the pixels that are off. The third run
and those behind it are written as differences to the one two before, in groups of five bits, each a
printable character. Source: COCO's public mask format (the C code of cocoapi); own code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeperc.errors import DataError

MAX_PIXELS = 1 << 28
"""A mask that claims more is damaged; nothing is allocated for it."""

_BITS, _MORE, _SIGN, _FIRST = 5, 0x20, 0x10, 48
_MOST_GROUPS = 7  # 35 bits hold any run of a mask, and its negative


@dataclass(frozen=True, slots=True)
class Rle:
    """The mask of one object. counts: COCO's compressed string; sizes in px of the picture."""

    counts: bytes
    height_px: int
    width_px: int


@dataclass(frozen=True, slots=True)
class Polygon:
    """One connected part of a mask. Outlines (N, 2) int32 x, y of pixel corners, not closed.

    The outline turns the other way round than its holes do.
    """

    outline: NDArray[np.int32]
    holes: tuple[NDArray[np.int32], ...] = ()


def encode(mask: NDArray[Any]) -> Rle:
    """Pack a mask, (H, W) bool or of numbers, where all but 0 is on."""
    if mask.ndim != 2:
        raise ValueError(f"mask: shape {mask.shape}, expected (H, W)")
    height, width = mask.shape
    if mask.size == 0:
        return pack(np.zeros(1, np.int64), height_px=height, width_px=width)
    on = np.asarray(mask if mask.dtype == np.bool_ else mask != 0)
    columns = cv2.transpose(on.view(np.uint8)).ravel()
    edges = np.flatnonzero(columns[1:] != columns[:-1]) + 1
    start = [0, 0] if columns[0] else [0]
    bounds = np.concatenate((start, edges, [columns.size]))
    return pack(np.diff(bounds), height_px=height, width_px=width)


def decode(rle: Rle) -> NDArray[np.bool_]:
    """Unpack into (H, W) bool. Raises DataError if the runs do not fill the picture exactly."""
    counts = runs(rle)
    if rle.height_px * rle.width_px == 0:
        return np.zeros((rle.height_px, rle.width_px), np.bool_)
    on = (np.arange(counts.size) % 2).astype(np.uint8)
    columns = np.repeat(on, counts).reshape(rle.width_px, rle.height_px)
    mask: NDArray[np.bool_] = np.asarray(cv2.transpose(columns)).view(np.bool_)
    return mask


def pack(counts: NDArray[np.int64], *, height_px: int, width_px: int) -> Rle:
    """An Rle from plain run lengths (N,), off first."""
    values = np.asarray(counts, np.int64).copy()
    values[3:] -= counts[1:-2]
    shifts = _BITS * np.arange(_MOST_GROUPS)
    # What is left above each group: nothing but the sign means that the group is the last one.
    above = values[:, None] >> shifts
    more = (above < -_SIGN) | (above >= _SIGN)
    used = np.concatenate((np.ones((len(values), 1), np.bool_), more[:, :-1]), axis=1)
    groups = (above & (_MORE - 1)) + _FIRST + np.where(more, _MORE, 0)
    return Rle(groups[used].astype(np.uint8).tobytes(), height_px, width_px)


def runs(rle: Rle) -> NDArray[np.int64]:
    """Run lengths (N,), off and on in turn, that fill the picture. Raises DataError."""
    size = rle.height_px * rle.width_px
    where = f"mask of {rle.width_px} × {rle.height_px} px"
    if rle.height_px < 0 or rle.width_px < 0 or size > MAX_PIXELS:
        raise DataError(f"{where}: not a size that a mask has")
    groups = np.frombuffer(rle.counts, np.uint8).astype(np.int64) - _FIRST
    if groups.size == 0:
        raise DataError(f"{where}: its run lengths are empty")
    if groups.min() < 0 or groups.max() >= 2 * _MORE:
        raise DataError(f"{where}: a character that run lengths do not have")
    ends = np.flatnonzero(groups < _MORE)
    if ends.size == 0 or ends[-1] != groups.size - 1:
        raise DataError(f"{where}: its run lengths end inside a number")
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends + 1 - starts
    if lengths.max() > _MOST_GROUPS:
        raise DataError(f"{where}: a run length of more than {_BITS * _MOST_GROUPS} bits")
    places = np.arange(groups.size) - np.repeat(starts, lengths)
    values = np.add.reduceat((groups & (_MORE - 1)) << (_BITS * places), starts)
    values -= np.where(groups[ends] & _SIGN, 1 << (_BITS * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    if values.min() < 0 or values.max() > size or values.sum() != size:
        raise DataError(f"{where}: its run lengths do not fill it")
    return values


def area(rle: Rle) -> int:
    """Pixels that are on. Raises DataError, as all below, if the mask is damaged."""
    return int(runs(rle)[1::2].sum())


def box(rle: Rle) -> NDArray[np.float32]:
    """The smallest box, (4,) float32 xyxy px with the right and lower edge outside; 0 if none."""
    counts = runs(rle)
    bounds = np.cumsum(counts)
    first, last = bounds[:-1:2], bounds[1::2] - 1  # pixels of the runs that are on
    there = last >= first
    if not there.any():
        return np.zeros(4, np.float32)
    first, last = first[there], last[there]
    left, right = first[0] // rle.height_px, last[-1] // rle.height_px
    top, bottom = first % rle.height_px, last % rle.height_px
    if (first // rle.height_px != last // rle.height_px).any():  # from one column into the next
        over = np.array([0]), np.array([rle.height_px - 1])
        top, bottom = np.append(top, over[0]), np.append(bottom, over[1])
    return np.array([left, top.min(), right + 1, bottom.max() + 1], np.float32)


def iou(one: Rle, other: Rle) -> float:
    """Shared pixels over all pixels of two masks; 0 if both are empty.

    Raises ValueError if they are of pictures of different sizes.
    """
    sizes = {(each.height_px, each.width_px) for each in (one, other)}
    if len(sizes) > 1:
        raise ValueError(f"masks of different sizes have no overlap: {sorted(sizes)}")
    ends = [np.cumsum(runs(each)) for each in (one, other)]
    bounds = np.unique(np.concatenate(([0], *ends)))
    lengths = np.diff(bounds)
    on = [np.searchsorted(each, bounds[:-1], side="right") % 2 == 1 for each in ends]
    shared, either = lengths[on[0] & on[1]].sum(), lengths[on[0] | on[1]].sum()
    return float(shared / either) if either else 0.0


def polygons(rle: Rle, *, tolerance_px: float = 0.0) -> tuple[Polygon, ...]:
    """Outlines of the connected parts, those that touch at a corner taken together, with holes.

    They run along the pixels' edges, so that their area is the mask's, unless `tolerance_px`
    lets them leave it that far to need fewer corners.
    """
    left, top, right, bottom = (int(edge) for edge in box(rle))
    if right == left:
        return ()
    # Seen at twice the size, an outline through the centres of pixels is one along their edges.
    inside = decode(rle)[top:bottom, left:right].view(np.uint8)
    twice = np.repeat(np.repeat(inside, 2, axis=0), 2, axis=1)
    found, tree = cv2.findContours(twice, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    lines = [_corners(line, tolerance_px) + np.array([left, top], np.int32) for line in found]
    holes: dict[int, list[NDArray[np.int32]]] = {}
    parents = np.asarray(tree).reshape(-1, 4)[:, 3].tolist()
    for line, parent in zip(lines, parents, strict=True):
        if parent >= 0 and len(line) > 2:
            holes.setdefault(parent, []).append(line)
    return tuple(
        Polygon(line, tuple(holes.get(index, ())))
        for index, (line, parent) in enumerate(zip(lines, parents, strict=True))
        if parent < 0 and len(line) > 2
    )


def png(rle: Rle) -> bytes:
    """A grey PNG, 255 where the mask is on."""
    encoded, data = cv2.imencode(".png", decode(rle).view(np.uint8) * 255)
    if not encoded:
        raise DataError(f"mask of {rle.width_px} × {rle.height_px} px: cannot be a PNG")
    return data.tobytes()


def to_coco(rle: Rle) -> dict[str, Any]:
    """The `segmentation` of a COCO annotation, in JSON types."""
    return {"size": [rle.height_px, rle.width_px], "counts": rle.counts.decode("ascii")}


def from_coco(segmentation: Any) -> Rle:
    """An Rle from JSON: run lengths compressed or as a list. Raises DataError for anything else.

    The polygons that a COCO annotation may have instead need the picture's size and are not read.
    """
    if not isinstance(segmentation, Mapping):
        raise DataError("a mask is an object with size and counts")
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not (isinstance(size, list) and [type(side) for side in size] == [int, int]):
        raise DataError("a mask's size is [height, width]")
    if isinstance(counts, list):
        if not all(type(count) is int and 0 <= count <= MAX_PIXELS for count in counts):
            raise DataError("a mask's counts are lengths of runs")
        rle = pack(np.array(counts or [0], np.int64), height_px=size[0], width_px=size[1])
    elif isinstance(counts, str) and counts.isascii():
        rle = Rle(counts.encode("ascii"), size[0], size[1])
    else:
        raise DataError("a mask's counts are a string or a list")
    runs(rle)
    return rle


def _corners(line: Any, tolerance_px: float) -> NDArray[np.int32]:
    """A contour of the doubled mask, on the corners of the pixels, each corner once."""
    corners = (np.asarray(line, np.int32).reshape(-1, 2) + 1) // 2
    corners = corners[(corners != np.roll(corners, 1, axis=0)).any(axis=1)]
    if tolerance_px > 0 and len(corners):
        corners = np.asarray(cv2.approxPolyDP(corners, tolerance_px, True), np.int32).reshape(-1, 2)
    return corners
