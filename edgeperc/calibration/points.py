"""Correspondences: a pixel of the wide picture, and the gaze that shows the same thing.

In a CSV file, lines that begin with # may tell the size of the pictures: `# wide_px 960 448`.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeperc.calibration.models import Array
from edgeperc.errors import DataError

FEWEST = 20
_COLUMNS = ("u", "v", "pan_deg", "tilt_deg")
_FLATTEST = 0.02


@dataclass(frozen=True, eq=False)
class Points:
    """wide_px (N, 2) px, gaze (N, 2) rad, depth_m (N,) or None where it is not known.

    Raises DataError for values that are not finite.
    """

    wide_px: Array
    gaze: Array
    depth_m: Array | None = None

    def __post_init__(self) -> None:
        _check_finite(self)

    def check(self) -> None:
        """Raises DataError for fewer than 20 different points, or points along a line."""
        different = np.unique(np.concatenate([self.wide_px, self.gaze], axis=1), axis=0)
        if len(different) < FEWEST:
            repeats = len(self.wide_px) - len(different)
            raise DataError(
                f"{len(different)} different points, need {FEWEST}"
                + (f" ({repeats} are repetitions)" if repeats else ""),
                hint="use a finer grid, or a scene with more texture",
            )
        for what, values in (("pixels", self.wide_px), ("gazes", self.gaze)):
            spread = np.linalg.svd(values - values.mean(axis=0), compute_uv=False)
            if spread[1] <= _FLATTEST * spread[0]:
                raise DataError(
                    f"the {what} of the points all lie in one place or on one line",
                    hint="look at points all over the wide picture",
                )

    def __len__(self) -> int:
        return len(self.wide_px)

    @property
    def inverse_depth(self) -> Array:
        """(N,) 1/m; zeros where the depth is not known."""
        return np.zeros(len(self)) if self.depth_m is None else 1 / self.depth_m

    def only(self, chosen: NDArray[np.bool_]) -> Points:
        """Some of the points."""
        depth_m = None if self.depth_m is None else self.depth_m[chosen]
        return Points(self.wide_px[chosen], self.gaze[chosen], depth_m)


def read_points(path: Path) -> Points:
    """Read a CSV file with the columns u, v, pan_deg, tilt_deg and, if known, depth_m.

    Raises DataError naming the file and the point, or if there are not enough for a fit.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(line for line in file if not line.startswith("#"))
            columns = reader.fieldnames or []
            if missing := [name for name in _COLUMNS if name not in columns]:
                raise DataError(
                    f"{path}: column {', '.join(missing)} is missing",
                    hint=f"the first line must be {','.join(_COLUMNS)}[,depth_m]",
                )
            wanted = [*_COLUMNS, *(["depth_m"] if "depth_m" in columns else [])]
            rows = [_numbers(row, wanted, f"{path} point {n}") for n, row in enumerate(reader, 1)]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: {error}") from error
    table = np.array(rows, np.float64).reshape(len(rows), len(wanted))
    depth_m = table[:, 4] if len(wanted) == 5 else None
    try:
        points = Points(table[:, :2], np.radians(table[:, 2:4]), depth_m)
        points.check()
        return points
    except DataError as error:
        raise DataError(f"{path}: {error}", hint=error.hint) from error


def read_sizes(path: Path) -> dict[str, tuple[int, int]]:
    """Sizes of pictures, width and height, that a file of points tells, as it names them."""
    lines = r"^# (wide_px|search_px) (\d+) (\d+)$"
    found = re.findall(lines, path.read_text("utf-8"), re.MULTILINE)
    return {name: (int(width), int(height)) for name, width, height in found}


def write_points(path: Path, points: Points, sizes: Mapping[str, tuple[int, int]]) -> None:
    """Write what `read_points` and `read_sizes` read."""
    columns = [points.wide_px, np.degrees(points.gaze)]
    header = ",".join(_COLUMNS)
    if points.depth_m is not None:
        columns.append(points.depth_m[:, None])
        header += ",depth_m"
    table = np.concatenate(columns, axis=1)
    lines = [f"# {name} {width} {height}" for name, (width, height) in sizes.items()]
    lines += [header, *(",".join(f"{value:.6f}" for value in row) for row in table)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _numbers(row: dict[str, str], columns: list[str], where: str) -> list[float]:
    try:
        return [float(row[name]) for name in columns]
    except (TypeError, ValueError):
        raise DataError(f"{where}: needs a number for each of {', '.join(columns)}") from None


def _check_finite(points: Points) -> None:
    for name, values in (("wide_px", points.wide_px), ("gaze", points.gaze)):
        if values.shape != (len(points.wide_px), 2):
            raise DataError(f"{name}: shape {values.shape}, expected ({len(points.wide_px)}, 2)")
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if bad.size:
            raise DataError(f"point {bad[0] + 1}: {name} is {values[bad[0]]}, must be finite")
    far = np.flatnonzero(np.abs(points.gaze).max(axis=1, initial=0.0) >= math.pi / 2)
    if far.size:
        raise DataError(
            f"point {far[0] + 1}: a gaze beyond 90 degrees",
            hint="pan_deg and tilt_deg are the optical direction, in degrees",
        )
    if points.depth_m is not None:
        good = np.isfinite(points.depth_m) & (points.depth_m > 0)
        if points.depth_m.shape != (len(points.wide_px),) or not good.all():
            raise DataError("depth_m: must be one number above 0 for each point")
