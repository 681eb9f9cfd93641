from __future__ import annotations

from pathlib import Path

import cv2
import h5py
import hdf5plugin
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeperc.errors import DataError
from edgeperc.offline import dsec
from edgeperc.offline.datasets import open_dataset

OFFSET_US = 49_599_300_523
NAME = "zurich_city_13_a"


def label_map(k: int) -> NDArray[np.uint8]:
    return np.random.default_rng(k).choice([*range(11), 255], (440, 640)).astype(np.uint8)


def write_events(folder: Path, count: int = 150_000, duration_us: int = 1_000_000) -> None:
    rng = np.random.default_rng(0)
    t = np.sort(rng.integers(0, duration_us, count)).astype(np.uint32)
    folder.mkdir(parents=True, exist_ok=True)
    squeeze = hdf5plugin.Blosc(cname="zstd", clevel=1)
    with h5py.File(folder / "events.h5", "w") as file:
        for name, values in (
            ("x", rng.integers(0, 640, count).astype(np.uint16)),
            ("y", rng.integers(0, 480, count).astype(np.uint16)),
            ("p", rng.integers(0, 2, count).astype(np.uint8)),
            ("t", t),
        ):
            file.create_dataset(f"events/{name}", data=values, **squeeze)
        milliseconds = np.arange(duration_us // 1000)
        file["ms_to_idx"] = np.searchsorted(t, milliseconds * 1000).astype(np.uint64)
        file["t_offset"] = np.int64(OFFSET_US)
    grid = np.stack(np.meshgrid(np.arange(640), np.arange(480)), -1).astype(np.float32)
    with h5py.File(folder / "rectify_map.h5", "w") as file:
        file["rectify_map"] = grid + 0.25


def write_labels(folder: Path, name: str, times_us: list[int]) -> None:
    (folder / "11classes").mkdir(parents=True)
    for k in range(len(times_us)):
        cv2.imwrite(str(folder / "11classes" / f"{k:06d}.png"), label_map(k))
    lines = [str(OFFSET_US + time_us) for time_us in times_us]
    (folder / f"{name}_semantic_timestamps.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("labels", "events"),
    [
        (f"test/{NAME}", f"test/{NAME}/events/left"),
        (f"test_semantic_segmentation/test/{NAME}", f"test_events/{NAME}/events/left"),
        (f"{NAME}_semantic/{NAME}", f"{NAME}_events_left"),
    ],
)
def test_windows_are_the_last_events_before_each_label(
    tmp_path: Path, labels: str, events: str
) -> None:
    write_labels(tmp_path / labels, NAME, [100_000 * k + 1_234 for k in range(10)])
    write_events(tmp_path / events)
    dataset = open_dataset(str(tmp_path))

    assert len(dataset.classes) == 11
    assert len(dataset) == 2  # labels 6 and 8
    for k, sample in zip((6, 8), dataset, strict=True):
        label_us = OFFSET_US + 100_000 * k + 1_234
        with h5py.File(tmp_path / events / "events.h5") as file:
            t = file["events/t"][()].astype(np.int64) + OFFSET_US
            x = file["events/x"][()]
        older = np.flatnonzero(t < label_us)[-100_000:]
        assert np.array_equal(sample.events.t, t[older])
        assert np.array_equal(sample.events.x, x[older])
        assert len(sample.events) == min(100_000, np.sum(t < label_us))
        assert sample.events.stamp.end_ns == label_us * 1000
        assert sample.labels.shape == (480, 640)
        assert np.array_equal(sample.labels[:440], label_map(k))
        assert np.all(sample.labels[440:] == 255)
        assert sample.rectify_map is not None
        assert sample.rectify_map[3, 5].tolist() == [5.25, 3.25]


def test_a_label_outside_the_recording_gets_what_there_is(tmp_path: Path) -> None:
    write_events(tmp_path, count=1_000)
    recording = dsec.Recording(tmp_path / "events.h5")
    assert len(recording.before(OFFSET_US - 5, 0)) == 0
    assert len(recording.before(OFFSET_US + 10_000_000, 0)) == 1_000


def test_splits_are_by_name(tmp_path: Path) -> None:
    for name in (NAME, "zurich_city_00_a"):
        write_labels(tmp_path / name, name, [1_000 * k for k in range(9)])
        write_events(tmp_path / name / "events" / "left", count=1_000, duration_us=20_000)
    assert len(open_dataset(str(tmp_path), split="test")) == 2
    assert len(open_dataset(str(tmp_path), split="train")) == 2
    assert len(open_dataset(str(tmp_path), split="all")) == 4


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    write_labels(tmp_path / NAME, NAME, [1_000 * k for k in range(9)])
    with pytest.raises(DataError, match=r"no events\.h5 of zurich_city_13_a"):
        open_dataset(str(tmp_path))
    with pytest.raises(DataError, match="split 'train'"):
        open_dataset(str(tmp_path), split="train")
    write_events(tmp_path / NAME / "events" / "left", count=1_000, duration_us=20_000)
    (tmp_path / NAME / "11classes" / "000003.png").unlink()
    with pytest.raises(DataError, match="8 labels, but 9 times"):
        open_dataset(str(tmp_path))
