"""A camera, a promptable network and gRPC together: live with clients, and the same each time.

The network has SAM 2's structure and random weights: what it follows is nothing, but it does so
through every file and process that a real one goes through.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from google.protobuf.json_format import Parse
from rich.console import Console

from edgeperc import masks
from edgeperc.assemble import assemble
from edgeperc.client import connect
from edgeperc.clock import ReplayClock
from edgeperc.config import PromptOptions, convert, tomllib
from edgeperc.drivers.twin_wide import TwinWide
from edgeperc.errors import ConfigError, ModelError
from edgeperc.packet import Frame
from edgeperc.places import find_card, find_model
from edgeperc.plan import Plan, open_model
from edgeperc.prompt import Prompt, VideoSession
from edgeperc.proto.edgeperc.v1.tracking_pb2 import SessionRequest
from edgeperc.replay import replay, replay_plan, rig_plan
from edgeperc.result import Instances
from edgeperc.tracker import Tracker
from edgeperc.twin.drive import StreetEye
from edgeperc.twin.scene import VEHICLE, Camera

from .tiny_promptable import exported, film, tiny_sam, tiny_sam2

APPS = Path(__file__).parents[1] / "apps"
OBJECTS = "objects = [{ box = [400, 200, 560, 260] }, { points = [[100, 100]], frame = 3 }]"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    exported(tiny_sam2(presence=1.2), folder)
    return folder


@pytest.fixture
def app(tmp_path: Path, model: Path) -> Callable[..., Path]:
    def write(prompt: str = "", *, name: Path = model, sinks: str = "") -> Path:
        path = tmp_path / "app.toml"
        path.write_text(
            f'rig = "twin-search"\n[[pipelines]]\nname = "prompt"\ninput = "wide"\n'
            f'model = "{name}"\nthreads = 1\n[pipelines.prompt]\n{prompt}\n{sinks}'
        )
        return path

    return write


def lines(out: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    for each in found:
        del each["latency_ms"]
    return found


def test_the_app_that_ships_points_at_vehicles_of_the_twin() -> None:
    plan = Plan.load(str(APPS / "prompt.toml"))
    table, _ = plan.pipeline("prompt")
    assert find_card(table.model).card.task == "promptable"
    assert plan.app.sinks[0]["kind"] == "grpc"
    settings = plan.rig.sensors[table.input]
    camera = Camera(width_px=346, height_px=260, focal_px=300.0)
    street = StreetEye(settings["seed"], camera)
    for shown in table.prompt.objects:
        street.look((shown.frame + 1) / settings["frame_rate_hz"])
        vehicles = street.labels() == VEHICLE
        left, top, right, bottom = (round(edge) for edge in shown.box)
        inside = vehicles[top:bottom, left:right]
        assert inside.mean() > 0.6
        assert min(inside.any(0).mean(), inside.any(1).mean()) > 0.9, "the box is tight"
        around = vehicles[top - 4 : bottom + 4, left - 4 : right + 4]
        assert around.sum() < 1.1 * inside.sum()


def test_the_page_about_it_shows_what_can_be_written_and_sent() -> None:
    page = (APPS.parent / "docs" / "grpc.md").read_text()
    (table,) = re.findall(r"```toml\n(\[pipelines.prompt\].*?)```", page, re.DOTALL)
    written = tomllib.loads(table)["pipelines"]["prompt"]
    assert len(convert(written, PromptOptions, where="page").objects) == 2
    (sent,) = re.findall(r"-d '([^']*\"prompt\"[^']*)'", page)
    requests = [Parse(each, SessionRequest()) for each in re.split(r"(?<=}) (?={)", sent)]
    assert [each.WhichOneof("request") for each in requests] == ["open", "prompt"]
    assert requests[1].prompt.box.x_max == 268


def test_an_app_is_replayed_on_its_twin_the_same_each_time_and_drawn(
    app: Callable[..., Path], tmp_path: Path
) -> None:
    runs = []
    for name, speed in (("first", None), ("second", 8.0)):
        out, video = tmp_path / name, tmp_path / f"{name}.mp4"
        plan = rig_plan(str(app(OBJECTS)), duration_s=1.0, out=out, listen=None)
        played = replay(plan, speed=speed, out=out, console=Console(quiet=True), render=video)
        assert played.error is None
        runs.append(lines(out))
        assert frames_of(video) == 10
    assert runs[0] == runs[1]
    assert [each["seq"] for each in runs[0]] == list(range(10)), "not one is passed over"
    ids = [[found["id"] for found in each["instances"]] for each in runs[0]]
    assert ids == [[1]] * 3 + [[1, 2]] * 7
    assert runs[0][0]["instances"][0]["mask"]["size"] == [448, 960]


def frames_of(path: Path) -> int:
    video = cv2.VideoCapture(str(path))
    count = 0
    while video.read()[0]:
        count += 1
    video.release()
    return count


def test_a_pipeline_says_what_the_network_alone_says(model: Path, app: Callable[..., Path]) -> None:
    """Nothing is lost or added between the network and the results."""
    tracker = open_tracker(app(OBJECTS))
    alone = VideoSession(find_model(str(model)), threads=1)
    prompts = {
        0: {1: Prompt(box=(400, 200, 560, 260))},  # type: ignore[arg-type]
        3: {2: Prompt(points=[(100, 100)])},  # type: ignore[arg-type]
    }
    for frame in wide(6):
        found = tracker(frame)
        wanted = alone.step(frame, prompts.get(frame.stamp.seq, {}))
        assert (found.ids.tolist(), found.masks) == (wanted.ids.tolist(), wanted.masks)
        np.testing.assert_array_equal(found.scores, wanted.scores)


def open_tracker(path: Path) -> Tracker:
    from edgeperc.places import find_model

    table, _ = Plan.load(str(path)).pipeline("prompt")
    tracker = open_model(find_model(table.model), table)
    assert isinstance(tracker, Tracker)
    return tracker


def wide(count: int) -> Iterator[Frame]:
    camera = TwinWide(name="wide", clock=ReplayClock(None), seed=2026, duration_s=count / 10)
    yield from camera.packets()


def test_a_video_file_is_followed_through_the_app(app: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("aedat", reason="recordings need edgeperc[recordings]")
    video = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (96, 64))
    for picture in film(8, 96, 64):
        writer.write(picture)
    writer.release()
    out = tmp_path / "out"
    plan = replay_plan(
        video,
        model=None,
        app=str(app("objects = [{ points = [[40, 30]], background = [[2, 2]] }]")),
        out=out,
        listen=None,
        max_gap_s=None,
        sensor={},
    )
    played = replay(plan, speed=None, out=out, console=Console(quiet=True))
    assert played.error is None
    assert [len(each["instances"]) for each in lines(out)] == [1] * 8


def test_a_prompt_that_does_not_fit_the_picture_ends_in_an_error_that_names_it(
    app: Callable[..., Path], tmp_path: Path
) -> None:
    plan = rig_plan(
        str(app("objects = [{ box = [900, 400, 1000, 440] }]")),
        duration_s=0.3,
        out=tmp_path / "out",
        listen=None,
    )
    played = replay(plan, speed=None, out=tmp_path / "out", console=Console(quiet=True))
    assert "prompt.objects #1: the box (900, 400, 1000, 440)" in str(played.error)
    assert "960 × 448" in str(played.error)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("ttl_s = 0", r"ttl_s: .*> 0"),
        ("max_sessions = 0", r"max_sessions: .*> 0|>= 1"),
        ("objects = [{ bx = [1, 2, 3, 4] }]", "unknown key 'bx'; did you mean 'box'"),
        ("objects = [{ box = [1, 2, 3] }]", "box"),
        ("objects = [{ points = [[nan, 3]] }]", r"prompt.objects #1: .*not finite"),
        ("memory_keep_share = 2", "memory_keep_share"),
    ],
)
def test_a_mistake_in_the_prompt_table_is_found_before_anything_starts(
    app: Callable[..., Path], prompt: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        assemble(Plan.load(str(app(prompt))))


@pytest.mark.parametrize(
    ("switch", "role"),
    [("window_routing = true", "encoder_head"), ("memory_keep_share = 0.5", "memory_retrieval")],
)
def test_the_switches_of_the_app_reach_the_network(
    app: Callable[..., Path], switch: str, role: str
) -> None:
    with pytest.raises(ModelError, match=f"no file of role '{role}'"):
        assemble(Plan.load(str(app(switch))))


def test_a_model_of_single_pictures_follows_nothing(
    app: Callable[..., Path], tmp_path: Path
) -> None:
    exported(tiny_sam(), tmp_path / "sam")
    with pytest.raises(ModelError, match="single pictures"):
        assemble(Plan.load(str(app(name=tmp_path / "sam"))))


@pytest.fixture
def daemon(app: Callable[..., Path]) -> Iterator[tuple[str, Any]]:
    """`edgeperc serve` in a process of its own, and where it listens."""
    path = app(
        "ttl_s = 20.0\nmax_sessions = 2", sinks='[[sinks]]\nkind = "grpc"\nlisten = "127.0.0.1:0"\n'
    )
    command = [sys.executable, "-m", "edgeperc", "serve", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        address = ""
        for line in process.stdout:
            if "edgeperc watch " in line:
                address = line.split("edgeperc watch ")[1].strip()
                break
        yield address, process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


CLIENT = """
import sys
from edgeperc.client import connect
session = connect(sys.argv[1], timeout_s=30.0).track()
session.box(1, (100, 200, 180, 260))
print("tracking", flush=True)
for found in session:
    pass
"""


def test_a_daemon_follows_for_two_clients_through_the_death_of_one(
    daemon: tuple[str, Any],
) -> None:
    address, process = daemon
    with connect(address, timeout_s=30.0) as client:
        (model,) = client.models()
        assert model.name == "tiny"
        with client.track("wide", model="tiny") as session:
            instance = session.box(7, (400, 200, 560, 260))
            first = next(session)
            assert (first.ids.tolist(), first.picture_px) == ([7], (960, 448))
            assert masks.decode(first.masks[0]).shape == (448, 960)
            command = [sys.executable, "-c", CLIENT, address]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
                assert other.stdout
                assert other.stdout.readline() == "tracking\n"
                everybody = client.subscribe("wide")
                ids = objects(everybody)
                assert instance in ids
                assert len(ids) == 2
                other.kill()
            deadline_s = time.monotonic() + 30
            while objects(everybody) != [instance]:
                assert time.monotonic() < deadline_s
            with pytest.raises(ConfigError, match="outside the picture of 960 × 448"):
                session.points(8, (961, 3))
            session.points(7, [(410, 210), (500, 250)], [0, 1])
            assert next(session).ids.tolist() == [7]
            process.send_signal(signal.SIGTERM)
            for found in session:  # which ends with the daemon, without an error
                assert isinstance(found, Instances)
    assert process.wait(timeout=30) == 0


def objects(results: Any) -> list[int]:
    found = next(results).result
    assert isinstance(found, Instances)
    return found.ids.tolist()
