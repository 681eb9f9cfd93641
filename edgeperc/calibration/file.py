"""A fitted calibration: how it is used, and the TOML file in which it is kept."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from edgeperc.calibration.depth import Ground
from edgeperc.calibration.fit import Errors, Fit
from edgeperc.calibration.models import PARAMETERS, Array, IdealLens, Model, Physical, Polynomial
from edgeperc.config import Positive, Rig, Strict, convert, read_toml
from edgeperc.errors import ConfigError

_FORMAT = 1
_IDENTIFYING = (
    *("serial", "model", "camera", "sensor_id", "rig"),
    *("flip", "offset_x_px", "offset_y_px", "width_px", "height_px"),
    *("pan_sign", "tilt_sign", "swap_axes", "deg_per_v", "full_scale_deg"),
)
Above0 = Annotated[float, msgspec.Meta(gt=0)]


class RigIdentity(Strict, frozen=True, kw_only=True):
    """[rig]: which cameras and mirror were calibrated; a file for others is refused."""

    wide: str
    search: str
    mirror: str
    width_px: Positive
    height_px: Positive


@dataclass(frozen=True, eq=False, kw_only=True)
class Calibration:
    """Wide pixel <-> gaze for one rig.

    errors: None for the ideal lens, which was not measured. inverse_depth: 1/m that is taken where
    no depth is given, the mean of the points'; 0 if they had none. ground: where depths come from
    if none are given.
    """

    model: Model
    rig: RigIdentity
    errors: Errors | None = None
    inverse_depth: float = 0.0
    ground: Ground | None = None
    points: int = 0
    outliers: int = 0
    date: str = ""
    software: str = ""

    def gaze(self, wide_px: ArrayLike, depth_m: ArrayLike | None = None) -> Array:
        """Where to look for what is at wide_px, (N, 2) px; depth_m: one, (N,) or None.

        Returns (N, 2) rad, pan and tilt; NaN for a row that is not finite or has no solution.
        """
        at = _rows(wide_px)
        if depth_m is None and self.ground:
            depth_m = self.ground.depth_m(at)
        return self.model.gaze(at, self._inverse(depth_m, len(at)))

    def wide_px(self, gaze: ArrayLike, depth_m: ArrayLike | None = None) -> Array:
        """Where gazes, (N, 2) rad, are in the wide picture; the inverse of `gaze`."""
        at = _rows(gaze)
        found = self.model.wide_px(at, self._inverse(depth_m, len(at)))
        if depth_m is None and self.ground:
            for _ in range(4):  # a few pixels aside the ground is hardly nearer or farther
                inverse = self._inverse(self.ground.depth_m(found), len(at))
                found = self.model.wide_px(at, inverse)
        return found

    def _inverse(self, depth_m: ArrayLike | None, count: int) -> Array:
        if depth_m is None:
            return np.full(count, self.inverse_depth)
        depth = np.broadcast_to(np.asarray(depth_m, np.float64), (count,))
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(depth > 0, 1 / depth, np.nan)


def uncalibrated(rig: RigIdentity, width_rad: float) -> Calibration:
    """The ideal lens, for a rig that has no calibration. width_rad: view of the wide camera."""
    return Calibration(model=IdealLens.of_view(rig.width_px, rig.height_px, width_rad), rig=rig)


def calibration_of(
    fit: Fit, rig: RigIdentity, *, date: str, software: str, ground: Ground | None = None
) -> Calibration:
    """What is kept of a fit. Raises DataError if it is too poor to be used."""
    fit.check()
    return Calibration(
        model=fit.chosen.model,
        rig=rig,
        errors=fit.chosen.errors,
        inverse_depth=float(fit.points.inverse_depth.mean()),
        ground=ground,
        points=len(fit.points),
        outliers=int(fit.outlier.sum()),
        date=date,
        software=software,
    )


def identify(rig: Rig, wide: str, search: str, picture_px: tuple[int, int]) -> RigIdentity:
    """A rig's identity: of each device its driver, and what its table says on which one it is and
    how it is set up, as far as that turns or moves its picture.

    wide, search: names of sensors. picture_px: width and height of the wide picture.
    """
    return RigIdentity(
        wide=_device(rig.sensors[wide]),
        search=_device(rig.sensors[search]),
        mirror=_device(rig.mirror or {}),
        width_px=picture_px[0],
        height_px=picture_px[1],
    )


def save_calibration(calibration: Calibration, path: Path) -> None:
    """Write it; a file that is there is replaced at once or, on an error, left as it is."""
    model = calibration.model
    polynomial = model.guess if isinstance(model, Physical) else model
    if not isinstance(polynomial, Polynomial) or not calibration.errors:
        raise ConfigError("a rig without calibration has nothing to be saved")
    stored = _Stored(
        format=_FORMAT,
        date=calibration.date,
        software=calibration.software,
        points=calibration.points,
        outliers=calibration.outliers,
        inverse_depth_per_m=calibration.inverse_depth,
        model="physical" if isinstance(model, Physical) else polynomial.name,
        rig=calibration.rig,
        errors=_Errors(**asdict(calibration.errors)),
        polynomial=_PolynomialTable(
            lens_centre_px=polynomial.lens.centre_px,
            lens_focal_px=polynomial.lens.focal_px,
            lens_fisheye=polynomial.lens.fisheye,
            from_angles=polynomial.from_angles,
            centre=_pair(polynomial.centre),
            scale=_pair(polynomial.scale),
            pan_rad=tuple(polynomial.coefficients[0].tolist()),
            tilt_rad=tuple(polynomial.coefficients[1].tolist()),
        ),
        physical=_physical_table(model) if isinstance(model, Physical) else None,
        ground=_Ground(**asdict(calibration.ground)) if calibration.ground else None,
    )
    _replace(path, _toml(msgspec.to_builtins(stored)))


def load_calibration(path: Path, rig: RigIdentity | None = None) -> Calibration:
    """Read a calibration. rig: the one at hand.

    Raises ConfigError if the file is damaged or was made for another rig.
    """
    table = read_toml(path)
    stored = convert(table, _Stored, where=str(path))
    if stored.format != _FORMAT:
        raise ConfigError(f"{path} format: {stored.format}, this version reads {_FORMAT}")
    _check_finite(table, str(path))
    if rig:
        _check_same(stored.rig, rig, path)
    return Calibration(
        model=_model(stored, path),
        rig=stored.rig,
        errors=Errors(**msgspec.structs.asdict(stored.errors)),
        inverse_depth=stored.inverse_depth_per_m,
        ground=Ground(**msgspec.structs.asdict(stored.ground)) if stored.ground else None,
        points=stored.points,
        outliers=stored.outliers,
        date=stored.date,
        software=stored.software,
    )


class _Errors(Strict, frozen=True, kw_only=True):
    rms_px: float
    p95_px: float
    share_within: float


class _PolynomialTable(Strict, frozen=True, kw_only=True):
    """[polynomial]: the model, or what the physical model's Newton starts from.

    centre, scale: in rad with from_angles, else in px. See edgeperc.calibration.models.Polynomial.
    """

    lens_centre_px: tuple[float, float]
    lens_focal_px: Above0
    lens_fisheye: bool
    from_angles: bool
    centre: tuple[float, float]
    scale: tuple[Above0, Above0]
    pan_rad: tuple[float, ...]
    tilt_rad: tuple[float, ...]


class _PhysicalTable(Strict, frozen=True, kw_only=True):
    """[physical]: see edgeperc.calibration.models.Physical."""

    centre_px: tuple[float, float]
    focal_px: Above0
    k1: float
    k2: float
    gain_pan: float
    gain_tilt: float
    cubic_pan: float
    cubic_tilt: float
    offset_pan_rad: float
    offset_tilt_rad: float
    skew: float
    gap_m: float
    rotation_x_rad: float
    rotation_y_rad: float
    rotation_z_rad: float
    translation_x_m: float
    translation_y_m: float
    translation_z_m: float


class _Ground(Strict, frozen=True, kw_only=True):
    height_m: Above0
    pitch_rad: float
    focal_px: Above0
    centre_px: tuple[float, float]
    farthest_m: Above0


class _Stored(Strict, frozen=True, kw_only=True, omit_defaults=True):
    format: int
    date: str
    software: str
    points: int
    outliers: int
    inverse_depth_per_m: float
    model: Literal["cubic", "cubic-1z", "physical"]
    rig: RigIdentity
    errors: _Errors
    polynomial: _PolynomialTable
    physical: _PhysicalTable | None = None
    ground: _Ground | None = None


def _model(stored: _Stored, path: Path) -> Model:
    table = stored.polynomial
    count = 13 if stored.model == "cubic-1z" else 10
    if not len(table.pan_rad) == len(table.tilt_rad) == count:
        raise ConfigError(f"{path} [polynomial] pan_rad, tilt_rad: need {count} numbers each")
    lens = IdealLens(table.lens_centre_px, table.lens_focal_px, table.lens_fisheye)
    coefficients = np.array([table.pan_rad, table.tilt_rad])
    centre, scale = np.array(table.centre), np.array(table.scale)
    polynomial = Polynomial(lens, table.from_angles, centre, scale, coefficients)
    if stored.model != "physical":
        return polynomial
    if not stored.physical:
        raise ConfigError(f"{path}: table [physical] is missing")
    return Physical(guess=polynomial, **msgspec.structs.asdict(stored.physical))


def _physical_table(model: Physical) -> _PhysicalTable:
    numbers = {name: getattr(model, name) for name in PARAMETERS}
    return _PhysicalTable(centre_px=model.centre_px, **numbers)


def _check_same(stored: RigIdentity, at_hand: RigIdentity, path: Path) -> None:
    theirs, ours = msgspec.structs.asdict(stored), msgspec.structs.asdict(at_hand)
    for key, value in theirs.items():
        if value != ours[key]:
            raise ConfigError(
                f"{path} [rig] {key}: calibrated for {value!r}, this rig has {ours[key]!r}",
                hint="run edgeperc calibrate on this rig, or name its own file",
            )


def _check_finite(value: Any, where: str) -> None:
    """TOML knows nan and inf; a calibration does not."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_finite(
                inner, f"{where} [{key}]" if isinstance(inner, dict) else f"{where} {key}"
            )
    elif isinstance(value, list):
        for inner in value:
            _check_finite(inner, where)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}: {value}, must be finite", hint="calibrate again")


def _device(table: Mapping[str, Any]) -> str:
    told = [f"{key}={table[key]}" for key in _IDENTIFYING if key in table]
    return " ".join([str(table.get("driver", "")), *told])


def _pair(values: Array) -> tuple[float, float]:
    return float(values[0]), float(values[1])


def _toml(table: Mapping[str, Any]) -> str:
    """Plain values first, then one level of tables."""
    inner = {key: value for key, value in table.items() if isinstance(value, dict)}
    lines = ["# Written by `edgeperc calibrate`: from a pixel of the wide picture to a gaze."]
    lines += [f"{key} = {_value(table[key])}" for key in table if key not in inner]
    for name, values in inner.items():
        lines += ["", f"[{name}]", *(f"{key} = {_value(v)}" for key, v in values.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)  # JSON's strings, numbers, lists are TOML's, too


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _rows(values: ArrayLike) -> Array:
    """As (N, 2) float64; NaN where a row is not finite. Raises ValueError on another shape."""
    rows = np.array(values, np.float64)
    if rows.ndim != 2 or rows.shape[1] != 2:
        raise ValueError(f"shape {rows.shape}, expected (N, 2)")
    rows[~np.isfinite(rows).all(axis=1)] = np.nan
    return rows
