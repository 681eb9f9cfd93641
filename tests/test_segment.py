"""Segmenters of frames; those of events are tested with the engines and the whole pipeline."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeperc.config import ModelCard, load
from edgeperc.errors import ModelError
from edgeperc.packet import Events, Frame, Stamp
from edgeperc.places import ModelFolder
from edgeperc.segment import Segmenter

STAMP = Stamp(source="cam", seq=3, start_ns=5, end_ns=7)
CLASSES = ("dark", "bright")


def write_model(folder: Path, *, stride: int, represent: str = "native", classes: int = 2) -> Path:
    """Means of stride x stride px blocks; bright is what lies above 0.5."""
    weights = np.zeros((classes, 1, stride, stride), np.float32)
    weights[1] = 1 / stride**2
    bias = np.full(classes, -1, np.float32)
    bias[:2] = 0.5, 0
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"], strides=[stride, stride])],
        "bright",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, classes, "oh", "ow"])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folder.mkdir(exist_ok=True)
    onnx.save(model, str(folder / "net.onnx"))
    digest = hashlib.sha256((folder / "net.onnx").read_bytes()).hexdigest()
    (folder / "model.toml").write_text(
        f"""
name = "bright"
task = "semantic"
summary = ""
licence = "Apache-2.0"
source = "this test"
classes = {json.dumps(CLASSES)}
[input]
kind = "frame"
represent = "{represent}"
width_px = 64
height_px = 32
channels = "grey"
[[files]]
path = "net.onnx"
sha256 = "{digest}"
"""
    )
    return folder


def segmenter(folder: Path) -> Segmenter:
    return Segmenter(ModelFolder(load(folder / "model.toml", ModelCard), folder))


def blocks() -> NDArray[np.uint8]:
    image = np.zeros((48, 80), np.uint8)
    image[8:24, 16:56] = 255
    return image


@pytest.mark.parametrize("stride", [1, 4, 8])
@pytest.mark.parametrize("colour", [False, True])
def test_a_frame_gets_a_label_a_pixel(tmp_path: Path, stride: int, colour: bool) -> None:
    image = blocks()
    picture = np.repeat(image[..., None], 3, axis=2) if colour else image
    answer = segmenter(write_model(tmp_path, stride=stride))(Frame(stamp=STAMP, image=picture))
    np.testing.assert_array_equal(answer.labels, image // 255)
    assert (answer.labels.dtype, answer.stamp, answer.classes) == (np.uint8, STAMP, CLASSES)
    assert answer.model.engine == "onnxruntime"


def test_labels_of_a_resized_frame_come_back_to_its_pixels(tmp_path: Path) -> None:
    net = segmenter(write_model(tmp_path, stride=4, represent="stretch"))
    image = np.zeros((96, 192), np.uint8)
    image[24:48, 48:120] = 255
    np.testing.assert_array_equal(net(Frame(stamp=STAMP, image=image)).labels, image // 255)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"output is \(1, 3, 8, 16\), expected logits \(1, 2,"):
        segmenter(write_model(tmp_path, stride=4, classes=3))
    with pytest.raises(ModelError, match="unknown way 'voxel-grid'"):
        segmenter(write_model(tmp_path, stride=4, represent="voxel-grid"))
    net = segmenter(write_model(tmp_path, stride=4))
    with pytest.raises(ModelError, match="80 × 0 px has no pixels"):
        net(Frame(stamp=STAMP, image=np.zeros((0, 80), np.uint8)))
    none = np.zeros(0, np.uint16)
    events = Events(
        stamp=STAMP,
        t=none.astype(np.int64),
        x=none,
        y=none,
        p=none.astype(bool),
        width_px=4,
        height_px=4,
    )
    with pytest.raises(ModelError, match="takes frames, got events"):
        net(events)
