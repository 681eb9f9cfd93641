"""Calibrate a rig: collect points or read them, fit, keep the best model, points and picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from edgeperc import __version__
from edgeperc.calibration import (
    Fit,
    IdealLens,
    Points,
    View,
    calibration_of,
    fit,
    identify,
    read_points,
    read_sizes,
    save_calibration,
    write_points,
)
from edgeperc.calibration.collect import Picture, collect
from edgeperc.calibration.depth import Ground
from edgeperc.calibration.eyes import opened
from edgeperc.calibration.picture import draw
from edgeperc.config import Rig
from edgeperc.errors import ConfigError, DataError
from edgeperc.places import find_rig, share

SIZES = ("wide_px", "search_px")


@dataclass(frozen=True, kw_only=True)
class Depth:
    """What is known of depths: one for all points, or the wide camera above level ground.

    Raises ConfigError if both are given.
    """

    depth_m: float | None = None
    height_m: float | None = None
    pitch_deg: float = 0.0

    def __post_init__(self) -> None:
        if self.depth_m is not None and self.height_m is not None:
            raise ConfigError("--depth-m and --height-m: give one of them")

    def ground(self, lens: IdealLens) -> Ground | None:
        """The ground below a lens."""
        if self.height_m is None:
            return None
        return Ground(self.height_m, math.radians(self.pitch_deg), lens.focal_px, lens.centre_px)


UNKNOWN = Depth()


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """A fit and where it went. looks: how many were found. trouble: why it was not kept, if so."""

    fit: Fit
    looks: str
    file: Path
    points_file: Path
    picture: Path
    note: str
    trouble: DataError | None


def calibrate(
    name: str,
    *,
    out: Path | None = None,
    grid: int = 8,
    depth: Depth = Depth(),
    picture: Path | None = None,
    points_file: Path | None = None,
    progress: Progress | None = None,
) -> Calibrated:
    """Calibrate a rig by name or path.

    out: file of the calibration, by default the one that the rig names. Beside it go the points
    and the picture, also if the fit is too poor to be kept. points_file: fit these instead of
    collecting. Raises ConfigError, DeviceError, or DataError if there is nothing to be fitted.
    """
    rig, rig_path = find_rig(name)
    where = out or _file_of(rig, rig_path)
    if points_file:
        seen = _read(rig, points_file)
    else:
        seen = _collected(rig, rig_path, grid, progress or progress_bar(disable=True))
    lens = IdealLens.of_view(*seen.wide_size_px, math.radians(rig.field.wide_deg))
    ground = depth.ground(lens)
    points = _with_depth(seen.points, depth, ground)
    beside = where.with_suffix("")
    kept_points = beside.with_name(f"{beside.name}.points.csv")
    if points_file is None or kept_points.resolve() != points_file.resolve():
        write_points(kept_points, points, dict(zip(SIZES, seen.sizes_px, strict=True)))
    width_px, height_px = seen.search_size_px
    view = View(min(width_px, height_px), width_px / math.radians(rig.field.search_deg))
    found = fit(points, lens, view)
    drawn = picture or beside.with_name(f"{beside.name}.png")
    draw(found, drawn, title=rig_path.stem, wide=seen.wide)
    trouble = None
    try:
        calibration = calibration_of(
            found,
            identify(rig, rig.field.wide, rig.field.search, seen.wide_size_px),
            date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            software=f"edgeperc {__version__}",
            ground=ground,
        )
        save_calibration(calibration, where)
    except DataError as error:
        trouble = error
    return Calibrated(
        fit=found,
        looks=seen.looks,
        file=where,
        points_file=kept_points,
        picture=drawn,
        note=_note(rig, rig_path, where),
        trouble=trouble,
    )


def table_of(found: Fit) -> Table:
    """The models and their errors, the chosen one marked."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("model", "rms px", "p95 px", "within a quarter of the view", ""):
        table.add_column(column, justify="left" if column in ("model", "") else "right")
    for one in found.fits:
        chosen = one is found.chosen
        table.add_row(
            f"[bold]{one.model.name}[/bold]" if chosen else one.model.name,
            f"{one.errors.rms_px:.2f}",
            f"{one.errors.p95_px:.2f}",
            f"{one.errors.share_within:.0%}",
            "chosen" if chosen else "",
        )
    for model, reason in found.skipped.items():
        table.add_row(model, "", "", "", f"not fitted: {reason}")
    return table


def report_of(done: Calibrated) -> dict[str, Any]:
    """The same as JSON types."""
    found = done.fit
    return {
        "chosen": found.chosen.model.name,
        "models": {
            one.model.name: {
                "rms_px": one.errors.rms_px,
                "p95_px": one.errors.p95_px,
                "share_within": one.errors.share_within,
            }
            for one in found.fits
        },
        "points": len(found.points),
        "held_out": int(found.held_out.sum()),
        "outliers": int(found.outlier.sum()),
        "saved": done.trouble is None,
        "file": str(done.file),
        "points_file": str(done.points_file),
        "picture": str(done.picture),
    }


def progress_bar(**options: Any) -> Progress:
    """A bar for looks done, with the looks found beside it."""
    return Progress(
        TextColumn("looking around"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} looks, {task.fields[found]} found"),
        **options,
    )


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """Points, sizes of the wide and of the search picture, and how they were found."""

    points: Points
    sizes_px: tuple[tuple[int, int], tuple[int, int]]
    wide: Picture | None = None
    looks: str = ""

    @property
    def wide_size_px(self) -> tuple[int, int]:
        return self.sizes_px[0]

    @property
    def search_size_px(self) -> tuple[int, int]:
        return self.sizes_px[1]


def _collected(rig: Rig, rig_path: Path, grid: int, progress: Progress) -> _Seen:
    with opened(rig, rig_path) as eyes, progress:
        task = progress.add_task("", total=3 * grid * grid, found=0)
        height_px, width_px = eyes.wide().shape[:2]
        guess = IdealLens.of_view(width_px, height_px, math.radians(rig.field.wide_deg))

        def on_look(done: int, total: int, found: int) -> None:
            progress.update(task, completed=done, total=total, found=found)

        collected = collect(eyes, guess, grid=grid, on_look=on_look)
    points = Points(collected.wide_px, collected.gaze)
    try:
        points.check()
    except DataError as error:
        raise DataError(f"{error}: {collected}", hint=error.hint) from error
    return _Seen(
        points=points,
        sizes_px=((width_px, height_px), collected.search_size_px),
        wide=collected.wide,
        looks=str(collected),
    )


def _with_depth(points: Points, depth: Depth, ground: Ground | None) -> Points:
    import numpy as np

    depth_m = points.depth_m
    if ground:
        depth_m = ground.depth_m(points.wide_px)
    elif depth.depth_m is not None:
        depth_m = np.full(len(points), depth.depth_m)
    return Points(points.wide_px, points.gaze, depth_m)


def _read(rig: Rig, points_file: Path) -> _Seen:
    """Points of a file; the sizes of the pictures are told by it or else by the rig's tables."""
    points, told = read_points(points_file), read_sizes(points_file)
    for key, name in zip(SIZES, (rig.field.wide, rig.field.search), strict=True):
        table = rig.sensors.get(name, {})
        if key not in told and {"width_px", "height_px"} <= set(table):
            told[key] = (int(table["width_px"]), int(table["height_px"]))
        if key not in told:
            raise ConfigError(
                f"{points_file}: does not say how large the pictures are",
                hint=f"begin it with lines such as: # {SIZES[0]} 960 448 and # {SIZES[1]} 224 224",
            )
    return _Seen(points=points, sizes_px=(told[SIZES[0]], told[SIZES[1]]))


def _file_of(rig: Rig, rig_path: Path) -> Path:
    """What the rig names; else beside the rig's file, or here if that came with the package."""
    if rig.calibration:
        return rig_path.parent / rig.calibration
    came_along = rig_path.resolve().is_relative_to(share().resolve())
    return (Path() if came_along else rig_path.parent) / f"{rig_path.stem}.calibration.toml"


def _note(rig: Rig, rig_path: Path, where: Path) -> str:
    named = rig.calibration and (rig_path.parent / rig.calibration).resolve() == where.resolve()
    return "" if named else f'to use it, put into {rig_path}: calibration = "{where.resolve()}"'
