from __future__ import annotations

import struct
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeperc.errors import DataError
from edgeperc.offline import ddd17
from edgeperc.offline.datasets import open_dataset
from edgeperc.packet import Events

Columns = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
PICTURE_US = 40_000


def events(seed: int = 0, count: int = 4_000, duration_us: int = 400_000) -> Columns:
    rng = np.random.default_rng(seed)
    t = np.sort(rng.integers(0, duration_us, count))
    return t, rng.integers(0, 346, count), rng.integers(0, 260, count), rng.integers(0, 2, count)


def mask(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).choice([0, 1, 2, 3, 4, 5, 255], (200, 346)).astype(np.uint8)


def write_preprocessed(folder: Path, columns: Columns, pictures: list[int]) -> None:
    """As the ESS set has it: row k of the index belongs to picture k + 1, at 40 ms a picture."""
    t, x, y, p = columns
    (folder / "index").mkdir(parents=True)
    (folder / "segmentation_masks").mkdir()
    (t * 1000).astype("<i8").tofile(folder / "events.dat.t")
    np.stack([x, y, p], 1).astype("<i2").tofile(folder / "events.dat.xyp")
    times_us = PICTURE_US * np.arange(1, 11)
    stops, starts = (np.searchsorted(t, times_us - back) for back in (0, 50_000))
    starts[0] = -1  # the published index has negative entries at the start
    np.save(folder / "index" / "index_50ms.npy", np.stack([times_us * 1000, stops, starts], 1))
    for k in pictures:
        path = folder / "segmentation_masks" / f"segmentation_{k:08d}.png"
        cv2.imwrite(str(path), mask(k))


def caer(kind: int, size: int, overflow: int, body: bytes, number: int) -> bytes:
    return struct.pack("<hhiiiiii", kind, 1, size, 4, overflow, number, number, number)


def write_original(path: Path, columns: Columns, *, overflow: int = 0, packet: int = 100) -> None:
    """As ddd17-utils wrote it: upside down, events and pictures as raw packets in order of time."""
    t, x, y, p = columns
    rows: list[tuple[int, bytes, bytes]] = []
    for k in range(0, len(t), packet):
        cut = slice(k, k + packet)
        valid = np.ones(len(t[cut]), np.int64)
        valid[3:4] = 0  # one event a packet that the camera takes back
        data = (345 - x[cut]) << 17 | (259 - y[cut]) << 2 | p[cut] << 1 | valid
        body = np.stack([data, t[cut]], 1).astype("<u4").tobytes()
        rows.append((int(t[cut][-1]), caer(1, 8, overflow, body, len(data)), body))
    for time_us in range(PICTURE_US, 400_001, PICTURE_US):
        fields = (0, time_us - 9_000, time_us, time_us - 8_000, time_us - 1_000, 346, 260, 0, 0)
        body = struct.pack("<9i", *fields) + bytes(2 * 346 * 260)
        rows.append((time_us, caer(2, len(body), overflow, body, 1), body))
    rows.append((0, caer(3, 4, overflow, b"", 0), b""))  # an IMU packet, to be passed over
    rows.sort(key=lambda row: row[0])
    with h5py.File(path, "w") as file:
        kind = h5py.special_dtype(vlen=np.uint8)
        data = file.create_dataset("dvs/data", (len(rows) + 2, 3), dtype=kind)  # ends in empty rows
        for k, (time_us, header, body) in enumerate(rows):
            for c, field in enumerate((str(time_us).encode(), header, body)):
                data[k, c] = np.frombuffer(field, np.uint8)


def same_events(found: Events, columns: Columns, start_us: int, end_us: int) -> None:
    t, x, y, p = columns
    cut = slice(*np.searchsorted(t, [start_us, end_us]))
    assert len(found) > 100
    assert np.array_equal(found.t, t[cut])
    assert np.array_equal(found.x, x[cut])
    assert np.array_equal(found.y, y[cut])
    assert np.array_equal(found.p, p[cut] == 1)
    assert (found.stamp.start_ns, found.stamp.end_ns) == (end_us * 1000 - 50_000_000, end_us * 1000)


def test_preprocessed_windows_end_at_their_pictures(tmp_path: Path) -> None:
    columns = events()
    write_preprocessed(tmp_path / "dir0", columns, [1, 5, 10])
    dataset = open_dataset(str(tmp_path / "dir0"))

    assert dataset.classes == ("flat", "background", "object", "vegetation", "human", "vehicle")
    first, middle, last = dataset
    same_events(middle.events, columns, 150_000, 200_000)
    same_events(last.events, columns, 350_000, 400_000)
    assert len(first.events) == np.searchsorted(columns[0], PICTURE_US)
    assert middle.labels.shape == (260, 346)
    assert np.array_equal(middle.labels[:200], mask(5))
    assert np.all(middle.labels[200:] == 255)


def test_the_published_split_is_by_sorted_folder(tmp_path: Path) -> None:
    names = [f"dir{k}" for k in (0, 1, 3, 4, 5, 6, 7)]
    for k, name in enumerate(names):
        write_preprocessed(tmp_path / name, events(k, 200), [2])

    def sources(split: str) -> list[str]:
        return [s.events.stamp.source for s in open_dataset(str(tmp_path), split=split)]

    assert sources("test") == ["dir5"]
    assert sources("valid") == ["dir1"]
    assert sources("train") == ["dir0", "dir3", "dir4", "dir6", "dir7"]
    assert sources("all") == names


def test_a_split_of_half_the_data_is_refused(tmp_path: Path) -> None:
    write_preprocessed(tmp_path / "dir0", events(), [2])
    with pytest.raises(DataError, match="cannot make split 'test' of 1 recordings"):
        open_dataset(str(tmp_path))


def test_coloured_masks_are_read_too(tmp_path: Path) -> None:
    path = tmp_path / "segmentation_1.png"
    cv2.imwrite(str(path), np.repeat(mask(1)[:, :, None], 3, 2))
    assert np.array_equal(ddd17.read_mask(path)[:200], mask(1))


@pytest.mark.parametrize("overflow", [0, 1])
def test_originals_give_the_same_windows_upright(tmp_path: Path, overflow: int) -> None:
    columns = events()
    write_original(tmp_path / "rec1487417411.hdf5", columns, overflow=overflow)
    labels = tmp_path / "rec1487417411" / "segmentation_masks"
    labels.mkdir(parents=True)
    cv2.imwrite(str(labels / "segmentation_00000005.png"), mask(5))
    (sample,) = open_dataset(str(tmp_path))

    kept = np.arange(len(columns[0])) % 100 != 3
    t, x, y, p = (column[kept] for column in columns)
    late_us = overflow << 31
    same_events(sample.events, (t + late_us, x, y, p), late_us + 150_000, late_us + 200_000)
    assert np.array_equal(sample.labels[:200], mask(5))


def test_broken_files_name_themselves(tmp_path: Path) -> None:
    write_preprocessed(tmp_path / "dir0", events(), [2, 99])
    first, *_ = open_dataset(str(tmp_path / "dir0")).thinned(1)
    assert len(first.events)
    with pytest.raises(DataError, match="dir0.*picture 99"):
        list(open_dataset(str(tmp_path / "dir0")))

    write_preprocessed(tmp_path / "dir1", events(), [2])
    with (tmp_path / "dir1" / "events.dat.xyp").open("r+b") as file:
        file.truncate(6 * 100)
    with pytest.raises(DataError, match=r"dir1: 4000 times, 100 events"):
        list(open_dataset(str(tmp_path / "dir1")))

    (tmp_path / "rec.hdf5").write_bytes(b"not HDF5")
    (tmp_path / "segmentation_masks").mkdir()
    cv2.imwrite(str(tmp_path / "segmentation_masks" / "s_1.png"), mask(1))
    with pytest.raises(DataError, match=r"rec\.hdf5"):
        list(open_dataset(str(tmp_path / "rec.hdf5")))


def test_a_packet_cut_short_is_an_error_not_a_guess(tmp_path: Path) -> None:
    path = tmp_path / "rec.hdf5"
    write_original(path, events())
    with h5py.File(path, "r+") as file:
        rows = file["dvs/data"]
        for k in range(15, 25):
            rows[k, 2] = rows[k, 2][:50]
    recording = ddd17.Original(path)
    assert len(recording.window(10))
    with pytest.raises(DataError, match="cut short"):
        recording.window(5)


def picture(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (260, 346)).astype(np.uint8)


@pytest.mark.parametrize("name", ["img_00000005.png", "0000000005.png"])
def test_the_picture_of_a_mask_comes_along(tmp_path: Path, name: str) -> None:
    write_preprocessed(tmp_path / "dir0", events(), [5])
    (sample,) = open_dataset(str(tmp_path / "dir0"))
    assert sample.frame is None
    (tmp_path / "dir0" / "imgs").mkdir()
    with pytest.raises(DataError, match=r"no img_00000005\.png, of which segmentation_00000005"):
        list(open_dataset(str(tmp_path / "dir0")))
    cv2.imwrite(str(tmp_path / "dir0" / "imgs" / name), picture(5))
    (sample,) = open_dataset(str(tmp_path / "dir0"))
    assert sample.frame is not None
    assert np.array_equal(sample.frame.image, picture(5))
    assert sample.frame.stamp.end_ns == sample.events.stamp.end_ns == 200_000_000


def test_pictures_of_originals_are_turned_upright(tmp_path: Path) -> None:
    path = tmp_path / "rec1487417411.hdf5"
    write_original(path, events())
    with h5py.File(path, "r+") as file:
        rows = file["dvs/data"]
        kinds = [rows[k, 1][:2].view("<i2")[0] if len(rows[k, 1]) else -1 for k in range(len(rows))]
        row = [k for k, kind in enumerate(kinds) if kind == 2][4]
        body = rows[row, 2].copy()
        body[36:] = (picture(5)[::-1, ::-1].astype("<u2") << 8).reshape(-1).view(np.uint8)
        rows[row, 2] = body
    frame = ddd17.Original(path).frame(5)
    assert np.array_equal(frame.image, picture(5))
    assert (frame.stamp.start_ns, frame.stamp.end_ns) == (192_000_000, 199_000_000)
    with h5py.File(path, "r+") as file:
        file["dvs/data"][row, 2] = body[:1000]
    with pytest.raises(DataError, match="cut short"):
        ddd17.Original(path).frame(5)
