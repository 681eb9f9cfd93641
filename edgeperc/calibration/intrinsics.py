"""How a camera's lens brings rays to pixels, in the words of ROS's CameraInfo.

    known = intrinsics_of(rig, rig_path)    # of those sensors whose lens is known
    known["wide"].matrix                    # K, nine numbers

What is known comes from the rig's `[intrinsics.<sensor>]`, and, for the wide camera of a rig whose
calibration is the physical model, from that: its lens is ROS's "equidistant". The polynomial models
say where a gaze lies in the picture, and nothing of the lens alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from edgeperc.calibration.file import load_calibration
from edgeperc.calibration.models import Physical
from edgeperc.config import IntrinsicsTable, Rig
from edgeperc.errors import ConfigError, blame

Model = Literal["plumb_bob", "rational_polynomial", "equidistant"]
COEFFICIENTS: dict[str, int] = {"plumb_bob": 5, "rational_polynomial": 8, "equidistant": 4}
"""Models of distortion, by ROS's names, and how many numbers they have."""
_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
_CORNER_PX = 0.5
"""Where the middle of the first pixel is, in calibration files, which count from its corner."""


@dataclass(frozen=True, kw_only=True)
class Intrinsics:
    """A camera whose lens is known. width_px, height_px: of the pictures it was found with.

    matrix: K, nine numbers row by row, px. distortion: D, as `model` has them. rectification: R,
    nine. projection: P, twelve. binning: pixels of those pictures in one of what is sent now.
    window_px: column and row of those pictures at which what is sent now begins; None if it is not
    known where. Raises ConfigError if that is no lens.
    """

    model: Model
    width_px: int
    height_px: int
    matrix: tuple[float, ...]
    distortion: tuple[float, ...]
    rectification: tuple[float, ...] = _IDENTITY
    projection: tuple[float, ...] = ()
    binning: int = 1
    window_px: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        most = COEFFICIENTS[self.model]
        if len(self.distortion) > most:
            raise ConfigError(f"distortion: {self.model} has {most} coefficients")
        padded = (*self.distortion, *[0.0] * (most - len(self.distortion)))
        object.__setattr__(self, "distortion", padded)
        if not self.projection:  # of one eye
            rows = (self.matrix[0:3], self.matrix[3:6], self.matrix[6:9])
            alone = tuple(number for row in rows for number in (*row, 0.0))
            object.__setattr__(self, "projection", alone)
        numbers = (*self.matrix, *self.distortion, *self.rectification, *self.projection)
        if not all(math.isfinite(number) for number in numbers):
            raise ConfigError("a number is not finite")
        if not min(self.width_px, self.height_px, self.matrix[0], self.matrix[4]) > 0:
            raise ConfigError("sizes and focal lengths must be above 0")

    @property
    def table(self) -> IntrinsicsTable:
        """The same as a rig's file has it, complete."""
        return IntrinsicsTable(
            model=self.model,
            width_px=self.width_px,
            height_px=self.height_px,
            focal_px=(self.matrix[0], self.matrix[4]),
            centre_px=(self.matrix[2], self.matrix[5]),
            distortion=self.distortion,
            rectification=self.rectification,
            projection=self.projection,
            binning=self.binning,
            window_px=self.window_px,
        )


def intrinsics_of(rig: Rig, rig_path: Path) -> dict[str, Intrinsics]:
    """Those of a rig's cameras, by sensor. Raises ConfigError for what cannot be meant."""
    known = {}
    if lens := _of_calibration(rig, rig_path):
        known[rig.field.wide] = lens
    for name, table in rig.intrinsics.items():
        where = f"{rig_path} [intrinsics.{name}]"
        if name not in rig.sensors:  # a run may leave sensors out that its rig's file has
            continue
        window_px = table.window_px or _window(rig.sensors[name])
        with blame(where):
            if table.file:
                lens = _of_file(rig_path.parent / table.file, table.binning, window_px)
            else:
                lens = _of_table(table, window_px)
        known[name] = lens
    return known


def _of_table(table: IntrinsicsTable, window_px: tuple[int, int] | None) -> Intrinsics:
    if not (table.width_px and table.height_px and table.focal_px and table.centre_px):
        raise ConfigError(
            "needs width_px, height_px, focal_px and centre_px", hint="or a file of ROS: file = ..."
        )
    (fx, fy), (cx, cy) = table.focal_px, table.centre_px
    return Intrinsics(
        model=table.model,
        width_px=table.width_px,
        height_px=table.height_px,
        matrix=(fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0),
        distortion=table.distortion,
        rectification=table.rectification or _IDENTITY,
        projection=table.projection or (),
        binning=table.binning,
        window_px=window_px,
    )


def _of_file(path: Path, binning: int, window_px: tuple[int, int] | None) -> Intrinsics:
    """What ROS's camera_calibration wrote."""
    try:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError
    except ModuleNotFoundError as error:
        raise ConfigError(
            "reading a calibration of ROS needs ruamel.yaml", hint="pip install ruamel.yaml"
        ) from error
    try:
        table: Any = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        model = str(table["distortion_model"])
        if model not in COEFFICIENTS:
            known = ", ".join(COEFFICIENTS)
            raise ConfigError(
                f"{path}: distortion_model '{model}' is not known", hint=f"known are {known}"
            )
        return Intrinsics(
            model=cast(Model, model),
            width_px=int(table["image_width"]),
            height_px=int(table["image_height"]),
            matrix=_numbers(table["camera_matrix"], 9),
            distortion=_numbers(table["distortion_coefficients"]),
            rectification=_numbers(table.get("rectification_matrix", {"data": _IDENTITY}), 9),
            projection=_numbers(table.get("projection_matrix", {"data": ()}), 12),
            binning=binning,
            window_px=window_px,
        )
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    except (YAMLError, LookupError, TypeError, ValueError, AttributeError) as error:
        text = " ".join(str(error).split())
        raise ConfigError(
            f"{path}: is no calibration of ROS: {text}", hint="as camera_calibration writes it"
        ) from error


def _numbers(table: Any, count: int = 0) -> tuple[float, ...]:
    data: Sequence[Any] = table["data"]
    if count and len(data) not in (0, count):
        raise ValueError(f"{len(data)} numbers where {count} belong")
    return tuple(float(each) for each in data)


def _window(sensor: dict[str, Any]) -> tuple[int, int] | None:
    """Where a camera's window begins on its sensor, if its table says so."""
    x, y = sensor.get("offset_x_px"), sensor.get("offset_y_px")
    return None if x is None or y is None else (int(x), int(y))


def _of_calibration(rig: Rig, rig_path: Path) -> Intrinsics | None:
    """That of the wide camera by the rig's calibration, if it can be read; the search complains."""
    if not rig.calibration:
        return None
    try:
        calibration = load_calibration(rig_path.parent / rig.calibration)
    except ConfigError:
        return None
    lens = calibration.model
    if not isinstance(lens, Physical):
        return None
    cx, cy = (middle - _CORNER_PX for middle in lens.centre_px)
    return Intrinsics(
        model="equidistant",
        width_px=calibration.rig.width_px,
        height_px=calibration.rig.height_px,
        matrix=(lens.focal_px, 0.0, cx, 0.0, lens.focal_px, cy, 0.0, 0.0, 1.0),
        distortion=(lens.k1, lens.k2),
    )
