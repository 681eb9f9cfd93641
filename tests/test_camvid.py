from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeperc.errors import DataError
from edgeperc.offline.camvid import CLASSES, HELD_OUT, components, open_camvid


def write(root: Path, name: str, labels: np.ndarray, split: str = "val") -> None:
    for folder in (root / split, root / f"{split}annot"):
        folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(root / split / f"{name}.jpg"), np.full((6, 8, 3), 90, np.uint8))
    cv2.imwrite(str(root / f"{split}annot" / f"{name}.png"), labels)


def test_pictures_come_in_the_order_of_time_and_void_is_255(tmp_path: Path) -> None:
    labels = np.zeros((6, 8), np.uint8)
    labels[0], labels[1], labels[2] = 10, 11, 255
    write(tmp_path, "b_07961", labels)
    write(tmp_path, "b_07959", labels)
    found = open_camvid(tmp_path, split="val")
    assert [sample.name for sample in found] == ["b_07959", "b_07961"]
    assert found[0].labels[:, 0].tolist() == [10, 255, 255, 0, 0, 0]


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a", np.full((6, 8), 12, np.uint8))
    with pytest.raises(DataError, match=r"a\.png: has class 12"):
        open_camvid(tmp_path, split="val")[0]
    write(tmp_path, "a", np.zeros((6, 9), np.uint8))
    with pytest.raises(DataError, match=r"a\.png: 9 × 6 px, its picture has 8 × 6 px"):
        open_camvid(tmp_path, split="val")[0]
    (tmp_path / "valannot" / "a.png").unlink()
    with pytest.raises(DataError, match=r"a\.png: No such file"):
        open_camvid(tmp_path, split="val")[0]
    with pytest.raises(DataError, match="train: no such folder"):
        open_camvid(tmp_path, split="train")


def test_components_part_what_does_not_touch() -> None:
    labels = np.array([[1, 1, 0, 1], [0, 0, 0, 0], [255, 255, 2, 2]], np.uint8)
    parts = components(labels)
    assert sorted(np.unique(parts)) == [0, 1, 2, 3, 4]
    assert parts[2, 0] == 0
    assert parts[0, 0] == parts[0, 1] != parts[0, 3]
    assert parts[0, 0] != 0 != parts[0, 3]
    assert all(len(np.unique(labels[parts == n])) == 1 for n in range(1, 5))


def test_the_published_pictures(real: Callable[[str], Path]) -> None:
    folder = real("camvid")
    training, held_out = open_camvid(folder, split="train"), open_camvid(folder, split=HELD_OUT)
    assert (len(training), len(held_out)) == (367, 101)
    assert not set(training.names) & set(held_out.names)
    seen = np.unique(np.concatenate([np.unique(s.labels) for s in training.thinned(20)]))
    assert seen.tolist() == [*range(len(CLASSES)), 255]
