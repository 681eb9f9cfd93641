"""DSEC's pictures in the undistorted pixels of the left event camera, where its labels lie.

    …/zurich_city_13_a…/images/left/ev_inf/000000.png        aligned already (640 × 480)
    …/zurich_city_13_a…/images/left/rectified/000000.png     as published (1440 × 1080), and
    …/zurich_city_13_a…/calibration/cam_to_cam.yaml          where both cameras look
    …/zurich_city_13_a…/images/timestamps.txt                µs, a line a picture, may be missing

The two cameras stand side by side. Pictures are turned into the event camera's view as if all were
far away; a thing at 5 m is off by some pixels, and that is what everybody trains and scores on.
Label k is of picture k, whose middle of exposure is the label's time.
Sources: dsec.ifi.uzh.ch, uzh-rpg/DSEC (its issue 25 for the alignment), the layout of EISNet.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from edgeperc.drivers.formats.pictures import read_picture
from edgeperc.errors import DataError
from edgeperc.packet import Frame, Stamp

WIDTH_PX, HEIGHT_PX = 640, 480
ALIGNED, RECTIFIED = "ev_inf", "rectified"
CLOSE_US = 1_000
"""A label and its picture are of the same instant, but for rounding."""


def find_pictures(root: Path, name: str) -> Path | None:
    """The folder of a sequence's left pictures, aligned ones first; None if there is none."""
    for kind in (ALIGNED, RECTIFIED):
        for folder in sorted(root.rglob(kind)):
            parts = folder.relative_to(root.parent).parts
            if any(part.startswith(name) for part in parts) and "right" not in parts:
                return folder
    return None


def frame_of(folder: Path, label: int, label_us: int) -> Frame:
    """The picture of a label, (480, 640, 3) RGB, stamped with the label's time.

    Raises DataError for a picture that is missing, damaged, of another time or without calibration.
    """
    _check_time(folder, label, label_us)
    path = folder / f"{label:06d}.png"
    image = read_picture(path)
    if folder.name == RECTIFIED:
        places = _places(_calibration(folder))
        image = np.asarray(cv2.remap(image, places, None, cv2.INTER_CUBIC), np.uint8)  # type: ignore[call-overload]
    if image.shape[:2] != (HEIGHT_PX, WIDTH_PX):
        raise DataError(f"{path}: {image.shape[1]} × {image.shape[0]} px, not 640 × 480")
    stamp = Stamp(source=str(folder), seq=label, start_ns=1000 * label_us, end_ns=1000 * label_us)
    return Frame(stamp=stamp, image=image)


def homography(calibration: Path) -> NDArray[np.float64]:
    """(3, 3): from undistorted pixels of the left event camera to those of the left picture.

    For things far away: both cameras' intrinsics, and the rotation between them. Raises DataError.
    """
    try:
        table: Any = YAML(typ="safe", pure=True).load(calibration)
        inner, outer = table["intrinsics"], table["extrinsics"]
        events, picture = (_matrix(inner[c]["camera_matrix"]) for c in ("camRect0", "camRect1"))
        to_picture = np.array(outer["T_10"], np.float64)[:3, :3]
        undistort_events = np.array(outer["R_rect0"], np.float64)
        undistort_picture = np.array(outer["R_rect1"], np.float64)
        turn = undistort_picture @ to_picture @ undistort_events.T
        return np.asarray(picture @ turn @ np.linalg.inv(events))
    except (OSError, YAMLError, KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(f"{calibration}: no calibration of DSEC's cameras: {error}") from error


@lru_cache(maxsize=2)
def _places(calibration: Path) -> NDArray[np.float32]:
    """For each pixel of the event camera its place in the picture, (480, 640, 2)."""
    columns, rows = np.meshgrid(np.arange(WIDTH_PX), np.arange(HEIGHT_PX))
    pixels = np.stack([columns, rows, np.ones_like(rows)], axis=-1)
    seen = pixels @ homography(calibration).T
    return np.asarray(seen[..., :2] / seen[..., 2:], np.float32)


def _calibration(folder: Path) -> Path:
    """cam_to_cam.yaml of the pictures' sequence, looked for upwards."""
    name = Path("calibration", "cam_to_cam.yaml")
    sequence = folder.parents[2].name.removesuffix("_images_rectified_left")
    for above in folder.parents[2:4]:
        for place in (above / name, above / f"{sequence}_calibration" / name.name):
            if place.is_file():
                return place
    raise DataError(
        f"{folder}: no {name} beside its images",
        hint="unpack the sequence's calibration.zip there, or align the pictures into ev_inf",
    )


def _check_time(folder: Path, label: int, label_us: int) -> None:
    times = _times(folder)
    if times is None:
        return
    if label >= len(times):
        raise DataError(f"{folder}: has {len(times)} pictures by its times, and no picture {label}")
    if abs(int(times[label]) - label_us) > CLOSE_US:
        raise DataError(
            f"{folder}: picture {label} is of {times[label]} µs, its label of {label_us} µs",
            hint="frames and labels are of different sequences, or of different clocks",
        )


@lru_cache(maxsize=4)
def _times(folder: Path) -> NDArray[np.int64] | None:
    for path in (folder.parent / "timestamps.txt", folder.parent.parent / "timestamps.txt"):
        if path.is_file():
            try:
                return np.atleast_1d(np.loadtxt(path, dtype=np.int64, usecols=0))
            except ValueError as error:
                raise DataError(f"{path}: {error}") from error
    return None


def _matrix(four: Any) -> NDArray[np.float64]:
    """fx, fy, cx, cy to a camera matrix."""
    fx, fy, cx, cy = (float(value) for value in four)
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
