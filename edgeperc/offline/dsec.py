"""DSEC-Semantic: the label folders as published, beside DSEC's events.

    …/zurich_city_13_a/11classes/000000.png       (440, 640) uint8, 255 = not labelled
    …/zurich_city_13_a/zurich_city_13_a_semantic_timestamps.txt       µs, a line a label
    …/zurich_city_13_a…/…/events.h5               events/{x,y,p,t}, ms_to_idx, t_offset
    …/zurich_city_13_a…/…/rectify_map.h5          rectify_map (480, 640, 2), beside events.h5

Pictures are read where they are: see `edgeperc.offline.dsec_frames`. The layout of ESS, with
`…/semantic/left/11classes/data/000000.png` and `…/semantic/timestamps.txt`, is read, too.

Labels are in undistorted pixels of the left event camera, without the lowest 40 rows. As ESS and
SLTNet do, the first six labels of a sequence are skipped and every second one is used, with the
last 100,000 events before it.
Sources: dsec.ifi.uzh.ch, uzh-rpg/DSEC, uzh-rpg/ess.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeperc.errors import DataError
from edgeperc.offline.dsec_frames import find_pictures, frame_of
from edgeperc.offline.samples import IGNORE, Dataset, Sample
from edgeperc.packet import Events, Stamp

CLASSES = (
    *("background", "building", "fence", "person", "pole", "road", "sidewalk", "vegetation"),
    *("car", "wall", "traffic sign"),
)
WIDTH_PX, HEIGHT_PX = 640, 480
WINDOW_EVENTS = 100_000
SKIPPED_LABELS, LABEL_STEP = 6, 2
ESS = "semantic"
TRAIN = tuple(f"zurich_city_{number:02}_a" for number in (0, 1, 2, 4, 5, 6, 7, 8))
TEST = ("zurich_city_13_a", "zurich_city_14_c", "zurich_city_15_a")
SPLITS = {"train": TRAIN, "valid": TEST, "test": TEST}
"""The published test sequences serve for validation too."""


@dataclass(frozen=True)
class _Sequence:
    name: str
    labels: Path
    events: Path
    pictures: Path | None
    label_us: tuple[int, ...]


def open_folder(path: Path, split: str) -> Dataset | None:
    """A folder with one or more sequences, at any depth; None if there is none.

    split `all` takes every sequence found. Raises DataError for a broken or incomplete one.
    """
    names = ("*_semantic_timestamps.txt", f"{ESS}/timestamps.txt")
    stamps = sorted(file for name in names for file in path.rglob(name))
    if not stamps:
        return None
    wanted = None if split == "all" else SPLITS.get(split, ())
    sequences = [
        _sequence(path, file) for file in stamps if wanted is None or _name(file) in wanted
    ]
    if not sequences:
        raise DataError(
            f"{path}: none of its sequences belongs to split '{split}'",
            hint="use --split all for whatever is there",
        )
    windows = [
        (sequence, k)
        for sequence in sequences
        for k in range(SKIPPED_LABELS, len(sequence.label_us), LABEL_STEP)
    ]

    def read(index: int) -> Sample:
        sequence, label = windows[index]
        recording, pictures = _recording(sequence.events), sequence.pictures
        frame = frame_of(pictures, label, sequence.label_us[label]) if pictures else None
        return Sample(
            events=recording.before(sequence.label_us[label], label),
            labels=_labels(sequence.labels / f"{label:06d}.png"),
            rectify_map=recording.rectify_map,
            frame=frame,
        )

    return Dataset(name="dsec", classes=CLASSES, size=len(windows), read=read)


class Recording:
    """DSEC's events.h5 with the rectify_map.h5 beside it. Raises DataError."""

    def __init__(self, path: Path) -> None:
        import h5py
        import hdf5plugin  # noqa: F401 - registers the compression that DSEC uses

        self.path = path
        try:
            self._file = h5py.File(path, "r")
            self._events = {name: self._file["events"][name] for name in "xytp"}
            self._offset_us = int(self._file["t_offset"][()])
            self._ms_to_index: NDArray[Any] = self._file["ms_to_idx"][()]
            with h5py.File(path.with_name("rectify_map.h5"), "r") as file:
                self.rectify_map: NDArray[np.float32] = file["rectify_map"][()].astype(np.float32)
        except (OSError, KeyError) as error:
            raise DataError(f"{path}: {error}") from error

    def before(self, time_us: int, seq: int) -> Events:
        """The last 100,000 events before a time, or as many as there are."""
        stop = self._index(time_us - self._offset_us)
        cut = slice(max(0, stop - WINDOW_EVENTS), stop)
        try:
            x, y, t, p = (self._events[name][cut] for name in "xytp")
        except OSError as error:
            raise DataError(f"{self.path}: events {cut.start} to {stop}: {error}") from error
        t = t.astype(np.int64) + self._offset_us
        start_us = int(t[0]) if len(t) else time_us
        stamp = Stamp(
            source=str(self.path), seq=seq, start_ns=1000 * start_us, end_ns=1000 * time_us
        )
        return Events(
            stamp=stamp,
            t=t,
            x=x.astype(np.uint16),
            y=y.astype(np.uint16),
            p=p.astype(np.bool_),
            width_px=WIDTH_PX,
            height_px=HEIGHT_PX,
        )

    def _index(self, relative_us: int) -> int:
        """How many events are older than a time since t_offset."""
        millisecond = relative_us // 1000
        if millisecond < 0:
            return 0
        if millisecond >= len(self._ms_to_index):
            return len(self._events["t"])
        low = int(self._ms_to_index[millisecond])
        later = self._ms_to_index[millisecond + 1 : millisecond + 2]
        high = int(later[0]) if len(later) else len(self._events["t"])
        return low + int(np.searchsorted(self._events["t"][low:high], relative_us))


_recording = lru_cache(maxsize=1)(Recording)


def _sequence(root: Path, stamps: Path) -> _Sequence:
    name = _name(stamps)
    found = [
        file
        for file in sorted(root.rglob("events.h5"))
        if any(part.startswith(name) for part in file.relative_to(root.parent).parts)
        and "right" not in file.parent.name
    ]
    if not found:
        raise DataError(f"{root}: no events.h5 of {name}", hint="unpack its events_left.zip there")
    try:
        label_us = np.atleast_1d(np.loadtxt(stamps, dtype=np.int64))
    except ValueError as error:
        raise DataError(f"{stamps}: {error}") from error
    below = ("11classes", "11classes/data", "left/11classes/data")
    labels = next((d for d in map(stamps.parent.joinpath, below) if any(d.glob("*.png"))), None)
    labels = labels or stamps.parent / below[0]
    count = len(list(labels.glob("*.png")))
    if count != len(label_us):
        raise DataError(f"{labels}: {count} labels, but {len(label_us)} times in {stamps.name}")
    pictures = find_pictures(root, name)
    return _Sequence(name, labels, found[0], pictures, tuple(int(t) for t in label_us))


def _name(stamps: Path) -> str:
    """The sequence whose labels' times a file has."""
    if stamps.parent.name == ESS:
        return stamps.parent.parent.name
    return stamps.name.removesuffix("_semantic_timestamps.txt")


def _labels(path: Path) -> NDArray[np.uint8]:
    """(480, 640) uint8: the 440 labelled rows, and IGNORE below."""
    picture: Any = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if picture is None or picture.shape[1] != WIDTH_PX or picture.shape[0] > HEIGHT_PX:
        raise DataError(f"{path}: not a label map of {WIDTH_PX} px width")
    labels = np.full((HEIGHT_PX, WIDTH_PX), IGNORE, np.uint8)
    labels[: picture.shape[0]] = picture
    return labels
