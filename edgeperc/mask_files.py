"""Masks in files: a COCO json, pictures of numbers as DAVIS has them, outlines, black and white."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from edgeperc import masks
from edgeperc.errors import ConfigError, DataError
from edgeperc.palette import write_numbers
from edgeperc.plain import instances
from edgeperc.result import Instances

MOST_NUMBERS = 254
"""Objects that one picture of numbers can tell apart; 0 is none, and 255 is void."""


class CocoFile:
    """Annotations of frame after frame in a COCO json, written as they come.

    Images have an id, file_name and size; annotations the object's id as track_id, its mask as
    compressed run lengths, area, bbox, score, and visible. Raises ConfigError if it cannot be
    written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._images: list[dict[str, Any]] = []
        self._categories: dict[str, int] = {}
        self._count = 0
        try:
            self._file: TextIO = path.open("w", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
        self._file.write('{"annotations": [')

    def write(self, found: Instances, name: str) -> None:
        """Add a frame; objects without a pixel have no annotation in it."""
        width_px, height_px = found.picture_px
        number = len(self._images) + 1
        self._images.append(
            {"id": number, "file_name": name, "width": width_px, "height": height_px}
        )
        for index, each in enumerate(instances(found)):
            area = masks.area(found.masks[index])
            if not area:
                continue
            x0, y0, x1, y1 = each["box"]
            category = self._categories.setdefault(
                each.get("class") or "object", len(self._categories) + 1
            )
            annotation = {
                "id": self._count + 1,
                "image_id": number,
                "category_id": category,
                "track_id": each["id"],
                "segmentation": each["mask"],
                "area": area,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "iscrowd": 0,
                "score": round(each["score"], 4),
                "visible": round(each["visible"], 4),
            }
            self._file.write((",\n" if self._count else "\n") + json.dumps(annotation))
            self._count += 1

    def close(self) -> None:
        """Finish the file; may be called twice."""
        if not self._file.closed:
            names = [{"id": n, "name": name} for name, n in self._categories.items()]
            rest = {"images": self._images, "categories": names}
            self._file.write("\n],\n" + json.dumps(rest)[1:] + "\n")
            self._file.close()


class NumberFolder:
    """A picture of object numbers a frame, with a palette, in a folder that is new or empty.

    Raises ConfigError if the folder cannot be used, DataError for an id that a picture cannot hold.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder
        try:
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise ConfigError(f"{folder}: is not an empty folder", hint="name a new one")
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{folder}: cannot be written: {error.strerror}") from error

    def write(self, found: Instances, name: str) -> None:
        """Add the picture of a frame, `<name>.png`."""
        write_numbers(self.path / f"{Path(name).stem}.png", numbers(found))

    def close(self) -> None:
        """Nothing waits."""


def numbers(found: Instances) -> NDArray[np.uint8]:
    """The id of the object at each pixel, (H, W) uint8, 0 where is none; later ones lie above.

    Raises DataError for ids beyond 1 to 254.
    """
    width_px, height_px = found.picture_px
    picture = np.zeros((height_px, width_px), np.uint8)
    for object_id, mask in zip(found.ids.tolist(), found.masks, strict=True):
        if not 1 <= object_id <= MOST_NUMBERS:
            raise DataError(
                f"object {object_id}: a picture holds numbers from 1 to {MOST_NUMBERS}",
                hint="number the objects lower, or write a COCO json",
            )
        picture[masks.decode(mask)] = object_id
    return picture


def outlines(found: Instances, *, tolerance_px: float) -> list[dict[str, Any]]:
    """The objects in JSON types, with polygons, each an outline and its holes, for masks."""
    objects = instances(found)
    for each, mask in zip(objects, found.masks, strict=True):
        del each["mask"]
        each["polygons"] = [
            {
                "outline": part.outline.tolist(),
                "holes": [hole.tolist() for hole in part.holes],
            }
            for part in masks.polygons(mask, tolerance_px=tolerance_px)
        ]
    return objects
