from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import scipy.io

from edgeperc.errors import DataError
from edgeperc.offline.bsds import HELD_OUT, open_bsds


def write_photograph(root: Path, name: str, maps: list[np.ndarray], split: str = "train") -> None:
    """As published: a row of cells, each a struct with Segmentation and Boundaries."""
    pictures, truths = root / "images" / split, root / "groundTruth" / split
    for folder in (pictures, truths):
        folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(pictures / f"{name}.jpg"), np.full((12, 16, 3), 90, np.uint8))
    cells = np.empty((1, len(maps)), object)
    for k, each in enumerate(maps):
        cells[0, k] = {"Segmentation": each, "Boundaries": np.zeros_like(each, np.uint8)}
    scipy.io.savemat(truths / f"{name}.mat", {"groundTruth": cells})


def halves() -> np.ndarray:
    labels = np.ones((12, 16), np.uint16)
    labels[:, 8:] = 300
    return labels


def test_every_persons_segments_are_read(tmp_path: Path) -> None:
    write_photograph(tmp_path, "22", [halves(), halves().T.copy().reshape(12, 16)])
    write_photograph(tmp_path, "100", [halves()])
    found = open_bsds(tmp_path, split="train")
    assert found.names == ("100", "22")
    first, second = found
    assert (first.name, len(first.maps), len(second.maps)) == ("100", 1, 2)
    assert first.picture.shape == (12, 16, 3)
    assert first.maps[0].dtype == np.uint16
    np.testing.assert_array_equal(first.maps[0], halves())


def test_the_folder_of_the_archive_is_found(tmp_path: Path) -> None:
    write_photograph(tmp_path / "data", "1", [halves()], split="val")
    assert open_bsds(tmp_path, split="val").names == ("1",)
    with pytest.raises(DataError, match="train: no such folder"):
        open_bsds(tmp_path, split="train")


def test_a_missing_a_damaged_and_a_mismatched_truth_are_named(tmp_path: Path) -> None:
    write_photograph(tmp_path, "1", [halves()[:, :10]])
    truth = tmp_path / "groundTruth" / "train" / "1.mat"
    with pytest.raises(DataError, match=r"1\.mat: 10 × 12 px, its picture has 16 × 12 px"):
        open_bsds(tmp_path, split="train")[0]
    content = truth.read_bytes()
    for damaged in (b"", b"text", content[: len(content) // 2]):
        truth.write_bytes(damaged)
        with pytest.raises(DataError, match=r"1\.mat: "):
            open_bsds(tmp_path, split="train")[0]
    scipy.io.savemat(truth, {"other": np.zeros(3)})
    with pytest.raises(DataError, match="no segmentations of BSDS"):
        open_bsds(tmp_path, split="train")[0]
    truth.unlink()
    with pytest.raises(DataError, match=r"1\.mat: no such file"):
        open_bsds(tmp_path, split="train")[0]


def test_the_published_photographs(real: Callable[[str], Path]) -> None:
    folder = real("bsds500")
    training, held_out = open_bsds(folder, split="train"), open_bsds(folder, split=HELD_OUT)
    assert (len(training), len(held_out)) == (200, 100)
    assert not set(training.names) & set(held_out.names)
    sample: Any = held_out[0]
    assert len(sample.maps) >= 4
    assert {m.shape for m in sample.maps} == {sample.picture.shape[:2]}
    assert all(m.min() == 1 for m in sample.maps)
