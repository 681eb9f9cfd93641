"""An app that is replayed on its own twin: the same every time, as lines and as a video."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from edgeperc.calibration.file import RigIdentity, uncalibrated
from edgeperc.errors import ConfigError
from edgeperc.packet import Frame, Gaze, Stamp
from edgeperc.render.search import CROP_PX, RATE_HZ, WIDTH_PX, Overlay, Render
from edgeperc.replay import replay, rig_plan
from edgeperc.result import Detections, ModelRef, SearchMap

APP = """
rig = "twin-search"
[[pipelines]]
name = "wide"
input = "wide"
model = "finder-twin"
threads = 1
[[pipelines]]
name = "gaze"
input = "search"
model = "finder-twin"
rate_hz = 30.0
threads = 1
[search]
gaze = "gaze"
hints = ["wide"]
"""


@pytest.fixture
def app(tmp_path: Path) -> str:
    path = tmp_path / "app.toml"
    path.write_text(APP)
    return str(path)


def lines(out: Path) -> list[str]:
    """Results by model and time; how they interleave, and how long they took, may differ."""
    found = []
    for line in (out / "results.jsonl").read_text().splitlines():
        result = json.loads(line)
        del result["latency_ms"]
        found.append(json.dumps(result))
    return sorted(found)


def test_a_search_on_the_twin_is_the_same_each_time(app: str, tmp_path: Path) -> None:
    runs = []
    for name in ("first", "second"):
        out = tmp_path / name
        plan = rig_plan(app, duration_s=1.5, out=out, listen=None)
        played = replay(plan, speed=None, out=out, console=Console(quiet=True))
        assert played.error is None
        runs.append(lines(out))
    assert runs[0] == runs[1]
    results = [json.loads(line) for line in runs[0]]
    looks = [result for result in results if "gaze" in result]
    assert len(looks) == 45
    assert len([result for result in results if result["source"] == "wide"]) >= 14
    assert any("tracks" in result for result in results)
    summary = json.loads((tmp_path / "first" / "summary.json").read_text())
    assert summary["complete"]
    assert [sensor["name"] for sensor in summary["sensors"]] == ["wide", "search", "mirror"]


def test_a_rendered_search_is_a_video_of_its_length(app: str, tmp_path: Path) -> None:
    video = tmp_path / "search.mp4"
    plan = rig_plan(app, duration_s=1.0, out=None, listen=None)
    replay(plan, speed=None, out=None, console=Console(quiet=True), render=video)
    reader = cv2.VideoCapture(str(video))
    pictures = []
    while (step := reader.read())[0]:
        pictures.append(step[1])
    assert abs(len(pictures) - RATE_HZ) <= 3  # before the first wide picture there is nothing
    assert pictures[-1].shape[1] == WIDTH_PX
    assert pictures[-1][: -CROP_PX - 40].std() > 20
    assert (pictures[0].astype(int) - pictures[-1]).std() > 1


def test_a_live_rig_cannot_be_replayed() -> None:
    with pytest.raises(ConfigError, match="live and cannot be replayed"):
        rig_plan("search-rig", duration_s=None, out=None, listen=None)


def test_only_a_search_can_be_rendered(tmp_path: Path) -> None:
    plan = rig_plan("events", duration_s=0.1, out=None, listen=None)
    with pytest.raises(ConfigError, match=r"has no \[search\]"):
        replay(plan, speed=None, out=None, console=Console(quiet=True), render=tmp_path / "x.mp4")


RIG = RigIdentity(wide="w", search="s", mirror="m", width_px=960, height_px=448)


def overlay() -> Overlay:
    return Overlay(lambda _size: uncalibrated(RIG, math.radians(60)), search_rad=math.radians(2.81))


@pytest.mark.parametrize("name", ["x.mov", "x", "gone/x.mp4"])
def test_a_file_that_cannot_be_written_is_said_at_once(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot render to|no such folder"):
        Render(tmp_path / name, overlay(), wide="wide", search="search")


def look(end_ms: int, gaze: Gaze) -> Detections:
    return Detections(
        stamp=Stamp(source="search", seq=0, start_ns=0, end_ns=end_ms * 1_000_000),
        boxes=np.array([[10, 10, 30, 30]], np.float32),
        scores=np.ones(1, np.float32),
        class_ids=np.zeros(1, np.int64),
        classes=("person",),
        model=ModelRef(name="m"),
        gaze=gaze,
    )


def frame(source: str, end_ms: int, height_px: int, width_px: int) -> Frame:
    stamp = Stamp(source=source, seq=0, start_ns=0, end_ns=end_ms * 1_000_000)
    return Frame(stamp=stamp, image=np.zeros((height_px, width_px), np.uint8))


def test_the_gaze_is_drawn_where_it_points_and_the_map_glows_where_it_expects(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.avi"
    render = Render(path, overlay(), wide="wide", search="search")
    intensity = np.zeros((128, 256), np.float32)
    intensity[100:110, 40:60] = 1.0
    render.write(
        SearchMap(
            stamp=Stamp(source="search", seq=0, start_ns=0, end_ns=0),
            intensity=intensity,
            cell_rad=math.radians(60) / 256,
            tracks=np.zeros((0, 4), np.float32),
            trail=np.zeros((0, 2), np.float32),
            model=ModelRef(name="bayes"),
        )
    )
    render.see(frame("wide", 0, 448, 960))
    render.see(frame("search", 10, 224, 224))
    render.write(look(10, Gaze(pan_rad=math.radians(15), tilt_rad=math.radians(5))))
    render.close()
    render.close()
    _, picture = cv2.VideoCapture(str(path)).read()
    blue, green, red = (picture[:597].astype(int)[:, :, k] for k in range(3))
    rows, columns = np.nonzero((red > 150) & (green > 120) & (blue < 120))
    focal = 640 / math.tan(math.radians(30))
    assert columns.mean() == pytest.approx(640 + focal * math.tan(math.radians(15)), abs=8)
    assert rows.mean() == pytest.approx(298 - focal * math.tan(math.radians(5)), abs=8)
    glowing = np.argwhere((red > 60) & (blue < 30) & (green < red * 0.7))
    middle_rad = np.radians(60) / 256 * np.array([105 - 64, 50 - 128])
    expected = np.array([298, 640]) + focal * np.tan(middle_rad)
    np.testing.assert_allclose(glowing.mean(axis=0), expected, atol=12)
