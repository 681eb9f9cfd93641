from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from edgeperc import masks, places
from edgeperc.errors import ConfigError, DataError
from edgeperc.offline import evaluate_coco, evaluate_prompts, evaluate_video
from edgeperc.offline.evaluate import evaluate
from edgeperc.offline.evaluate_prompts import PromptEvaluation
from edgeperc.offline.score_masks import PromptScores
from edgeperc.offline.score_video import VideoScores
from edgeperc.packet import Frame
from edgeperc.palette import read_numbers, write_numbers
from edgeperc.places import ModelFolder
from edgeperc.prompt import Answer, Efficient, Prompt
from edgeperc.result import Instances, ModelRef

from .test_bsds import write_photograph
from .test_camvid import write as write_street
from .test_davis import write as write_sequence
from .test_detect import ONE, write_model, yolox_output
from .test_score_masks import Threshold
from .tiny_promptable import exported, tiny_sam2

SHA256 = "0123456789abcdef" * 4
CARD = f"""
name = "threshold"
task = "promptable"
summary = "understands colours"
licence = "Apache-2.0"
source = "this test"
classes = []
[input]
kind = "frame"
represent = "stretch"
width_px = 64
height_px = 64
[prompt]
kind = "video"
picture_px = 64
[[files]]
role = "encoder"
path = "encoder.onnx"
sha256 = "{SHA256}"
"""


class Pictures:
    """An ImageSession that thresholds."""

    def __init__(self, folder: ModelFolder, *, threads: int) -> None:
        self._now: Threshold | None = None

    def look(self, image: NDArray[np.uint8]) -> None:
        self._now = Threshold(image)

    def ask(self, prompt: Prompt, **how: Any) -> Answer:
        assert self._now is not None
        return self._now.ask(prompt, **how)

    def close(self) -> None:
        self._now = None


class Colours:
    """A VideoSession that follows what has the mean colour of a mask it was shown."""

    def __init__(self, folder: ModelFolder, *, threads: int, efficient: Efficient) -> None:
        self._colours: dict[int, NDArray[Any]] = {}

    def reset(self) -> None:
        self._colours = {}

    def step(self, frame: Frame, prompts: dict[int, Prompt]) -> Instances:
        for number, prompt in prompts.items():
            assert number not in self._colours, "object of another sequence"
            self._colours[number] = frame.image[prompt.mask].mean(axis=0)
        ids = np.array(list(self._colours), np.int64)
        seen = [np.abs(frame.image - c).max(axis=2) < 20 for c in self._colours.values()]
        rles = tuple(masks.encode(mask) for mask in seen)
        return Instances(
            stamp=frame.stamp,
            ids=ids,
            masks=rles,
            boxes=np.array([masks.box(rle) for rle in rles], np.float32).reshape(-1, 4),
            scores=np.ones(len(ids), np.float32),
            visible=np.ones(len(ids), np.float32),
            picture_px=(frame.image.shape[1], frame.image.shape[0]),
            model=ModelRef(name="colours", sha256=""),
        )

    def close(self) -> None:
        pass


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model that really segments, by colour."""
    monkeypatch.setattr(evaluate_prompts, "ImageSession", Pictures)
    monkeypatch.setattr(evaluate_coco, "ImageSession", Pictures)
    monkeypatch.setattr(evaluate_video, "VideoSession", Colours)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.toml").write_text(CARD)
    (tmp_path / "model" / "encoder.onnx").touch()
    return str(tmp_path / "model")


def run(model: str, data: str, **how: Any) -> PromptEvaluation:
    done: list[tuple[int, int]] = []
    found = evaluate(model, data, on_window=lambda k, total: done.append((k, total)), **how)
    assert isinstance(found, PromptEvaluation)
    total = done[-1][1]
    assert done == [(k, total) for k in range(1, total + 1)]
    json.dumps(found.as_json())
    Console(quiet=True).print(found.table())
    return found


def colour(path: Path, numbers: NDArray[Any]) -> None:
    """Paint a picture whose objects have shades far apart."""
    table = np.repeat(np.array([[30], [110], [180], [250]], np.uint8), 3, axis=1)
    quality = [cv2.IMWRITE_JPEG_QUALITY, 100] if path.suffix == ".jpg" else []
    cv2.imwrite(str(path), table[numbers], quality)


def photographs(folder: Path, split: str, count: int) -> None:
    """Two segments, and a third that is too small; two people, who agree."""
    for k in range(count):
        labels = np.ones((48, 64), np.uint16)
        labels[10:30, 10 + k : 40] = 2
        labels[0, 0] = 3
        name = f"{split}-{k}"
        write_photograph(folder, name, [labels, labels], split)
        colour(folder / "images" / split / f"{name}.jpg", np.where(labels == 3, 1, labels))


def sequence(folder: Path, name: str, *, frames: int = 5, void: bool = False) -> None:
    """Two objects that move to the right; the second hides behind the first at the end."""
    annotations = []
    for k in range(frames):
        labels = np.zeros((48, 64), np.uint8)
        labels[20:30, 40:50] = 2
        labels[10:35, 5 + 8 * k : 15 + 8 * k] = 1
        annotations.append(labels)
    write_sequence(folder, name, annotations, palette=True)
    for k, labels in enumerate(annotations):
        colour(folder / "JPEGImages" / name / f"{k:05d}.jpg", labels)
        if void:
            labels[10:12] = 255
            write_numbers(folder / "Annotations" / name / f"{k:05d}.png", labels)


def test_photographs_are_asked_in_all_ways(model: str, tmp_path: Path) -> None:
    photographs(tmp_path / "bsds", "train", 3)
    photographs(tmp_path / "bsds", "val", 2)
    found = run(model, f"bsds500:{tmp_path / 'bsds'}", out=tmp_path / "out")
    assert isinstance(found.scores, PromptScores)
    assert (found.model, found.sha256, found.split) == ("threshold", SHA256, "test")
    assert (found.scores.objects, found.scores.left_out) == (2 * 2 * 2, 2 * 2)
    assert found.scores.ways["1 click"].selected > 0.99
    # The middle of the box around the ground lies on the thing that stands on it.
    assert found.scores.ways["box"].selected == pytest.approx(0.5, abs=0.01)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("val-0.jpg", "val-0.png", "val-1.jpg", "val-1.png")
    ]
    numbers, _ = read_numbers(tmp_path / "out" / "val-0.png")
    assert [int(numbers[y, x]) for y, x in ((20, 20), (40, 60))] == [2, 1]
    sheet = cv2.imread(str(tmp_path / "out" / "val-0.jpg"))
    assert sheet is not None
    assert sheet.shape[1] == 5 * 320
    parts = {"train": 3, "valid": 2, "all": 5}
    for split, pictures in parts.items():
        scores = run(model, f"bsds500:{tmp_path / 'bsds'}", split=split).scores
        assert isinstance(scores, PromptScores)
        assert scores.objects == 4 * pictures
    few = run(model, f"bsds500:{tmp_path / 'bsds'}", split="all", limit=1).scores
    assert isinstance(few, PromptScores)
    assert few.objects == 4


def test_streets_are_cut_into_what_is_connected(model: str, tmp_path: Path) -> None:
    labels = np.zeros((48, 64), np.uint8)
    labels[10:20, 5:20] = labels[10:20, 30:45] = 1
    labels[40:] = 11
    write_street(tmp_path, "a", labels)
    colour(tmp_path / "val" / "a.jpg", np.where(labels == 11, 3, labels))
    found = run(model, f"camvid:{tmp_path}")
    assert isinstance(found.scores, PromptScores)
    assert found.scores.objects == 3  # the sky and two buildings; void is none
    assert found.scores.ways["1 click"].selected > 0.95


def test_frames_of_videos_leave_void_out(model: str, tmp_path: Path) -> None:
    sequence(tmp_path, "dog", void=True)
    sequence(tmp_path, "libby")
    found = run(model, f"davis-frames:{tmp_path}", out=tmp_path / "out")
    assert isinstance(found.scores, PromptScores)
    # In the last frame the first object has passed; in the one before it parts the second in two.
    assert found.scores.objects == 10
    assert found.scores.ways["3 clicks"].selected > 0.95
    assert (tmp_path / "out" / "dog-00003.jpg").exists()
    assert run(model, f"davis-frames:{tmp_path}", limit=2).scores.objects == 4


def test_objects_are_followed_and_the_files_score_the_same(model: str, tmp_path: Path) -> None:
    for name in ("dog", "libby"):
        sequence(tmp_path / "davis", name)
    out = tmp_path / "out"
    found = run(model, f"davis:{tmp_path / 'davis'}", split="all", out=out)
    scores = found.scores
    assert isinstance(scores, VideoScores)
    assert list(scores.objects) == ["dog_1", "dog_2", "libby_1", "libby_2"]
    assert scores.frames == 4 * 3
    assert scores.j_and_f > 0.9
    assert sorted(path.name for path in out.iterdir()) == ["dog", "dog.jpg", "libby", "libby.jpg"]
    again = run(str(out), f"davis:{tmp_path / 'davis'}")
    assert again.scores == scores
    assert again.prompts == "2 of 2 sequences"
    held_out = run(model, f"davis:{tmp_path / 'davis'}").scores
    assert isinstance(held_out, VideoScores)
    assert {name.split("_")[0] for name in held_out.objects} == {"dog"}
    short = run(model, f"davis:{tmp_path / 'davis'}", limit=3).scores
    assert isinstance(short, VideoScores)
    assert short.frames == 2 * 1


def test_void_is_not_held_against_who_follows(model: str, tmp_path: Path) -> None:
    sequence(tmp_path, "dog", void=True)
    scores = run(model, f"davis:{tmp_path}").scores
    assert isinstance(scores, VideoScores)
    assert scores.objects["dog_1"][0].mean > 0.98  # two of its 25 rows are void


def test_where_masks_overlap_the_surer_one_counts() -> None:
    everywhere = masks.encode(np.ones((4, 6), np.bool_))
    left = np.zeros((4, 6), np.bool_)
    left[:, :3] = True
    for scores, expected in (([0.9, 0.5], [5, 5]), ([0.5, 0.9], [8, 5])):
        found = Instances(
            stamp=None,  # type: ignore[arg-type]
            ids=np.array([5, 8]),
            masks=(everywhere, masks.encode(left)),
            boxes=np.zeros((2, 4), np.float32),
            scores=np.array(scores, np.float32),
            visible=np.ones(2, np.float32),
            picture_px=(6, 4),
            model=ModelRef(name="", sha256=""),
        )
        assert evaluate_video.numbered(found, (4, 6, 3))[0, [0, 5]].tolist() == expected


def test_results_of_others_are_held_to_what_was_asked(tmp_path: Path) -> None:
    sequence(tmp_path / "davis", "dog")
    data = f"davis:{tmp_path / 'davis'}"
    results = tmp_path / "results" / "dog"
    results.mkdir(parents=True)
    perfect = [read_numbers(p)[0] for p in sorted((tmp_path / "davis/Annotations/dog").iterdir())]
    for k in (1, 2, 3):  # the first and last frame are nobody's business
        write_numbers(results / f"{k:05d}.png", perfect[k])
    scores = run(str(results.parent), data).scores
    assert isinstance(scores, VideoScores)
    assert scores.j_and_f == 1
    for k, (damage, reason) in enumerate(
        (
            (
                np.where(perfect[2] == 2, 3, perfect[2]),
                "has object 3; the first frame of dog has 1, 2",
            ),
            (perfect[2][:, 1:], r"frame 00002: the answer has \(63, 48\) px"),
        )
    ):
        write_numbers(results / "00002.png", damage.astype(np.uint8))
        with pytest.raises(DataError, match=reason):
            evaluate(str(results.parent), data)
        assert k < 2
    (results / "00002.png").unlink()
    with pytest.raises(DataError, match=r"00002\.png: No such file"):
        evaluate(str(results.parent), data)
    results.rename(results.with_name("cow"))
    with pytest.raises(DataError, match="has no sequence cow"):
        evaluate(str(results.parent), data)
    with pytest.raises(ConfigError, match="scored on --data davis:FOLDER"):
        evaluate(str(results.parent), f"davis-frames:{tmp_path / 'davis'}")


def test_grey_results_are_of_the_one_object(tmp_path: Path) -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[5:15, 5:15] = 255
    write_sequence(tmp_path / "davis", "dog", [labels] * 4, palette=False)
    (tmp_path / "results" / "dog").mkdir(parents=True)
    for k in range(4):
        cv2.imwrite(str(tmp_path / "results" / "dog" / f"{k:05d}.png"), labels)
    scores = run(str(tmp_path / "results"), f"davis:{tmp_path / 'davis'}").scores
    assert isinstance(scores, VideoScores)
    assert scores.j_and_f == 1


def coco_json(folder: Path, *, with_masks: bool = True) -> Path:
    """Two cars and a person of one colour each; a crowd that nobody is asked about."""
    labels = np.zeros((48, 64), np.uint8)
    boxes = [(16, 6, 16, 24), (38, 5, 20, 30), (2, 30, 12, 15)]
    for number, (x, y, width, height) in enumerate(boxes, start=1):
        labels[y : y + height, x : x + width] = number
    colour(folder / "street.png", labels)
    annotations = [
        {
            "id": k,
            "image_id": 1,
            "category_id": category,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": int(category == 3),
            **({"segmentation": masks.to_coco(masks.encode(labels == k))} if with_masks else {}),
        }
        for k, (box, category) in enumerate(
            zip([*boxes, (0, 0, 64, 5)], (1, 1, 2, 3), strict=True), start=1
        )
    ]
    content = {
        "images": [{"id": 1, "file_name": "street.png", "width": 64, "height": 48}],
        "categories": [{"id": k, "name": n} for k, n in ((1, "car"), (2, "person"), (3, "herd"))],
        "annotations": annotations,
    }
    path = folder / "street.json"
    path.write_text(json.dumps(content))
    return path


def test_masks_in_the_boxes_of_a_json(model: str, tmp_path: Path) -> None:
    path = coco_json(tmp_path)
    found = run(model, f"coco:{path}", out=tmp_path / "out")
    assert isinstance(found.scores, dict)
    assert list(found.scores) == ["masks", "boxes"]
    assert {name: s.ap for name, s in found.scores.items()} == {"masks": 1, "boxes": 1}
    assert found.scores["masks"].by_class == {"car": 1, "person": 1, "herd": None}
    numbers, _ = read_numbers(tmp_path / "out" / "street.png")
    assert len(np.unique(numbers)) == 4
    without = run(model, f"coco:{coco_json(tmp_path, with_masks=False)}")
    assert isinstance(without.scores, dict)
    assert list(without.scores) == ["boxes"]


def test_boxes_come_from_a_detector(model: str, tmp_path: Path) -> None:
    """It finds the first car, which has another number in its list of classes, and no more."""
    path = coco_json(tmp_path)
    detector = write_model(
        tmp_path / "detector", yolox_output(ONE), decode="yolox", classes=["person", "car"]
    )
    found = run(model, f"coco:{path}", detector=str(detector.folder))
    assert isinstance(found.scores, dict)
    assert found.prompts == f"boxes of {detector.folder}"
    for scores in found.scores.values():
        assert scores.by_class == {
            "car": pytest.approx(51 / 101),
            "person": 0,
            "herd": None,
        }
    other = write_model(tmp_path / "other", yolox_output(), decode="yolox", classes=["a", "b"])
    with pytest.raises(ConfigError, match="finds none of the json's car, person, herd"):
        evaluate(model, f"coco:{path}", detector=str(other.folder))


def test_what_cannot_be_evaluated_is_said(model: str, tmp_path: Path) -> None:
    for data in ("twin", "bsds500", "bsds500:", "coco"):
        with pytest.raises(ConfigError, match="scored on KIND:PATH"):
            evaluate(model, data)
    with pytest.raises(ConfigError, match="there is no /nowhere"):
        evaluate(model, "bsds500:/nowhere")
    with pytest.raises(ConfigError, match="boxes are for --data coco:JSON"):
        evaluate(model, f"bsds500:{tmp_path}", detector="yolox-nano")
    with pytest.raises(DataError, match="not DAVIS"):
        evaluate(model, f"davis:{tmp_path}")
    with pytest.raises(ConfigError, match="takes no prompts"):
        evaluate("finder-twin", "twin", out=tmp_path)


def test_real_sessions_are_evaluated(tmp_path: Path) -> None:
    """Random weights: the figures mean nothing, that they come does."""
    model = exported(tiny_sam2(), tmp_path / "model")
    photographs(tmp_path / "bsds", "val", 1)
    sequence(tmp_path / "davis", "dog", frames=4)
    path = coco_json(tmp_path)
    for data in (
        *(f"bsds500:{tmp_path / 'bsds'}", f"davis-frames:{tmp_path / 'davis'}"),
        *(f"davis:{tmp_path / 'davis'}", f"coco:{path}"),
    ):
        found = run(str(model.folder), data, threads=1)
        assert found.sha256 == places.find_model(str(model.folder)).card.files[0].sha256


def test_shared_pictures_through_a_session(
    model: str, tmp_path: Path, real: Callable[[str], Path]
) -> None:
    data = {"bsds500": 1, "camvid": 1, "davis-frames": 2}
    for kind, limit in data.items():
        folder = real(kind.removesuffix("-frames"))
        scores = run(model, f"{kind}:{folder}", limit=limit, out=tmp_path / kind).scores
        assert isinstance(scores, PromptScores)
        assert scores.objects >= limit
        assert 0 < scores.ways["1 click"].selected <= scores.ways["1 click"].oracle < 0.9
        assert scores.ways["1 click"].selected < scores.ways["3 clicks"].oracle
    coco = run(model, f"coco:{real('images/sahi_terrain2_coco.json')}").scores
    assert isinstance(coco, dict)
    assert coco["boxes"].ap == 1
