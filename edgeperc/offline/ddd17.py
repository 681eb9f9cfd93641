"""DDD17 with the semantic labels of Ev-SegNet, in the two forms in which it is passed around.

Pre-processed (the set published with ESS), one folder a recording:

    dir0/events.dat.t                             int64 ns
    dir0/events.dat.xyp                           int16 (N, 3): x, y, polarity 0 or 1
    dir0/index/index_50ms.npy                     rows (t, index, index 50 ms before), one a picture
    dir0/segmentation_masks/segmentation_00000042.png     (200, 346) for row 41
    dir0/imgs/img_00000042.png, or dir0/imgs/0000000042.png       the picture, if it is there

Originals: `rec….hdf5` with `dvs/data`, (N, 3) variable-length uint8: host time in digits, header
and body of one raw cAER packet. Labels are looked for in `rec…/segmentation_masks/` or in
`segmentation_masks/` beside the file, numbered by the recording's pictures from 1 (inferred from
the pre-processed set). The camera hung upside down, so events are turned by 180° (as ddd17-utils
can do and spiker always does; that every recording needs it is inferred).

The 50 ms of events end when a picture was read out, so they lie before and in its exposure; of the
pre-processed set, that is all that is known of its time.

Sources: uzh-rpg/ess, ddd17-utils (code.ini.uzh.ch/jbinas), libcaer's event headers.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeperc.errors import DataError
from edgeperc.offline.samples import IGNORE, Dataset, Sample
from edgeperc.packet import Events, Frame, Stamp

CLASSES = ("flat", "background", "object", "vegetation", "human", "vehicle")
WIDTH_PX, HEIGHT_PX, LABELLED_ROWS = 346, 260, 200
WINDOW_US = 50_000
SPLITS = {"train": (0, 2, 3, 5, 6), "valid": (1,), "test": (4,)}
"""Which of the seven sorted folders belong to which split (ESS, SLTNet)."""

POLARITY_EVENT, FRAME_EVENT = 1, 2
_HEADER = struct.Struct("<hhiiiiii")
_FRAME_HEADER_BYTES = 36


def open_preprocessed(path: Path, split: str) -> Dataset | None:
    """A folder of `dir*` recordings, or one of them; None if it is neither.

    One recording alone, and split `all`, are not divided. Raises DataError for a broken file.
    """
    if (path / "events.dat.t").is_file():
        folders = [path]
    else:
        folders = sorted(f for f in path.glob("dir*") if (f / "events.dat.t").is_file())
        if not folders:
            return None
        folders = _of_split(folders, split)
    windows = [(folder, mask) for folder in folders for mask in _masks(folder)]

    def read(index: int) -> Sample:
        folder, mask = windows[index]
        events = _preprocessed_window(folder, _number(mask))
        return Sample(events=events, labels=read_mask(mask), frame=_picture(mask, events.stamp))

    return Dataset(name="ddd17", classes=CLASSES, size=len(windows), read=read)


def open_originals(path: Path, split: str) -> Dataset | None:
    """An HDF5 recording, or a folder of them; None if it is neither.

    The originals carry no split: every labelled picture is used. Raises DataError.
    """
    files = [path] if path.suffix == ".hdf5" else sorted(path.glob("*.hdf5"))
    if not files:
        return None
    windows = [(file, mask) for file in files for mask in _masks(_labels_of(file))]
    recordings: Callable[[Path], Original] = lru_cache(maxsize=1)(Original)

    def read(index: int) -> Sample:
        file, mask = windows[index]
        recording, number = recordings(file), _number(mask)
        return Sample(
            events=recording.window(number), labels=read_mask(mask), frame=recording.frame(number)
        )

    return Dataset(name="ddd17", classes=CLASSES, size=len(windows), read=read)


def read_mask(path: Path) -> NDArray[np.uint8]:
    """Labels of one picture in sensor pixels, (260, 346) uint8; rows below the mask are IGNORE."""
    mask: Any = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if mask is None or mask.shape[1] != WIDTH_PX or mask.shape[0] > HEIGHT_PX:
        raise DataError(f"{path}: not a mask of {WIDTH_PX} px width")
    labels = np.full((HEIGHT_PX, WIDTH_PX), IGNORE, np.uint8)
    labels[: mask.shape[0]] = mask if mask.ndim == 2 else mask[:, :, 0]
    return labels


class Original:
    """One HDF5 recording as ddd17-utils wrote it. Raises DataError where it cannot be read."""

    def __init__(self, path: Path) -> None:
        import h5py

        self.path = path
        try:
            self._rows = h5py.File(path, "r")["dvs/data"]
            headers = self._rows[:, 1]
        except (OSError, KeyError, ValueError) as error:
            raise DataError(f"{path}: no DDD17 recording: {error}") from error
        kinds = np.array([h[:2].view("<i2")[0] if len(h) == _HEADER.size else -1 for h in headers])
        self._frames = np.flatnonzero(kinds == FRAME_EVENT)
        self._polarity = np.flatnonzero(kinds == POLARITY_EVENT)

    def window(self, picture: int) -> Events:
        """The 50 ms of events before a picture, counted from 1, upright."""
        if not 1 <= picture <= len(self._frames):
            raise DataError(f"{self.path}: has no picture {picture}, only {len(self._frames)}")
        row = int(self._frames[picture - 1])
        end_us = self.frame_time_us(row)
        start_us = end_us - WINDOW_US
        before, after = [], []
        at = int(np.searchsorted(self._polarity, row))
        for k in range(at - 1, -1, -1):
            before.append(self._polarity_packet(int(self._polarity[k])))
            if len(before[-1]) and before[-1]["t"][0] < start_us:
                break
        for k in range(at, len(self._polarity)):
            after.append(self._polarity_packet(int(self._polarity[k])))
            if len(after[-1]) and after[-1]["t"][0] >= end_us:
                break
        found = np.concatenate([*before[::-1], *after, np.empty(0, _EVENT)])
        found = found[(found["t"] >= start_us) & (found["t"] < end_us)]
        found = found[np.argsort(found["t"], kind="stable")]
        return _events(
            found["t"],
            (WIDTH_PX - 1 - found["x"]).astype(np.uint16),
            (HEIGHT_PX - 1 - found["y"]).astype(np.uint16),
            found["p"],
            (picture, start_us, end_us),
            str(self.path),
        )

    def frame(self, picture: int) -> Frame:
        """A picture, counted from 1, upright, (260, 346) uint8: the upper half of 16 bits."""
        row = int(self._frames[picture - 1])
        header, body = self._packet(row)
        pixels = body[_FRAME_HEADER_BYTES : _FRAME_HEADER_BYTES + 2 * WIDTH_PX * HEIGHT_PX]
        if len(pixels) < 2 * WIDTH_PX * HEIGHT_PX:
            raise DataError(f"{self.path}: the picture in row {row} is cut short")
        start_us, end_us = (
            int(_full_time(int(body[at : at + 4].view("<i4")[0]), header)) for at in (12, 16)
        )
        return Frame(
            stamp=Stamp(
                source=str(self.path), seq=picture, start_ns=1000 * start_us, end_ns=1000 * end_us
            ),
            image=np.ascontiguousarray(pixels[1::2].reshape(HEIGHT_PX, WIDTH_PX)[::-1, ::-1]),
        )

    def frame_time_us(self, row: int) -> int:
        """When the exposure of a picture's packet had been read out."""
        header, body = self._packet(row)
        if len(body) < _FRAME_HEADER_BYTES:
            raise DataError(f"{self.path}: the picture in row {row} is cut short")
        return int(_full_time(int(body[8:12].view("<i4")[0]), header))

    def _packet(self, row: int) -> tuple[tuple[int, ...], NDArray[np.uint8]]:
        _, header, body = self._rows[row]
        return _HEADER.unpack(header.tobytes()), body

    def _polarity_packet(self, row: int) -> NDArray[Any]:
        header, body = self._packet(row)
        size, count = header[2], header[6]
        if size != 8 or len(body) < count * size:
            raise DataError(f"{self.path}: the events in row {row} are cut short")
        data, time_us = body[: count * size].view("<u4").reshape(count, 2).T
        events = np.empty(count, _EVENT)
        events["t"] = _full_time(time_us.astype(np.int64), header)
        events["x"], events["y"] = data >> 17, data >> 2 & 0x7FFF
        events["p"] = data >> 1 & 1
        valid = (data & 1).astype(np.bool_)  # as the camera says
        return np.asarray(events[valid])


_EVENT = np.dtype([("t", "i8"), ("x", "i4"), ("y", "i4"), ("p", "?")])


def _full_time(time_us: Any, header: tuple[int, ...]) -> Any:
    return (header[4] << 31) + time_us


def _of_split(folders: list[Path], split: str) -> list[Path]:
    if split == "all":
        return folders
    if split not in SPLITS or len(folders) != 7:
        raise DataError(
            f"{folders[0].parent}: cannot make split '{split}' of {len(folders)} recordings",
            hint="splits train, valid and test need all seven; use --split all or one folder",
        )
    return [folders[k] for k in SPLITS[split]]


def _labels_of(file: Path) -> Path:
    own = file.with_suffix("")
    return own if (own / "segmentation_masks").is_dir() else file.parent


def _masks(folder: Path) -> Iterator[Path]:
    masks = sorted((folder / "segmentation_masks").glob("*_*.png"))
    if not masks:
        raise DataError(
            f"{folder}: no segmentation_masks/*_NNN.png",
            hint="unpack the labels of Ev-SegNet there",
        )
    return iter(masks)


def _number(mask: Path) -> int:
    if found := re.search(r"_(\d+)$", mask.stem):
        return int(found.group(1))
    raise DataError(f"{mask}: its name does not end in the number of a picture")


def _picture(mask: Path, window: Stamp) -> Frame | None:
    """The picture that a mask is of, grey, where it is there; its time is the window's end."""
    folder, digits = mask.parents[1] / "imgs", re.sub(r".*_", "", mask.stem)
    for name in (f"img_{digits}.png", f"{digits.zfill(10)}.png"):
        if (folder / name).is_file():
            image: Any = cv2.imread(str(folder / name), cv2.IMREAD_GRAYSCALE)
            if image is None or image.shape != (HEIGHT_PX, WIDTH_PX):
                raise DataError(f"{folder / name}: not a picture of {WIDTH_PX} × {HEIGHT_PX} px")
            return Frame(stamp=replace(window, start_ns=window.end_ns), image=image)
    if folder.is_dir():
        raise DataError(f"{folder}: no img_{digits}.png, of which {mask.name} is the mask")
    return None


@lru_cache(maxsize=2)
def _arrays(folder: Path) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    try:
        index = np.load(folder / "index" / "index_50ms.npy")
        t = np.memmap(folder / "events.dat.t", "<i8", "r")
        xyp = np.memmap(folder / "events.dat.xyp", "<i2", "r").reshape(-1, 3)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: {error}") from error
    if len(t) != len(xyp) or index.ndim != 2 or index.shape[1] != 3:
        raise DataError(f"{folder}: {len(t)} times, {len(xyp)} events, index of {index.shape}")
    return t, xyp, index


def _preprocessed_window(folder: Path, picture: int) -> Events:
    t, xyp, index = _arrays(folder)
    if not 1 <= picture <= len(index):
        raise DataError(f"{folder}: index has no row for picture {picture}")
    end_ns, stop, start = (int(value) for value in index[picture - 1])
    start = max(start, 0)
    if not start <= stop <= len(t):
        raise DataError(f"{folder}: row {picture - 1} of the index points beyond the events")
    x, y, p = xyp[start:stop].T
    end_us = end_ns // 1000
    return _events(
        np.asarray(t[start:stop]) // 1000,
        x.astype(np.uint16),
        y.astype(np.uint16),
        p > 0,
        (picture, end_us - WINDOW_US, end_us),
        folder.name,
    )


def _events(
    t: NDArray[Any],
    x: NDArray[np.uint16],
    y: NDArray[np.uint16],
    p: NDArray[Any],
    window: tuple[int, int, int],
    source: str,
) -> Events:
    seq, start_us, end_us = window
    stamp = Stamp(source=source, seq=seq, start_ns=1000 * start_us, end_ns=1000 * end_us)
    return Events(
        stamp=stamp,
        t=t.astype(np.int64),
        x=x,
        y=y,
        p=np.asarray(p, np.bool_),
        width_px=WIDTH_PX,
        height_px=HEIGHT_PX,
    )
