"""Labelled windows of events: the twin here, DDD17 and DSEC-Semantic in their own modules.

for sample in open_dataset("twin:20000"):       # or a folder in a published layout
    ...                                         # sample.events, sample.labels
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeperc.errors import ConfigError, DataError
from edgeperc.offline import ddd17, dsec
from edgeperc.offline.samples import Dataset, Sample
from edgeperc.packet import Events, Stamp
from edgeperc.twin import drive
from edgeperc.twin.scene import CLASSES, Camera

TWIN_CAMERA = Camera(width_px=346, height_px=260, focal_px=300.0)
TWIN_WINDOW_US = 50_000
TWIN_WINDOWS_A_STREET = 16
TRAINING_STREETS = range(10_000, 10_100)
HELD_OUT_STREETS = range(20_000, 20_012)
"""Seeds; the street of devices/twin.toml is in neither."""


def open_dataset(where: str, *, split: str = "test", limit: int | None = None) -> Dataset:
    """Open `twin`, `twin:SEED`, or a folder (or file) of DDD17 or DSEC-Semantic.

    split: of a published data set, `train`, `valid` or `test`, or `all`. limit: at most so many
    samples, spread evenly. Raises ConfigError for a name that is nothing of that, DataError for a
    folder in no known layout.
    """
    if where == "twin" or where.startswith("twin:"):
        dataset = twin(_streets(where))
    else:
        path = Path(where)
        if not path.exists():
            raise ConfigError(f"--data {where}: no such folder", hint="or use --data twin")
        for opens in (dsec.open_folder, ddd17.open_preprocessed, ddd17.open_originals):
            if (found := opens(path, split)) is not None:
                dataset = found
                break
        else:
            raise DataError(
                f"{path}: neither DDD17 nor DSEC-Semantic as published",
                hint="docs/models.md shows the folders that are read",
            )
    return dataset.thinned(limit)


def twin(streets: Sequence[int], windows_a_street: int = TWIN_WINDOWS_A_STREET) -> Dataset:
    """Windows of 50 ms along streets of the twin."""

    def read(index: int) -> Sample:
        street, window = divmod(index, windows_a_street)
        return _drawn(next(_drive(streets[street], 1, first=window)))

    return Dataset(name="twin", classes=CLASSES, size=len(streets) * windows_a_street, read=read)


def cached_twin(
    streets: Sequence[int],
    folder: Path,
    *,
    windows_a_street: int = TWIN_WINDOWS_A_STREET,
    processes: int = 2,
    on_street: Callable[[], None] = lambda: None,
) -> Dataset:
    """The same as `twin`, drawn once, kept in `folder` and then held in memory.

    Files carry the hash of the twin's sources in their name, so a changed twin is drawn anew.
    on_street is called after each street.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"street-{seed}-{windows_a_street}-{twin_hash()}.npz" for seed in streets]
    draw = partial(_draw_street, windows=windows_a_street)
    if processes > 1:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            for _ in pool.map(draw, streets, paths):
                on_street()
    else:
        for seed, path in zip(streets, paths, strict=True):
            draw(seed, path)
            on_street()
    shelves = [dict(np.load(path)) for path in paths]

    def read(index: int) -> Sample:
        street, window = divmod(index, windows_a_street)
        return _unpacked(shelves[street], window)

    return Dataset(name="twin", classes=CLASSES, size=len(streets) * windows_a_street, read=read)


def _streets(where: str) -> Sequence[int]:
    if where == "twin":
        return HELD_OUT_STREETS
    seed = where.removeprefix("twin:")
    if not seed.isdecimal():
        raise ConfigError(f"--data {where}: the seed must be a number, as in twin:20000")
    return [int(seed)]


def _drive(seed: int, count: int, first: int = 0) -> Iterator[drive.Sample]:
    return drive.samples(
        seed, count=count, first=first, window_us=TWIN_WINDOW_US, camera=TWIN_CAMERA
    )


def _drawn(sample: drive.Sample) -> Sample:
    return Sample(events=sample.events, labels=sample.labels, frame=sample.frame)


def twin_hash() -> str:
    """12 hex digits that change with any source file of the twin."""
    sources = sorted(Path(drive.__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


def _draw_street(seed: int, path: Path, *, windows: int) -> None:
    """Write the windows of one street: events one after the other, `stops` where each ends."""
    if path.exists():
        return
    drawn = list(_drive(seed, windows))
    events = [sample.events for sample in drawn]
    save_arrays(
        path,
        stops=np.cumsum([len(window) for window in events]),
        start_us=np.array([window.stamp.start_ns // 1000 for window in events]),
        t=np.concatenate([window.t - window.stamp.start_ns // 1000 for window in events]).astype(
            np.uint16
        ),
        x=np.concatenate([window.x for window in events]),
        y=np.concatenate([window.y for window in events]),
        p=np.concatenate([window.p for window in events]),
        labels=np.stack([sample.labels for sample in drawn]),
    )


def save_arrays(path: Path, **arrays: NDArray[Any]) -> None:
    """Write an .npz that is there complete or not at all."""
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    part.replace(path)


def _unpacked(shelf: dict[str, NDArray[Any]], window: int) -> Sample:
    stop = int(shelf["stops"][window])
    start = int(shelf["stops"][window - 1]) if window else 0
    start_us = int(shelf["start_us"][window])
    stamp = Stamp(
        source="twin",
        seq=window,
        start_ns=1000 * start_us,
        end_ns=1000 * (start_us + TWIN_WINDOW_US),
    )
    cut = slice(start, stop)
    events = Events(
        stamp=stamp,
        t=shelf["t"][cut].astype(np.int64) + start_us,
        x=shelf["x"][cut],
        y=shelf["y"][cut],
        p=shelf["p"][cut],
        width_px=TWIN_CAMERA.width_px,
        height_px=TWIN_CAMERA.height_px,
    )
    return Sample(events=events, labels=shelf["labels"][window])
