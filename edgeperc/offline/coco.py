"""Pictures with boxes and masks in a COCO json, as detectors and segmenters are scored on.

    truth = open_coco(Path("instances_val2017.json"))
    for picture in truth.pictures: picture.boxes, picture.masks(), picture.read()

A picture is looked for beside the json, in `images` there, and in folders beside and above it that
are named as the json's last word (`instances_val2017.json`: `val2017`). A file whose name only
ends in the picture's name will do if it is the only one.
Source: cocodataset.org, format of data; cocoapi's maskApi.c for how polygons become pixels.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeperc import masks as run_lengths
from edgeperc.drivers.formats.pictures import read_picture
from edgeperc.errors import DataError
from edgeperc.masks import Rle

_FINER = 5
"""Polygons are drawn on a grid so much finer than the pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoPicture:
    """One picture's truth. N objects, M of them with a mask if all have one.

    boxes: (N, 4) float32 xyxy px. class_ids: (N,) int64 into the classes. areas: (N,) px² as
    stated. crowd: (N,) bool, many things in one.
    """

    name: str
    width_px: int
    height_px: int
    boxes: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    segmentations: tuple[Any, ...] = field(repr=False)
    json_path: Path

    def read(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB. Raises DataError if it is missing, damaged or of another size."""
        path = _found(self.json_path, self.name)
        picture = read_picture(path)
        if picture.shape[:2] != (self.height_px, self.width_px):
            height, width = picture.shape[:2]
            raise DataError(
                f"{path}: {width} × {height} px, the json says {self.width_px} × {self.height_px}"
            )
        return picture

    @property
    def has_masks(self) -> bool:
        """Whether every object has one."""
        return all(self.segmentations)

    def masks(self) -> tuple[Rle, ...]:
        """The objects' masks. Raises DataError for one that cannot be read."""
        return tuple(self._mask(segmentation) for segmentation in self.segmentations)

    def _mask(self, segmentation: Any) -> Rle:
        if isinstance(segmentation, list):
            try:
                polygons = [np.asarray(p, np.float64).reshape(-1, 2) for p in segmentation]
            except (TypeError, ValueError):
                raise DataError(f"{self.name}: a segmentation is no list of polygons") from None
            return run_lengths.encode(drawn(polygons, self.height_px, self.width_px))
        return run_lengths.from_coco(segmentation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coco:
    """classes: names in the order of their ids in the file. pictures: in the order of the file."""

    classes: tuple[str, ...]
    pictures: tuple[CocoPicture, ...]

    @property
    def has_masks(self) -> bool:
        """Whether every object of every picture has a mask."""
        return all(picture.has_masks for picture in self.pictures)


def open_coco(path: Path) -> Coco:
    """Read a COCO json. Raises DataError that names what is missing or wrong in it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path}: no JSON: {error}") from error
    try:
        categories = sorted(content["categories"], key=lambda c: c["id"])
        place = {category["id"]: k for k, category in enumerate(categories)}
        objects: dict[Any, list[Any]] = {entry["id"]: [] for entry in content["images"]}
        for annotation in content["annotations"]:
            objects[annotation["image_id"]].append(annotation)
        return Coco(
            classes=tuple(str(category["name"]) for category in categories),
            pictures=tuple(
                _picture(entry, objects[entry["id"]], place, path) for entry in content["images"]
            ),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(f"{path}: not a COCO json: {type(error).__name__} {error}") from error


def drawn(
    polygons: Sequence[NDArray[np.float64]], height_px: int, width_px: int
) -> NDArray[np.bool_]:
    """The (H, W) mask of polygons (N, 2) xy px, the same pixels as pycocotools gives."""
    mask = np.zeros((height_px, width_px), np.bool_)
    for polygon in polygons:
        if len(polygon):
            mask |= _drawn_one(polygon, height_px, width_px)
    return mask


def _drawn_one(polygon: NDArray[np.float64], height_px: int, width_px: int) -> NDArray[np.bool_]:
    """Walk around on the fine grid; where the walk enters another column of pixels, all pixels
    below in reading order of columns change sides.
    """
    corners = (polygon * _FINER + 0.5).astype(np.int64)  # towards 0, as C does
    ends = np.roll(corners, -1, axis=0)
    walk = np.concatenate([_line(*pair) for pair in zip(corners, ends, strict=True)])
    before, after = walk[:-1], walk[1:]
    turned = before[:, 0] != after[:, 0]
    before, after = before[turned], after[turned]
    column = np.where(after[:, 0] < before[:, 0], after[:, 0], after[:, 0] - 1)
    x = (column + 0.5) / _FINER - 0.5
    y = np.ceil(np.clip((np.minimum(before, after)[:, 1] + 0.5) / _FINER - 0.5, 0, height_px))
    inside = (np.floor(x) == x) & (x >= 0) & (x <= width_px - 1)
    places = (x[inside] * height_px + y[inside]).astype(np.int64)
    flips = np.bincount(places, minlength=height_px * width_px + 1)[: height_px * width_px]
    return np.ascontiguousarray((np.cumsum(flips) % 2 == 1).reshape(width_px, height_px).T)


def _line(start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
    """Points (N, 2) from start to end, a step each along the longer axis."""
    run = np.abs(end - start)
    long = 0 if run[0] >= run[1] else 1
    flipped = start[long] > end[long]
    first, last = (end, start) if flipped else (start, end)
    steps = np.arange(run[long] + 1)
    slope = (last[1 - long] - first[1 - long]) / run[long] if run[long] else 0.0
    line = np.empty((len(steps), 2), np.int64)
    line[:, long] = first[long] + steps
    line[:, 1 - long] = (first[1 - long] + slope * steps + 0.5).astype(np.int64)
    return line[::-1] if flipped else line


def _picture(
    entry: Mapping[str, Any], objects: Sequence[Any], place: Mapping[Any, int], path: Path
) -> CocoPicture:
    boxes = np.array([each["bbox"] for each in objects], np.float64).reshape(-1, 4)
    areas = [each.get("area", box[2] * box[3]) for each, box in zip(objects, boxes, strict=True)]
    boxes[:, 2:] += boxes[:, :2]
    return CocoPicture(
        name=str(entry["file_name"]),
        width_px=int(entry["width"]),
        height_px=int(entry["height"]),
        boxes=boxes.astype(np.float32),
        class_ids=np.array([place[each["category_id"]] for each in objects], np.int64),
        areas=np.array(areas, np.float64),
        crowd=np.array([bool(each.get("iscrowd")) for each in objects], np.bool_),
        segmentations=tuple(each.get("segmentation") for each in objects),
        json_path=path,
    )


def _found(json_path: Path, name: str) -> Path:
    """Where a picture of the json lies. Raises DataError that names the folders looked in."""
    here, word = json_path.parent, json_path.stem.rsplit("_", 1)[-1]
    folders = [here, here / "images", here / word, here.parent / word, here.parent / "images"]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    last = Path(name).name
    alike = [path for path in sorted(here.glob(f"*{glob.escape(last)}")) if path.is_file()]
    if len(alike) == 1:
        return alike[0]
    looked = ", ".join(str(folder) for folder in folders if folder.is_dir())
    raise DataError(f"{json_path}: its picture {name} is not in {looked}")
