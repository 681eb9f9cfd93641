from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeperc import masks
from edgeperc.errors import ConfigError, DataError
from edgeperc.mask_files import CocoFile, NumberFolder, numbers, outlines
from edgeperc.packet import Stamp
from edgeperc.palette import read_numbers
from edgeperc.result import Instances, ModelRef


def found(*ids: int, classes: tuple[str, ...] = (), seq: int = 0) -> Instances:
    drawn = []
    for place in range(len(ids)):
        mask = np.zeros((40, 60), np.bool_)
        mask[5 + seq : 25 + seq, 10 * place : 10 * place + 15] = True
        drawn.append(masks.encode(mask))
    return Instances(
        stamp=Stamp(source="", seq=seq, start_ns=0, end_ns=0),
        ids=np.array(ids, np.int64),
        masks=tuple(drawn),
        boxes=np.array([masks.box(rle) for rle in drawn], np.float32).reshape(-1, 4),
        scores=np.full(len(ids), 0.75, np.float32),
        visible=np.ones(len(ids), np.float32),
        picture_px=(60, 40),
        model=ModelRef(name="m"),
        classes=classes,
    )


def empty(one: int) -> Instances:
    nothing = masks.encode(np.zeros((40, 60), np.bool_))
    return Instances(
        stamp=Stamp(source="", seq=0, start_ns=0, end_ns=0),
        ids=np.array([one], np.int64),
        masks=(nothing,),
        boxes=np.zeros((1, 4), np.float32),
        scores=np.zeros(1, np.float32),
        visible=np.zeros(1, np.float32),
        picture_px=(60, 40),
        model=ModelRef(name="m"),
    )


def test_pycocotools_reads_what_was_written(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    file = CocoFile(tmp_path / "m.json")
    frames = [found(1, 7, classes=("dog", "cat")), empty(1), found(7, classes=("cat",), seq=3)]
    for number, each in enumerate(frames):
        file.write(each, f"{number:05d}")
    file.close()
    file.close()
    with contextlib.redirect_stdout(io.StringIO()):
        read = coco.COCO(str(tmp_path / "m.json"))
    assert [read.imgs[k]["file_name"] for k in (1, 2, 3)] == ["00000", "00001", "00002"]
    tracks = {(each["image_id"], each["track_id"]): each for each in read.anns.values()}
    assert sorted(tracks) == [(1, 1), (1, 7), (3, 7)]
    last = tracks[3, 7]
    expected = masks.decode(frames[2].masks[0])
    np.testing.assert_array_equal(read.annToMask(last), expected)
    assert last["area"] == expected.sum()
    assert last["bbox"] == [0, 8, 15, 20]
    assert read.cats[last["category_id"]]["name"] == "cat"


def test_a_json_without_a_frame_is_one_too(tmp_path: Path) -> None:
    CocoFile(tmp_path / "m.json").close()
    assert json.loads((tmp_path / "m.json").read_text()) == {
        "annotations": [],
        "images": [],
        "categories": [],
    }
    with pytest.raises(ConfigError, match="cannot be written"):
        CocoFile(tmp_path / "gone" / "m.json")


def test_pictures_of_numbers_are_read_as_davis_is(tmp_path: Path) -> None:
    folder = NumberFolder(tmp_path / "dog")
    folder.write(found(1, 7), "00000.jpg")
    folder.close()
    read, has_palette = read_numbers(tmp_path / "dog" / "00000.png")
    assert has_palette
    np.testing.assert_array_equal(read, numbers(found(1, 7)))
    assert [read[10, x] for x in (5, 12, 20, 40)] == [1, 7, 7, 0]  # the later one lies above
    shown = cv2.imread(str(tmp_path / "dog" / "00000.png"))
    assert shown[10, 5].any()
    assert not shown[30, 5].any()


@pytest.mark.parametrize("one", [0, 255, -1, 1000])
def test_a_picture_does_not_hold_every_number(one: int) -> None:
    with pytest.raises(DataError, match="from 1 to 254"):
        numbers(found(one))


def test_a_folder_with_something_in_it_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    for folder in (tmp_path, tmp_path / "mine"):
        with pytest.raises(ConfigError, match="not an empty folder"):
            NumberFolder(folder)


def test_outlines_stand_for_the_masks() -> None:
    (each,) = outlines(found(4), tolerance_px=0)
    assert "mask" not in each
    (polygon,) = each["polygons"]
    assert sorted(map(tuple, polygon["outline"])) == [(0, 5), (0, 25), (15, 5), (15, 25)]
    assert polygon["holes"] == []
