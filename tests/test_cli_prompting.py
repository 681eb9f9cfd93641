"""segment and track on a network of random weights: what they write, say and refuse."""

from __future__ import annotations

import contextlib
import io
import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgeperc import cli, masks, places
from edgeperc.masks import Rle
from edgeperc.packet import Frame
from edgeperc.palette import read_numbers
from edgeperc.places import ModelFolder
from edgeperc.prompt import ImageSession, Prompt, VideoSession
from edgeperc.result import Detections, ModelRef

from .tiny_promptable import exported, film, frame, tiny_sam, tiny_sam2

FRAMES = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return exported(tiny_sam2(presence=5.0), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a picture, a folder of pictures and a video of the same film."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "film").mkdir()
    size_px = (90, 50)
    writer = cv2.VideoWriter("film.avi", cv2.VideoWriter.fourcc(*"MJPG"), 25, size_px)
    for number, picture in enumerate(film(FRAMES)):
        bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        cv2.imwrite(f"film/{number:05d}.png", bgr)
        writer.write(bgr)
    writer.release()
    cv2.imwrite("one.png", cv2.cvtColor(film(1)[0], cv2.COLOR_RGB2BGR))
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *args: object) -> int:
    monkeypatch.setattr("sys.argv", ["edgeperc", *map(str, args)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def count_frames(path: str) -> int:
    return int(cv2.VideoCapture(path).get(cv2.CAP_PROP_FRAME_COUNT))


# segment


def test_a_picture_gets_an_overlay_beside_what_is_said(
    here: Path,
    model: ModelFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = run(monkeypatch, "segment", "one.png", "--model", model.folder, "--point", "40,20")
    said = capsys.readouterr()
    assert (code, said.err) == (0, "")
    assert "object 1:" in said.out
    assert "1 object in one.png by tiny" in said.out
    assert "written to one-overlay.png; look at it: xdg-open one-overlay.png" in said.out
    drawn, plain = cv2.imread("one-overlay.png"), cv2.imread("one.png")
    assert drawn.shape == plain.shape
    assert (drawn != plain).any()


def test_json_is_what_the_session_answers(
    here: Path,
    model: ModelFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ["--box", "4:10,5,40,45", "--point", "4:20,20,0", "--point", "2:60,30", "--json"]
    assert run(monkeypatch, "segment", "one.png", "--model", model.folder, *asked) == 0
    report = json.loads(capsys.readouterr().out)
    session = ImageSession(model)
    session.look(film(1)[0])
    expected = {
        2: session.ask(Prompt(points=[(60, 30)])),
        4: session.ask(Prompt(box=(10, 5, 40, 45), points=[(20, 20)], labels=[0])),
    }
    assert [each["id"] for each in report["objects"]] == [2, 4]
    assert (report["width"], report["height"]) == (90, 50)
    for each in report["objects"]:
        answer = expected[each["id"]]
        np.testing.assert_array_equal(masks.decode(masks.from_coco(each["mask"])), answer.masks[0])
        assert each["score"] == pytest.approx(answer.scores[0], abs=1e-5)
    assert not Path("one-overlay.png").exists()


@pytest.mark.parametrize("form", ["rle", "polygon", "coco", "png"])
def test_every_form_holds_the_same_mask(
    form: str, here: Path, model: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["--point", "40,20", "--model", model.folder, "--out", "out", "--format", form]
    assert run(monkeypatch, "segment", "one.png", *asked) == 0
    session = ImageSession(model)
    session.look(film(1)[0])
    expected = session.ask(Prompt(points=[(40, 20)])).masks[0]
    if form == "png":
        found = cv2.imread("out/1.png", cv2.IMREAD_UNCHANGED) > 0
    else:
        told = json.loads(Path("out").read_text())
        if form == "rle":
            found = masks.decode(masks.from_coco(told["objects"][0]["mask"]))
        elif form == "coco":
            found = masks.decode(masks.from_coco(told["annotations"][0]["segmentation"]))
            assert told["images"][0]["file_name"] == "one.png"
        else:
            lines = [
                np.array(line)
                for part in told["objects"][0]["polygons"]
                for line in (part["outline"], *part["holes"])
            ]
            area = sum(
                (np.roll(x, 1) * y - np.roll(y, 1) * x).sum() / -2 for x, y in (n.T for n in lines)
            )
            assert area == expected.sum()
            return
    np.testing.assert_array_equal(found, expected)


def test_one_mask_can_be_one_png(
    here: Path, model: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["--point", "40,20", "--model", model.folder, "--out", "m.png", "--format", "png"]
    assert run(monkeypatch, "segment", "one.png", *asked) == 0
    assert set(np.unique(cv2.imread("m.png", cv2.IMREAD_UNCHANGED))) <= {0, 255}


def test_everything_needs_no_pointing(
    here: Path,
    model: ModelFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ["--everything", "--grid", "3", "--json", "--model", model.folder]
    assert run(monkeypatch, "segment", "one.png", *asked) == 0
    session = ImageSession(model)
    session.look(film(1)[0])
    expected = session.everything(points_per_side=3).masks
    report = json.loads(capsys.readouterr().out)
    found = [masks.from_coco(each["mask"]) for each in report["objects"]]
    assert found == list(expected)


def test_a_detector_points_and_names(
    here: Path,
    model: ModelFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ["--detector", "finder-twin", "--model", model.folder]
    code = run(monkeypatch, "segment", "one.png", *asked, "--json")
    said = capsys.readouterr()
    if code:  # nothing like its targets in this picture
        assert "'finder-twin' finds nothing in the picture" in said.err
    else:
        assert all(each["class"] for each in json.loads(said.out)["objects"])


SEGMENT_MISTAKES = [
    ([], 2, "nothing to do"),
    (["--everything", "--point", "1,2"], 2, "one of them"),
    (["--point", "400,20"], 1, "point (400, 20) of a prompt is outside the picture of 90 × 50 px"),
    (["--box", "40,5,10,45"], 1, "is empty"),
    (["--point", "nan,3"], 1, "not finite"),
    (["--point", "4;5"], 2, "[ID:]X,Y"),
    (["--point", "4,5@3"], 2, "a picture has no frames"),
    (["--mask", "one.png@"], 1, "No such file"),
    (["--mask", "small.png"], 1, "has 9 × 9 px"),
    (["--point", "4,5", "--out", "gone/x.png"], 2, "gone: no such folder"),
    (["--point", "4,5", "--out", "film", "--format", "png"], 2, "not an empty folder"),
    (["--point", "4,5", "--out", "x.gif", "--format", "overlay"], 2, "an overlay is a .png"),
    (["--point", "4,5", "--out", "film", "--format", "coco"], 2, "is a folder"),
    (["--prompts", "gone.toml"], 2, "gone.toml: no such file"),
]


@pytest.mark.parametrize(("args", "code", "complaint"), SEGMENT_MISTAKES)
def test_mistakes_about_a_picture_are_a_line(
    args: list[str],
    code: int,
    complaint: str,
    here: Path,
    model: ModelFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cv2.imwrite("small.png", np.full((9, 9), 255, np.uint8))
    assert run(monkeypatch, "segment", "one.png", "--model", model.folder, *args) == code
    assert complaint in capsys.readouterr().err
    assert not Path("one-overlay.png").exists()


@pytest.mark.parametrize("verb", ["segment", "track"])
@pytest.mark.parametrize(
    ("name", "complaint"),
    [("tinyy", "unknown model 'tinyy'"), ("finder-twin", "'finder-twin' does detection")],
)
def test_a_model_that_is_none_is_said(
    verb: str,
    name: str,
    complaint: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    what = {"segment": "one.png", "track": "film.avi"}[verb]
    assert run(monkeypatch, verb, what, "--model", name, "--point", "4,5") in (1, 2)
    assert complaint in capsys.readouterr().err


def test_a_picture_that_cannot_be_read_is_said(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.png").write_bytes(Path("one.png").read_bytes()[:300])
    for name, complaint in (("bad.png", "cut off"), ("gone.png", "No such file")):
        assert run(monkeypatch, "segment", name, "--point", "4,5") == 1
        assert complaint in capsys.readouterr().err


# track


def test_a_video_is_followed_into_a_video_and_a_json(
    here: Path,
    model: ModelFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ["--point", "40,20", "--out", "o.mp4", "--masks", "m.json", "--model", model.folder]
    assert run(monkeypatch, "track", "film.avi", *asked) == 0
    said = capsys.readouterr().out
    assert f"{FRAMES} frames at " in said
    assert "(p50)" in said
    assert "(p99)" in said
    assert "written to o.mp4; look at it: xdg-open o.mp4" in said
    assert "written to m.json" in said
    assert count_frames("o.mp4") == FRAMES
    assert cv2.VideoCapture("o.mp4").get(cv2.CAP_PROP_FPS) == pytest.approx(25, rel=0.02)
    assert len(json.loads(Path("m.json").read_text())["images"]) == FRAMES


def test_prompts_in_mid_stream_come_when_they_should(
    here: Path,
    model: ModelFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ["--point", "40,20", "--box", "9:10,5,40,45@2", "--point", "9:70,10,0@4"]
    asked += ["--remove", "1@5", "--masks", "m.json", "--json", "--model", str(model.folder)]
    assert run(monkeypatch, "track", "film", *asked) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["complete"]
    assert (report["frames"], report["counters"]["prompts"]) == (FRAMES, 3)
    told = json.loads(Path("m.json").read_text())
    names = {image["id"]: image["file_name"] for image in told["images"]}
    found = {
        (names[each["image_id"]], each["track_id"]): masks.from_coco(each["segmentation"])
        for each in told["annotations"]
    }
    assert found == _followed(model)
    assert {1, 9} == {object_id for _, object_id in found}
    seen = {each["id"]: each["seen"] for each in report["objects"]}
    assert seen == {one: sum(key[1] == one for key in found) for one in seen}


def _followed(model: ModelFolder) -> dict[tuple[str, int], Rle]:
    """The same by hand."""
    plan = {
        0: {1: Prompt(points=[(40, 20)])},
        2: {9: Prompt(box=(10, 5, 40, 45))},
        4: {9: Prompt(points=[(70, 10)], labels=[0])},
    }
    session, found = VideoSession(model), {}
    for number, picture in enumerate(film(FRAMES)):
        if number == 5:
            session.remove(1)
        for_frame = session.step(frame(picture, number), plan.get(number, {}))
        for object_id, mask in zip(for_frame.ids.tolist(), for_frame.masks, strict=True):
            if masks.area(mask):
                found[f"{number:05d}.png", object_id] = mask
    return found


def test_a_folder_gets_pictures_of_the_same_names(
    here: Path, model: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["--point", "3:40,20", "--out", "numbers", "--model", model.folder]
    assert run(monkeypatch, "track", "film", *asked) == 0
    names = sorted(path.name for path in Path("numbers").iterdir())
    assert names == [f"{number:05d}.png" for number in range(FRAMES)]
    values = {int(v) for name in names for v in np.unique(read_numbers(Path("numbers", name))[0])}
    assert values <= {0, 3}
    assert 3 in values


def test_the_video_is_written_where_nothing_else_is_said(
    here: Path, model: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["--point", "40,20", "--model", model.folder, "--duration-s", "0.1"]
    assert run(monkeypatch, "track", "film.avi", *asked) == 0
    assert count_frames("film-tracked.mp4") == 3


def test_a_live_camera_is_followed_until_the_time_is_up(
    here: Path,
    model: ModelFolder,
    stream: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ["--point", "30,20", "--duration-s", "0.5", "--masks", "m.json", "--json"]
    out = ["--out", "live.mp4", "--model", model.folder, "--threads", "1"]
    assert run(monkeypatch, "track", stream.url, *asked, *out) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["complete"]
    assert report["frames"] + report["missed"] > 5
    assert [each["id"] for each in report["objects"]] == [1]
    assert count_frames("live.mp4") == report["frames"]
    assert len(json.loads(Path("m.json").read_text())["images"]) == report["frames"]


def test_a_camera_that_is_lost_leaves_what_was_followed(
    here: Path,
    model: ModelFolder,
    stream: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real = VideoSession.step

    def step(self: VideoSession, *args: Any) -> Any:
        stream.end()
        return real(self, *args)

    monkeypatch.setattr(VideoSession, "step", step)
    asked = ["--point", "30,20", "--out", "live.mp4", "--model", model.folder]
    assert run(monkeypatch, "track", stream.url, *asked) == 1
    assert "/live: the camera sends no more pictures" in capsys.readouterr().err
    assert count_frames("live.mp4") >= 1


class _LateDetector:
    """Finds nothing at first, as when nobody has come yet; then two boxes, one without area."""

    looks = 0

    def __init__(self, model: ModelFolder, **_: Any) -> None:
        self.ref = ModelRef(name="late")

    def __call__(self, packet: Frame) -> Detections:
        _LateDetector.looks += 1
        there = [[10, 5, 40, 45], [50, 9, 50, 20]] if self.looks > 2 else []
        return Detections(
            stamp=packet.stamp,
            boxes=np.array(there, np.float32).reshape(-1, 4),
            scores=np.ones(len(there), np.float32),
            class_ids=np.zeros(len(there), np.int64),
            classes=("thing",),
            model=self.ref,
            picture_px=(packet.image.shape[1], packet.image.shape[0]),
        )


def test_a_detector_is_asked_until_it_finds_something(
    here: Path,
    model: ModelFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("edgeperc.detect.Detector", _LateDetector)
    monkeypatch.setattr(_LateDetector, "looks", 0)
    asked = ["--detector", "finder-twin", "--point", "4:70,10@6", "--masks", "m.json", "--json"]
    assert run(monkeypatch, "track", "film", *asked, "--model", model.folder) == 0
    report = json.loads(capsys.readouterr().out)
    assert _LateDetector.looks == 3
    assert report["counters"]["prompts"] == 2
    assert {each["id"] for each in report["objects"]} == {4, 5}  # no number means two things
    told = json.loads(Path("m.json").read_text())
    names = {image["id"]: image["file_name"] for image in told["images"]}
    boxed = [names[each["image_id"]] for each in told["annotations"] if each["track_id"] == 5]
    assert min(boxed) == "00002.png"


@pytest.mark.parametrize("verb", ["segment", "track"])
def test_a_detector_that_never_finds_anything_is_said(
    verb: str,
    here: Path,
    model: ModelFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("edgeperc.detect.Detector", _LateDetector)
    monkeypatch.setattr(_LateDetector, "looks", -1000)
    what = {"segment": ("one.png", "the picture"), "track": ("film", "film")}[verb]
    asked = ["--detector", "finder-twin", "--json", "--model", model.folder]
    assert run(monkeypatch, verb, what[0], *asked) == 1
    assert f"'late' finds nothing in {what[1]}" in capsys.readouterr().err


def test_a_provider_that_is_not_here_is_said(
    here: Path,
    model: ModelFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    for verb, what in (("segment", "one.png"), ("track", "film")):
        asked = ["--point", "40,20", "--provider", "openvino", "--model", model.folder]
        assert run(monkeypatch, verb, what, *asked) == 1
        assert "provider 'openvino': this onnxruntime" in capsys.readouterr().err
    asked = ["--point", "40,20", "--provider", "cpu", "--json", "--model", model.folder]
    assert run(monkeypatch, "segment", "one.png", *asked) == 0
    assert json.loads(capsys.readouterr().out)["provider"] == "CPUExecutionProvider"


TRACK_MISTAKES = [
    (["film.avi"], 2, "nothing to do"),
    (["film.avi", "--remove", "1@3"], 2, "nothing to do"),
    (["gone.avi", "--point", "4,5"], 2, "gone.avi: no such file"),
    (["film.avi", "--point", "4,5", "--out", "x.mov"], 2, "cannot render to .mov"),
    (["film.avi", "--point", "4,5", "--out", "film"], 2, "not an empty folder"),
    (["film.avi", "--point", "4,5", "--masks", "m.txt"], 2, "ends in .json"),
    (["film.avi", "--point", "4,500"], 1, "object 1: point (4, 500) of a prompt is outside"),
    (["film.avi", "--point", "4,5@90"], 1, "ended, after 8 frames, before object 1 @90"),
    (["cut.avi", "--point", "4,5"], 1, "cut.avi"),
    (["text.txt", "--point", "4,5"], 1, "not a recording"),
    (["events.txt", "--point", "4,5"], 1, "holds events and no frames"),
]


@pytest.mark.parametrize(("args", "code", "complaint"), TRACK_MISTAKES)
def test_mistakes_about_a_video_are_a_line(
    args: list[str],
    code: int,
    complaint: str,
    here: Path,
    model: ModelFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("cut.avi").write_bytes(Path("film.avi").read_bytes()[:6000])
    Path("text.txt").write_text("hello there")
    Path("events.txt").write_text("0.1 1 2 1\n")
    assert run(monkeypatch, "track", *args, "--model", model.folder) == code
    assert complaint in capsys.readouterr().err


def test_what_came_before_the_damage_is_kept(
    here: Path,
    model: ModelFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = Path("film/00006.png")
    path.write_bytes(path.read_bytes()[:200])
    asked = ["--point", "40,20", "--out", "o.mp4", "--masks", "m.json", "--model", model.folder]
    assert run(monkeypatch, "track", "film", *asked) == 1
    assert "00006.png: the picture is cut off" in capsys.readouterr().err
    assert count_frames("o.mp4") == 6
    assert len(json.loads(Path("m.json").read_text())["images"]) == 6


def test_frames_that_change_their_size_are_said(
    here: Path,
    model: ModelFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cv2.imwrite("film/00005.png", np.zeros((60, 80, 3), np.uint8))
    asked = ["--point", "40,20", "--out", "o.mp4", "--model", model.folder]
    assert run(monkeypatch, "track", "film", *asked) == 1
    assert "frames were 90 × 50 px" in capsys.readouterr().err
    assert count_frames("o.mp4") == 5


def test_a_model_for_pictures_follows_nothing(
    here: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = exported(tiny_sam(), tmp_path / "sam")
    code = run(monkeypatch, "track", "film.avi", "--point", "4,5", "--model", model.folder)
    assert code == 1
    assert "cannot follow objects" in capsys.readouterr().err
    assert run(monkeypatch, "segment", "one.png", "--point", "4,5", "--model", model.folder) == 0


def test_ctrl_c_leaves_files_that_can_be_read(here: Path, model: ModelFolder) -> None:
    writer = cv2.VideoWriter("long.avi", cv2.VideoWriter.fourcc(*"MJPG"), 25, (90, 50))
    for picture in film(50) * 60:
        writer.write(picture)
    writer.release()
    asked = ["--point", "40,20", "--out", "o.mp4", "--masks", "m.json", "--json"]
    program = "import edgeperc.cli; edgeperc.cli.main()"
    command = [sys.executable, "-c", program, "track", "long.avi", *asked]
    command += ["--model", str(model.folder)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline_s = time.monotonic() + 60
        while not Path("o.mp4").exists() and time.monotonic() < deadline_s:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "long.avi: stopped after" in err
    report = json.loads(out)
    assert not report["complete"]
    assert 0 < report["frames"] < 3000
    assert count_frames("o.mp4") == report["frames"]
    assert len(json.loads(Path("m.json").read_text())["images"]) == report["frames"]


def test_the_list_of_models_says_what_each_is_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: ModelFolder
) -> None:
    assert run(monkeypatch, "models", "list", "--json") == 0
    tasks = {each["name"]: each["task"] for each in json.loads(capsys.readouterr().out)}
    assert tasks["sam2.1-hiera-tiny"] == "promptable"
    assert tasks["finder-twin"] == "detection"
    assert run(monkeypatch, "models", "show", str(model.folder)) == 0
    said = capsys.readouterr().out
    assert "promptable" in said
    assert "kind = video" in said
    with contextlib.redirect_stdout(io.StringIO()):
        assert places.find_card("sam-vit-b").card.task == "promptable"


@pytest.mark.parametrize("out", ["drawn.png", "mask.json"])
def test_a_file_that_does_not_fit_on_the_disk_leaves_what_was_there(
    model: ModelFolder, here: Path, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = "overlay" if out.endswith("png") else "rle"
    asked = ("segment", "one.png", "--model", model.folder, "--point", "20,20", "--format", form)
    Path(out).write_text("of before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        status = run(monkeypatch, *asked, "--out", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status == 2
    assert Path(out).read_text() == "of before"
    assert [each.name for each in here.glob(".*")] == []
    assert run(monkeypatch, *asked, "--out", out) == 0
    assert Path(out).stat().st_size > 20
