from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from edgeperc.errors import ConfigError, ModelError
from edgeperc.offline.datasets import open_dataset
from edgeperc.offline.dsec import CLASSES as DSEC_CLASSES
from edgeperc.offline.evaluate import evaluate
from edgeperc.twin.scene import CLASSES

from .test_ddd17 import events, mask, write_original, write_preprocessed
from .test_dsec import NAME, label_map, write_events, write_labels


def write_model(
    folder: Path,
    answer: int,
    *,
    classes: tuple[str, ...] = CLASSES,
    represent: str = "voxel-grid",
    sensor: tuple[int, int] = (346, 260),
    network: tuple[int, int] = (264, 352),
) -> str:
    """A model folder whose network says one class everywhere."""
    folder.mkdir(exist_ok=True)
    bias = np.zeros(len(classes), np.float32)
    bias[answer] = 1
    shape = (1, 5, *network)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"])],
        "constant",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, len(classes), *network))],
        [
            numpy_helper.from_array(np.zeros((len(classes), 5, 1, 1), np.float32), "w"),
            numpy_helper.from_array(bias, "b"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(folder / "net.onnx"))
    digest = hashlib.sha256((folder / "net.onnx").read_bytes()).hexdigest()
    names = json.dumps(list(classes))
    (folder / "model.toml").write_text(
        f"""
name = "constant"
task = "semantic"
summary = "says one class everywhere"
licence = "Apache-2.0"
source = "this test"
classes = {names}
[input]
kind = "events"
represent = "{represent}"
width_px = {sensor[0]}
height_px = {sensor[1]}
window_us = 50000
[[files]]
path = "net.onnx"
sha256 = "{digest}"
"""
    )
    return str(folder)


def test_a_constant_answer_scores_its_class_share(tmp_path: Path) -> None:
    model = write_model(tmp_path, CLASSES.index("background"))
    seen: list[tuple[int, int]] = []
    found = evaluate(
        model, "twin:20000", limit=3, threads=1, on_window=lambda k, n: seen.append((k, n))
    )

    truth = np.stack([s.labels for s in open_dataset("twin:20000", limit=3)])
    share = float((truth == CLASSES.index("background")).mean())
    assert found.windows == 3
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert found.scores.pixels == 3 * 260 * 346
    assert found.scores.accuracy == pytest.approx(share)
    assert found.scores.iou["background"] == pytest.approx(share)
    assert found.scores.iou["flat"] == 0
    assert found.scores.miou == pytest.approx(share / len(np.unique(truth)))


def test_it_prints_as_a_table_and_as_json(tmp_path: Path) -> None:
    found = evaluate(write_model(tmp_path, 0), "twin:20000", limit=1, threads=1)
    assert json.loads(json.dumps(found.as_json()))["scores"]["iou"]["background"] == 0
    shown = io.StringIO()
    Console(file=shown, width=80).print(found.table())
    for word in (*CLASSES, "mIoU", "accuracy"):
        assert word in shown.getvalue()


@pytest.mark.parametrize("form", ["preprocessed", "original"])
def test_ddd17_is_scored_where_it_is_labelled(tmp_path: Path, form: str) -> None:
    if form == "preprocessed":
        data = tmp_path / "dir1"
        write_preprocessed(data, events(), [5])
    else:
        data = tmp_path / "rec1.hdf5"
        write_original(data, events())
        (tmp_path / "rec1" / "segmentation_masks").mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "rec1" / "segmentation_masks" / "s_5.png"), mask(5))
    human = CLASSES.index("human")
    model = write_model(tmp_path / "model", human, represent="sltnet-ddd17", network=(200, 352))
    found = evaluate(model, str(data), threads=1)

    known = mask(5)[mask(5) != 255]
    assert found.windows == 1
    assert found.scores.pixels == known.size
    assert found.scores.accuracy == pytest.approx(float((known == human).mean()))


def test_dsec_is_scored_in_undistorted_pixels(tmp_path: Path) -> None:
    write_labels(tmp_path / NAME, NAME, [10_000 * k for k in range(9)])
    write_events(tmp_path / NAME / "events" / "left", count=5_000, duration_us=100_000)
    road = DSEC_CLASSES.index("road")
    model = write_model(
        tmp_path / "model",
        road,
        classes=DSEC_CLASSES,
        represent="sltnet-dsec",
        sensor=(640, 480),
        network=(440, 640),
    )
    found = evaluate(model, str(tmp_path / NAME), threads=1)

    truth = np.stack([label_map(k) for k in (6, 8)])
    known = truth[truth != 255]
    assert found.scores.pixels == known.size
    assert found.scores.accuracy == pytest.approx(float((known == road).mean()))


def test_a_model_that_does_not_fit_the_data_is_refused(tmp_path: Path) -> None:
    write_labels(tmp_path / NAME, NAME, [10_000 * k for k in range(9)])
    write_events(tmp_path / NAME / "events" / "left", count=5_000, duration_us=100_000)
    with pytest.raises(ConfigError, match="constant has the classes flat"):
        evaluate(write_model(tmp_path / "six", 0), str(tmp_path / NAME), threads=1)
    eleven = write_model(tmp_path / "eleven", 0, classes=DSEC_CLASSES)
    with pytest.raises(ModelError, match="does not take undistorted events"):
        evaluate(eleven, str(tmp_path / NAME), threads=1)
