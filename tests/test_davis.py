from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeperc.errors import DataError
from edgeperc.offline import davis
from edgeperc.palette import write_numbers


def write(
    root: Path, name: str, annotations: list[np.ndarray], *, palette: bool, below: str = ""
) -> None:
    pictures, truths = root / "JPEGImages" / below / name, root / "Annotations" / below / name
    for folder in (pictures, truths):
        folder.mkdir(parents=True, exist_ok=True)
    for k, labels in enumerate(annotations):
        grey = np.full((*labels.shape, 3), 10 * k, np.uint8)
        cv2.imwrite(str(pictures / f"{k:05d}.jpg"), grey)
        path = truths / f"{k:05d}.png"
        write_numbers(path, labels) if palette else cv2.imwrite(str(path), labels)


def labels(*rows: list[int]) -> np.ndarray:
    return np.array(rows, np.uint8)


@pytest.mark.parametrize("below", ["", "480p"])
def test_several_objects_and_void_of_2017(tmp_path: Path, below: str) -> None:
    first, second = labels([0, 1, 2], [0, 255, 2]), labels([3, 1, 1], [0, 0, 255])
    write(tmp_path, "pigs", [first, second], palette=True, below=below)
    (footage,) = davis.open_davis(tmp_path)
    assert (footage.name, footage.objects(), footage.labels.names) == (
        "pigs",
        (1, 2),
        ("00000", "00001"),
    )
    np.testing.assert_array_equal(np.stack(list(footage.labels)), [first, second])
    assert davis.numbers(footage.labels[1]) == (1, 3)
    assert int(footage.pictures[1].mean().round()) == 10


def test_the_one_object_of_2016_is_number_1(tmp_path: Path) -> None:
    frames = [labels([0, 255]), labels([0, 0]), labels([255, 255])]
    write(tmp_path, "dog", frames, palette=False)
    (footage,) = davis.open_davis(tmp_path)
    assert footage.objects() == (1,)
    assert [m.tolist() for m in footage.labels] == [[[0, 1]], [[0, 0]], [[1, 1]]]


def test_grey_numbers_keep_their_void(tmp_path: Path) -> None:
    frames = [labels([0, 1]), labels([0, 255])]
    write(tmp_path, "dog", frames, palette=False)
    (footage,) = davis.open_davis(tmp_path)
    assert [m.tolist() for m in footage.labels] == [[[0, 1]], [[0, 255]]]


def test_splits_share_nothing(tmp_path: Path) -> None:
    for name in ("dog", "libby", "blackswan"):
        write(tmp_path, name, [labels([0, 255])], palette=False)
    names = {
        split: [f.name for f in davis.open_davis(tmp_path, split=split)]
        for split in ("train", "held-out", "all")
    }
    assert names == {
        "train": ["blackswan", "libby"],
        "held-out": ["dog"],
        "all": ["blackswan", "dog", "libby"],
    }
    assert [f.name for f in davis.open_davis(tmp_path, names=["libby"])] == ["libby"]


def test_what_is_missing_or_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not DAVIS, there is no folder JPEGImages"):
        davis.open_davis(tmp_path)
    write(tmp_path, "libby", [labels([0, 255]), labels([0, 255, 0])], palette=False)
    with pytest.raises(DataError, match="no sequence of the split 'held-out'"):
        davis.open_davis(tmp_path, split="held-out")
    with pytest.raises(DataError, match="has no sequence cow"):
        davis.open_davis(tmp_path, names=["cow"])
    (footage,) = davis.open_davis(tmp_path)
    with pytest.raises(DataError, match=r"00001\.png: \(3, 1\) px, the first frame \(2, 1\) px"):
        footage.labels[1]
    truth = tmp_path / "Annotations" / "libby" / "00000.png"
    cv2.imwrite(str(truth), labels([0, 255, 0]))
    with pytest.raises(DataError, match=r"00000\.png: 3 × 1 px, its picture has 2 × 1 px"):
        footage.frame(0)
    truth.write_bytes(truth.read_bytes()[:40])
    with pytest.raises(DataError, match="damaged PNG"):
        footage.labels[0]
    truth.unlink()
    with pytest.raises(DataError, match=r"00000\.png: missing, its picture is there"):
        davis.open_davis(tmp_path)


def test_the_published_sequences(real: Callable[[str], Path]) -> None:
    folder = real("davis")
    held_out = davis.open_davis(folder, split="held-out")
    training = davis.open_davis(folder, split="train")
    assert {f.name for f in held_out} == set(davis.HELD_OUT)
    assert len(training) == 5
    for footage in (*held_out, *training):
        picture, truth = footage.frame(len(footage.pictures) - 1)
        assert footage.objects() == (1,)
        assert picture.shape == (480, 854, 3)
        assert truth.max() <= 1
