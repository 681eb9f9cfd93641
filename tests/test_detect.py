from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeperc import cli, places
from edgeperc.config import ModelCard, load
from edgeperc.detect import Detector
from edgeperc.detection.jitter import box_iou
from edgeperc.errors import ModelError
from edgeperc.packet import Events, Frame, Stamp
from edgeperc.places import ModelFolder
from edgeperc.result import Detections

Real = Callable[[str], Path]
STAMP = Stamp(source="cam", seq=3, start_ns=5, end_ns=7)
MODELS = Path(__file__).parents[1] / "models"


def frame(image: NDArray[np.uint8]) -> Frame:
    return Frame(stamp=STAMP, image=image)


def write_model(
    folder: Path,
    output: NDArray[np.float32],
    *,
    decode: str,
    input_px: tuple[int, int] = (32, 32),
    represent: str = "stretch",
    channels: int = 3,
    classes: Sequence[str] = ("a", "b"),
) -> ModelFolder:
    """A detector that answers `output` whatever it sees: output + 0 · mean of the picture."""
    folder.mkdir(exist_ok=True)
    names = ["batch", "channels", "height", "width"] if represent == "native" else None
    shape = names or [1, channels, *input_px]
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
            helper.make_node("Add", ["output", "nothing"], ["y"]),
        ],
        "constant",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output.shape)],
        [
            numpy_helper.from_array(np.zeros((), np.float32), "zero"),
            numpy_helper.from_array(output.astype(np.float32), "output"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(folder / "net.onnx"))
    digest = hashlib.sha256((folder / "net.onnx").read_bytes()).hexdigest()
    (folder / "model.toml").write_text(
        f"""
name = "constant"
task = "detection"
summary = "finds the same everywhere"
licence = "Apache-2.0"
source = "this test"
classes = {json.dumps(list(classes))}
[input]
kind = "frame"
represent = "{represent}"
width_px = {input_px[1]}
height_px = {input_px[0]}
channels = "{"grey" if channels == 1 else "rgb"}"
[detect]
decode = "{decode}"
score = 0.3
[[files]]
path = "net.onnx"
sha256 = "{digest}"
"""
    )
    return ModelFolder(load(folder / "model.toml", ModelCard), folder)


def yolox_output(*cells: tuple[int, Sequence[float]]) -> NDArray[np.float32]:
    """Of a 32 × 32 network with two classes: 16 + 4 + 1 cells, silent but for those given."""
    output = np.zeros((1, 21, 7), np.float32)
    for cell, values in cells:
        output[0, cell] = values
    return output


ONE = (5, (0.5, 0.5, 0.0, np.log(2), 0.9, 0.1, 0.8))
"""Cell (1, 1) of stride 8: a box of 8 × 16 px around (12, 12), class b, score 0.72."""


def test_a_box_comes_back_in_the_frames_own_pixels(tmp_path: Path) -> None:
    detector = Detector(write_model(tmp_path, yolox_output(ONE), decode="yolox"))
    found = detector(frame(np.zeros((64, 320, 3), np.uint8)))  # stretched by 10 and by 2
    np.testing.assert_allclose(found.boxes, [[80, 8, 160, 40]], rtol=1e-5)
    np.testing.assert_allclose(found.scores, [0.72], rtol=1e-5)
    assert found.class_ids.tolist() == [1]
    assert (found.stamp, found.classes, found.variance) == (STAMP, ("a", "b"), None)
    assert (found.model.name, found.model.engine) == ("constant", "onnxruntime")
    for values in (found.boxes, found.scores, found.class_ids):
        assert not values.flags.writeable
    assert (found.boxes.dtype, found.class_ids.dtype) == (np.float32, np.int64)


def test_a_letterboxed_picture_keeps_its_aspect(tmp_path: Path) -> None:
    model = write_model(tmp_path, yolox_output(ONE), decode="yolox", represent="fit")
    found = Detector(model)(frame(np.zeros((64, 320, 3), np.uint8)))  # a tenth, both ways
    np.testing.assert_allclose(found.boxes, [[80, 40, 160, 64]], rtol=1e-5)  # cut at the border


@pytest.mark.parametrize("shape", [(48, 48), (48, 48, 3)])
def test_grey_and_colour_frames_are_taken(tmp_path: Path, shape: tuple[int, ...]) -> None:
    detector = Detector(write_model(tmp_path, yolox_output(ONE), decode="yolox"))
    assert len(detector(frame(np.zeros(shape, np.uint8))).boxes) == 1


def test_what_the_caller_says_counts_before_what_the_card_says(tmp_path: Path) -> None:
    near = (6, (-0.4, 0.5, 0.0, np.log(2), 0.9, 0.1, 0.7))
    model = write_model(tmp_path, yolox_output(ONE, near), decode="yolox")
    picture = frame(np.zeros((32, 32, 3), np.uint8))
    assert len(Detector(model)(picture).boxes) == 1
    assert len(Detector(model, iou=0.9)(picture).boxes) == 2
    assert len(Detector(model, score=0.73)(picture).boxes) == 0


def test_numbers_that_are_none_are_dropped(tmp_path: Path) -> None:
    broken = [
        (k, (value, 0.5, 0.0, 0.0, objectness, 0.1, 0.8))
        for k, (value, objectness) in enumerate(
            [(np.nan, 0.9), (np.inf, 0.9), (0.5, np.nan), (-np.inf, 0.9)]
        )
    ]
    endless = (10, (0.5, 0.5, 1000.0, 0.0, 0.9, 0.1, 0.8))
    nothing_of_it = (11, (0.5, 0.5, -1000.0, 0.0, 0.9, 0.1, 0.8))
    output = yolox_output(*broken, endless, nothing_of_it, ONE)
    found = Detector(write_model(tmp_path, output, decode="yolox"))(
        frame(np.zeros((32, 32, 3), np.uint8))
    )
    np.testing.assert_allclose(found.boxes, [[8, 4, 16, 20]], rtol=1e-5)


def test_what_is_no_frame_with_pixels_is_refused(tmp_path: Path) -> None:
    detector = Detector(write_model(tmp_path, yolox_output(ONE), decode="yolox"))
    with pytest.raises(ModelError, match="320 × 0 px has no pixels"):
        detector(frame(np.zeros((0, 320, 3), np.uint8)))
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
        detector(events)


def test_a_network_that_answers_otherwise_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"output is \(1, 21, 7\), expected \(1, 21, 8\)"):
        Detector(write_model(tmp_path, yolox_output(), decode="yolox", classes=["a", "b", "c"]))
    with pytest.raises(ModelError, match="unknown decoder 'yolov1'"):
        Detector(write_model(tmp_path, yolox_output(), decode="yolov1"))
    with pytest.raises(ModelError, match="unknown way 'crop'"):
        Detector(write_model(tmp_path, yolox_output(), decode="yolox", represent="crop"))
    with pytest.raises(ModelError, match="input 'x' is"):
        Detector(write_model(tmp_path, yolox_output(), decode="yolox", channels=4))


def test_a_model_of_another_task_is_refused() -> None:
    model = ModelFolder(load(MODELS / "sltnet-twin" / "model.toml", ModelCard), MODELS)
    with pytest.raises(ModelError, match="does semantic, not boxes"):
        Detector(model)


def test_our_own_kind_takes_any_size_and_states_variances(tmp_path: Path) -> None:
    output = np.full((1, 10, 4, 8), -9, np.float32)
    output[0, :, 1, 2] = [-9, 2, 1, 0.5, 2, 1, 0, 1, -1, -2]
    model = write_model(
        tmp_path, output, decode="finder", represent="native", channels=1, input_px=(32, 64)
    )
    found = Detector(model)(frame(np.zeros((30, 60), np.uint8)))
    np.testing.assert_allclose(found.boxes, [[12, 8, 36, 20]], rtol=1e-5)
    assert found.variance is not None
    np.testing.assert_allclose(found.variance, 64 * np.exp([[0, 1, -1, -2]]), rtol=1e-5)
    assert found.class_ids.tolist() == [1]


def test_tiles_find_what_is_in_each(tmp_path: Path) -> None:
    detector = Detector(
        write_model(tmp_path, yolox_output(ONE), decode="yolox"), tile_px=(32,), overlap=0
    )
    found = detector(frame(np.zeros((32, 64, 3), np.uint8)))
    assert sorted(found.boxes[:, 0].tolist()) == pytest.approx([8, 40])


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Path], ModelFolder]:
    """A published model, imported as an operator would."""
    home = tmp_path_factory.mktemp("home")

    def bring(name: str, file: Path) -> ModelFolder:
        folder = home / name
        if not folder.exists():
            cli.app(
                ["models", "import", name, "--file", str(file), "--out", str(folder)],
                standalone_mode=False,
            )
        return places.find_model(str(folder))

    return bring


Published = Callable[[str, Path], ModelFolder]


def rgb(path: Path) -> NDArray[np.uint8]:
    picture = cv2.imread(str(path))
    assert picture is not None
    return np.ascontiguousarray(picture[..., ::-1]).astype(np.uint8, copy=False)


def named(found: Detections, name: str) -> NDArray[np.float32]:
    return found.boxes[found.class_ids == found.classes.index(name)]


@pytest.mark.parametrize(
    ("picture", "name", "present"),
    [("sahi_terrain1", "person", 7), ("sahi_terrain2", "car", 5)],
)
def test_tiles_find_each_annotated_object_once(
    picture: str, name: str, present: int, real: Real, published: Published
) -> None:
    suffix = "jpg" if picture.endswith("1") else "png"
    image = rgb(real(f"images/{picture}.{suffix}"))
    known = json.loads(real(f"images/{picture}_coco.json").read_text())["annotations"]
    truth = np.array([entry["bbox"] for entry in known], np.float32)
    truth[:, 2:] += truth[:, :2]
    model = published("yolox-nano", real("models/yolox_nano.onnx"))
    found = named(Detector(model, score=0.25, tile_px=(320, 640))(frame(image)), name)
    overlap = box_iou(truth, found)
    assert (overlap.max(axis=1) > 0.3).sum() == present
    assert len(found) == present  # no box twice, none that is nothing


def test_tiles_find_many_more_small_cars(real: Real, published: Published) -> None:
    picture = frame(rgb(real("images/sahi_small-vehicles1.jpeg")))
    model = published("yolox-nano", real("models/yolox_nano.onnx"))
    assert len(named(Detector(model)(picture), "car")) == 6
    assert len(named(Detector(model, tile_px=(320,))(picture), "car")) >= 24


def test_fastestdet_finds_the_nearest_car(real: Real, published: Published) -> None:
    picture = frame(rgb(real("images/sahi_small-vehicles1.jpeg")))
    model = published("fastestdet", real("models/FastestDet.onnx"))
    found = Detector(model)(picture)
    assert found.model.sha256.startswith("31cb14c017fc")
    np.testing.assert_allclose(named(found, "car"), [[324, 325, 377, 363]], atol=1)
