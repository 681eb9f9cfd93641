from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeperc import (
    ConfigError,
    Detections,
    Gaze,
    Instances,
    LabelMap,
    ModelRef,
    Stamp,
    Timings,
    masks,
)
from edgeperc.sink import Inventory
from edgeperc.sinks.file import File


def result(labels: np.ndarray, *, model: str = "net", end_us: int = 50_000) -> LabelMap:
    return LabelMap(
        stamp=Stamp(source="dvs", seq=3, start_ns=0, end_ns=end_us * 1000),
        labels=labels,
        classes=("a",),
        model=ModelRef(name=model),
        timings=Timings(total_ns=1_500_000),
    )


def test_labels_and_lines_come_back_as_they_were(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 256, (26, 34), dtype=np.uint8)
    sink = File(str(tmp_path / "out"), inventory=Inventory())
    sink.write(result(labels))
    sink.close()
    sink.close()
    (line,) = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "source": "dvs",
        "seq": 3,
        "start_us": 0,
        "end_us": 50_000,
        "model": "net",
        "latency_ms": 1.5,
        "file": "labels/50000.png",
    }
    read = cv2.imread(str(tmp_path / "out" / "labels" / "50000.png"), cv2.IMREAD_UNCHANGED)
    assert read.dtype == np.uint8
    assert (read == labels).all()


def test_two_models_do_not_overwrite_each_other(tmp_path: Path) -> None:
    inventory = Inventory(models=(ModelRef(name="a"), ModelRef(name="b")))
    sink = File(str(tmp_path / "out"), inventory=inventory)
    for model in ("a", "b"):
        sink.write(result(np.zeros((2, 2), np.uint8), model=model))
    sink.close()
    assert len(list((tmp_path / "out" / "labels").rglob("*.png"))) == 2


def test_an_earlier_run_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text("mine\n")
    with pytest.raises(ConfigError, match="not an empty folder"):
        File(str(tmp_path), inventory=Inventory())
    assert (tmp_path / "results.jsonl").read_text() == "mine\n"


def test_boxes_and_gaze_stand_in_their_line(tmp_path: Path) -> None:
    found = Detections(
        stamp=Stamp(source="search", seq=0, start_ns=0, end_ns=1000),
        boxes=np.array([[1, 2, 3, 4]], np.float32),
        scores=np.array([0.5], np.float32),
        class_ids=np.array([1]),
        classes=("person", "vehicle"),
        model=ModelRef(name="finder"),
        gaze=Gaze(pan_rad=0.0, tilt_rad=np.pi / 180),
    )
    sink = File(str(tmp_path / "out"), inventory=Inventory())
    sink.write(found)
    sink.close()
    line = json.loads((tmp_path / "out" / "results.jsonl").read_text())
    assert line["gaze"] == {"pan_deg": 0.0, "tilt_deg": 1.0}
    assert line["detections"] == [{"class": "vehicle", "score": 0.5, "box": [1, 2, 3, 4]}]


def test_objects_are_a_line_with_masks_that_coco_reads(tmp_path: Path) -> None:
    mask = np.zeros((6, 8), np.bool_)
    mask[2:5, 3:7] = True
    rle = masks.encode(mask)
    sink = File(str(tmp_path / "out"), inventory=Inventory())
    sink.write(
        Instances(
            stamp=Stamp(source="cam", seq=3, start_ns=0, end_ns=50_000_000),
            ids=np.array([12]),
            masks=(rle,),
            boxes=masks.box(rle)[None],
            scores=np.array([0.5], np.float32),
            visible=np.array([0.75], np.float32),
            picture_px=(8, 6),
            model=ModelRef(name="net"),
        )
    )
    sink.close()
    (line,) = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    (found,) = json.loads(line)["instances"]
    assert {key: found[key] for key in ("id", "score", "visible", "box")} == {
        "id": 12,
        "score": 0.5,
        "visible": 0.75,
        "box": [3, 2, 7, 5],
    }
    assert (masks.decode(masks.from_coco(found["mask"])) == mask).all()
