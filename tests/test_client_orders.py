"""The client's orders to a daemon, its steering, and how it shows who it is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeperc import places
from edgeperc.cli.access import with_insecure
from edgeperc.client import Client, connect
from edgeperc.client.connection import Access
from edgeperc.control import (
    AppText,
    ControlError,
    DaemonStatus,
    Preparing,
    RecordingStatus,
    SinkStatus,
    WorkerStatus,
)
from edgeperc.errors import ConfigError, DeviceError, EdgepercError
from edgeperc.meter import MeterSnapshot, StageRow
from edgeperc.packet import Frame, Gaze, Stamp
from edgeperc.result import Detections, LabelMap, ModelRef
from edgeperc.segment import Segmenter
from edgeperc.sink import Inventory, SourceInfo
from edgeperc.sinks.grpc import Grpc
from edgeperc.status import PipelineStatus, SensorStatus

from .certificates import Authority
from .test_client import label_map
from .test_searching import Mirror

APP = 'rig = "twin"\n'
STATUS = DaemonStatus(
    version="1.2",
    app="events",
    state="degraded",
    uptime_s=3.5,
    sensors=(SensorStatus(name="dvs", state="lost", packets=7, error="gone", hint="plug it in"),),
    pipelines=(
        PipelineStatus(
            name="p",
            model=ModelRef(name="m", provider="cpu"),
            meter=MeterSnapshot(5, 2, 1, 20.5, (StageRow("infer", 1.5, 2.5),)),
            error="e",
            note="n",
        ),
    ),
    workers=(
        WorkerStatus(name="w", state="running", pid=42, restarts=3, rss_bytes=1 << 33),
        WorkerStatus(
            name="v",
            state="starting",
            preparing=Preparing(
                model="m", network="a.onnx", number=1, count=2, seconds=3.5, bytes=1 << 33
            ),
        ),
    ),
    sinks=(SinkStatus(kind="Grpc", where="here", counts={"clients": 2, "dropped": 1 << 40}),),
    recording=RecordingStatus(name="r", path="/r.mcap", running=True, bytes=1 << 33),
    errors=("dvs: gone",),
    notes=("power: 15 W",),
)


class Daemon:
    """Does what a daemon would, and remembers it."""

    steering = None

    def __init__(self) -> None:
        self.toml, self.recording = APP, ""
        self.limits = (0, 0.0)

    def status(self) -> DaemonStatus:
        return STATUS

    def app(self) -> AppText:
        return AppText(name="events", toml=self.toml, etag=str(len(self.toml)))

    def validate(self, toml: str) -> None:
        if "rig" not in toml:
            raise ConfigError("rig is missing", hint="add it")

    def apply(self, toml: str, etag: str) -> AppText:
        if etag != self.app().etag:
            raise ControlError("the app is another by now", why="conflict")
        self.validate(toml)
        self.toml = toml
        return self.app()

    def start_recording(
        self, name: str = "", *, max_bytes: int = 0, max_s: float = 0.0
    ) -> RecordingStatus:
        self.limits = (max_bytes, max_s)
        if self.recording:
            raise ControlError("a recording runs", why="taken")
        if "/" in name:
            raise ConfigError(f"{name}: not a plain name")
        self.recording = name or "now"
        return RecordingStatus(name=self.recording, path="/x.mcap", running=True)

    def stop_recording(self) -> RecordingStatus:
        if not self.recording:
            raise ControlError("nothing is recorded", why="unknown")
        name, self.recording = self.recording, ""
        return RecordingStatus(name=name, path="/x.mcap", running=False, messages=9)


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


@pytest.fixture
def sink(daemon: Daemon) -> Iterator[Grpc]:
    inventory = Inventory(
        sources=(SourceInfo(name="dvs", driver="twin"),), models=(ModelRef(name="regions-twin"),)
    )
    sink = Grpc(listen="127.0.0.1:0", inventory=inventory, daemon=daemon)
    yield sink
    sink.close()


@pytest.fixture
def client(sink: Grpc) -> Iterator[Client]:
    with connect(sink.address) as client:
        yield client


def test_status_crosses_whole(client: Client) -> None:
    assert client.status() == STATUS


def test_the_app_is_read_changed_and_refused_where_somebody_was_faster(
    client: Client, daemon: Daemon
) -> None:
    before = client.config()
    assert (before.toml, before.etag) == (APP, "13")
    etag = client.apply(APP + "# more\n", etag=before.etag)
    assert client.config() == daemon.app()
    assert etag == daemon.app().etag
    with pytest.raises(ConfigError, match="another by now"):
        client.apply(APP, etag=before.etag)
    with pytest.raises(ConfigError, match="rig is missing: add it"):
        client.validate("x = 1")
    with pytest.raises(ConfigError, match="etag of GetConfig is missing"):
        client.apply(APP, etag="")
    client.validate(APP)


def test_recordings_begin_and_end_and_say_what_they_hold(client: Client, daemon: Daemon) -> None:
    assert client.start_recording("one", max_mb=1.5, max_minutes=2).running
    assert daemon.limits == (1_500_000, 120.0)
    with pytest.raises(ConfigError, match="a recording runs"):
        client.start_recording()
    ended = client.stop_recording()
    assert (ended.name, ended.running, ended.messages) == ("one", False, 9)
    with pytest.raises(ConfigError, match="nothing is recorded"):
        client.stop_recording()
    with pytest.raises(ConfigError, match="plain name"):
        client.start_recording("../x")


def test_latest_is_the_newest_that_fits_and_says_where_there_is_none(
    sink: Grpc, client: Client
) -> None:
    with pytest.raises(DeviceError, match="no such result has come yet"):
        client.latest()
    for seq in (3, 4):
        sink.write(label_map(seq))
    for encoding in ("auto", "raw", "zstd", "rle", "png"):
        found = client.latest("dvs", model="m", kinds=["label_map"], encoding=encoding).result
        assert isinstance(found, LabelMap)
        assert found.stamp.seq == 4
        np.testing.assert_array_equal(found.labels, label_map(4).labels)
    with pytest.raises(DeviceError, match="no such result"):
        client.latest(kinds=["detections"])
    with pytest.raises(ConfigError, match="no source 'tail'"):
        client.latest("tail")


def test_a_subscriber_gets_only_the_kinds_that_it_wants(sink: Grpc, client: Client) -> None:
    none = client.subscribe(kinds=["detections", "instances"])
    some = client.subscribe(kinds=["label_map"])
    sink.write(label_map(1))
    assert next(some).result.stamp.seq == 1
    sink.close()
    assert list(none) == []


@pytest.fixture(scope="module")
def street() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, (90, 160, 3), dtype=np.uint8)


def test_a_picture_is_segmented_by_a_model_of_the_app_as_the_pipeline_would(
    client: Client, street: NDArray[np.uint8]
) -> None:
    own = Segmenter(places.find_model("regions-twin"), threads=1)
    stamp = Stamp(source="", seq=0, start_ns=0, end_ns=0)
    wanted = own(Frame(stamp=stamp, image=street))
    _, png = cv2.imencode(".png", street[..., ::-1])
    for image in (street, png.tobytes()):
        found = client.segment(image, "regions-twin", encoding="zstd")
        assert isinstance(found, LabelMap)
        np.testing.assert_array_equal(found.labels, wanted.labels)
        assert (found.classes, found.model.sha256) == (wanted.classes, own.ref.sha256)
    grey = client.segment(street[..., 0], "regions-twin")
    assert isinstance(grey, LabelMap)


def test_the_models_that_may_be_asked_are_those_of_the_app_as_it_runs_now(
    street: NDArray[np.uint8],
) -> None:
    """An inventory that changes, as when another app is applied."""

    class Live:
        sources = ()
        models: tuple[ModelRef, ...] = ()

    live = Live()
    sink = Grpc(listen="127.0.0.1:0", inventory=live)  # type: ignore[arg-type]
    with connect(sink.address) as client:
        with pytest.raises(ConfigError, match="not loaded: there are: none"):
            client.segment(street, "finder-twin")
        live.models = (ModelRef(name="finder-twin"),)
        assert isinstance(client.segment(street, "finder-twin"), Detections)
    sink.close()


def test_other_models_are_asked_once_they_are_loaded(
    client: Client, street: NDArray[np.uint8]
) -> None:
    with pytest.raises(ConfigError, match="not loaded: there are: regions-twin"):
        client.segment(street, "finder-twin")
    assert client.load("finder-twin").name == "finder-twin"
    assert isinstance(client.segment(street, "finder-twin"), Detections)
    client.unload("finder-twin")
    with pytest.raises(ConfigError, match="not loaded"):
        client.segment(street, "finder-twin")
    with pytest.raises(ConfigError, match="not loaded"):
        client.unload("finder-twin")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../x",
        "a/b",
        "/etc",
        "./m.py:Attr",
        "os:system",
        "a..b",
        ".hidden",
        "a b",
        "x" * 65,
    ],
)
def test_a_name_that_is_a_path_or_code_is_never_looked_for(client: Client, name: str) -> None:
    with pytest.raises(ConfigError, match="is not the name of a model"):
        client.load(name)
    with pytest.raises(ConfigError, match="is not the name of a model"):
        client.segment(b"", name)


def test_models_that_are_not_there_are_said_to_be(client: Client) -> None:
    with pytest.raises(ConfigError, match="no model 'none' is installed"):
        client.load("none")
    with pytest.raises(ConfigError, match="not here yet"):
        client.load("sltnet-ddd17")


def test_pictures_are_bounded_before_they_are_made(client: Client) -> None:
    """A PNG of a few bytes that claims 4 gigapixels, a cut-off one, and pixels that are missing."""
    _, encoded = cv2.imencode(".png", np.zeros((4, 4), np.uint8))
    png = encoded.tobytes()
    huge = png[:16] + (1 << 16).to_bytes(4, "big") * 2 + png[24:]
    _, jpeg = cv2.imencode(".jpg", np.zeros((64, 64), np.uint8))
    frame = jpeg.tobytes().index(b"\xff\xc0")
    huge_jpeg = jpeg.tobytes()
    huge_jpeg = huge_jpeg[: frame + 5] + b"\xff\xff\xff\xff" + huge_jpeg[frame + 9 :]
    for picture, words in (
        (huge, "65536 × 65536 px; at most"),
        (huge_jpeg, "65535 × 65535 px; at most"),
        (png[:-12], "cut off"),
        (jpeg.tobytes()[:-40], "cut off"),
        (png[:30], "neither a PNG nor a JPEG"),
        (b"GIF89a", "neither a PNG nor a JPEG"),
        (b"\xff\xd8\xff", "neither a PNG nor a JPEG"),
    ):
        with pytest.raises(EdgepercError, match=words):
            client.segment(picture, "regions-twin")
    with pytest.raises(ConfigError, match="uint8, this is"):
        client.segment(np.zeros((3, 3)), "regions-twin")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="has no pixels"):
        client.segment(np.zeros((0, 3), np.uint8), "regions-twin")
    _, whole = cv2.imencode(".jpg", np.zeros((64, 64), np.uint8))
    assert isinstance(client.segment(whole.tobytes(), "regions-twin"), LabelMap)


def test_a_request_whose_deadline_has_passed_is_not_computed(
    sink: Grpc, client: Client, street: NDArray[np.uint8]
) -> None:
    client.segment(street, "regions-twin")
    with sink._models.get("regions-twin").lock, pytest.raises(DeviceError):
        client.segment(street, "regions-twin", timeout_s=0.2)


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    mirror = Mirror()
    yield mirror
    mirror.stop()


def test_steering_holds_the_lease_until_it_is_left(mirror: Mirror) -> None:
    with connect(mirror.sink.address) as client:
        with client.steering("me", ttl_s=2.0) as steered:
            steered.point(0.25, -0.125)
            time.sleep(2.4)
            state = client.mirror()
            assert (state.holder, state.gaze) == ("me", Gaze(pan_rad=0.25, tilt_rad=-0.125))
            with pytest.raises(DeviceError, match="'me' steers the mirror"):
                client.steering("you")
            with pytest.raises(ConfigError, match="the mirror reaches from"):
                steered.point(3.0, 0.0)
            looks = list(steered.scan([(0.0, 0.0), (0.125, 0.0)], looks=2))
            assert [(place, look.gaze) for place, look in looks[1:3]] == [
                (0, Gaze(pan_rad=0.0, tilt_rad=0.0)),
                (1, Gaze(pan_rad=0.125, tilt_rad=0.0)),
            ]
        assert client.mirror().holder == ""
        with client.steering("you") as steered:
            client.stop_steering()
            with pytest.raises(ConfigError, match="no such lease"):
                steered.point(0.0, 0.0)


def example(words: str, address: str) -> str:
    """The Python example of docs/grpc.md that has these words, for a daemon at this address."""
    page = (Path(__file__).parents[1] / "docs" / "grpc.md").read_text()
    (found,) = [e for e in re.findall("```python\n(.*?)```", page, re.DOTALL) if words in e]
    return found.replace("connect()", f'connect("{address}")')


def test_the_docs_example_of_steering_runs(
    mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(example("client.steering(", mirror.sink.address), {})
    said = capsys.readouterr().out
    assert said.count("\n1 Gaze(pan_rad=0.1") == 3


def test_the_docs_examples_of_apps_and_pictures_run(
    sink: Grpc, daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.toml = APP + "rate_hz = 120.0\n"
    exec(example("client.apply(", sink.address), {})
    assert daemon.toml == APP + "rate_hz = 60.0\n"
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("street.png", np.zeros((64, 96), np.uint8))
    exec(example("found.labels", sink.address), {})
    assert cv2.imread("labels.png", cv2.IMREAD_GRAYSCALE).shape == (64, 96)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[Grpc, Authority, str]]:
    """A sink with TLS and tokens; its token of the role read."""
    authority, token = Authority(tmp_path), "0123456789abcdef"
    pair = authority.issue("daemon")
    tokens = tmp_path / "tokens"
    tokens.touch(0o600)
    tokens.write_text(f"read {token}\n")
    sink = Grpc(
        listen="127.0.0.1:0",
        inventory=Inventory(),
        tls_cert=str(pair.cert),
        tls_key=str(pair.key),
        tokens=str(tokens),
    )
    yield sink, authority, token
    sink.close()


def test_a_client_with_token_and_authority_is_let_in_and_is_told_what_it_lacks(
    guarded: tuple[Grpc, Authority, str], tmp_path: Path
) -> None:
    sink, authority, token = guarded
    with connect(sink.address, token=token, tls_ca=authority.ca) as client:
        assert client.sources() == ()
        results = client.subscribe()
        sink.write(label_map(5))
        assert next(results).result.stamp.seq == 5
        with pytest.raises(ConfigError, match="GetConfig needs the role admin") as caught:
            client.config()
        assert "--token-file" in caught.value.hint
    for wrong, kind, words in (
        ({"tls_ca": authority.ca}, ConfigError, "a token is needed"),
        ({"tls_ca": authority.ca, "token": "wrong-0123456789"}, ConfigError, "is not known"),
        ({"token": token}, DeviceError, "no daemon"),
        ({"tls_ca": Authority(tmp_path, "other").ca}, DeviceError, "not one to be trusted"),
        ({"tls_ca": tmp_path / "none"}, ConfigError, "No such file"),
        ({"cert": "x"}, ConfigError, "needs its key"),
    ):
        with pytest.raises(kind, match=words):
            connect(sink.address, **wrong)  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match="not one to be trusted"):
        connect(sink.address, access=Access(tls_ca=authority.ca, server_name="else.where"))


def test_a_token_is_not_shown_to_a_network_without_encryption() -> None:
    with pytest.raises(ConfigError, match="cross the network to robot"):
        Client("robot:50051", access=Access(token="0123456789abcdef"))
    Client("robot:50051", access=Access(token="0123456789abcdef", insecure=True)).close()


def edgeperc(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgeperc", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )


def test_health_exits_with_zero_only_while_the_daemon_is_well(
    guarded: tuple[Grpc, Authority, str],
) -> None:
    sink, authority, _ = guarded
    asked = ("health", sink.address, "--ca", str(authority.ca))
    before = edgeperc(*asked)
    assert (before.returncode, before.stdout) == (1, "not serving\n")
    sink.write(label_map(0))
    after = edgeperc(*asked)
    assert (after.returncode, after.stdout) == (0, "serving\n")
    part = edgeperc(*asked, "--service", "pipelines/none")
    assert part.returncode == 1
    sink.close()
    gone = edgeperc(*asked)
    assert gone.returncode == 1
    assert "no daemon" in gone.stderr


def test_watch_shows_its_token_from_a_file_or_the_environment(
    guarded: tuple[Grpc, Authority, str], tmp_path: Path
) -> None:
    sink, authority, token = guarded
    watch = ("watch", sink.address, "--ca", str(authority.ca), "--json", "--duration-s", "0.2")
    without = edgeperc(*watch)
    assert without.returncode == 2
    assert "a token is needed" in without.stderr
    assert edgeperc(*watch, EDGEPERC_TOKEN=token).returncode == 0
    file = tmp_path / "token"
    file.write_text(f"{token}\n")
    assert edgeperc(*watch, "--token-file", str(file)).returncode == 0
    file.write_text(f"read {token}\n")
    assert "2 words, not a token" in edgeperc(*watch, "--token-file", str(file)).stderr


def test_insecure_is_for_every_sink_that_can_be_reached(tmp_path: Path) -> None:
    path = tmp_path / "app.toml"
    path.write_text(
        'rig = "twin"\n[[pipelines]]\nname = "p"\ninput = "dvs"\nmodel = "sltnet-twin"\n'
        '[[sinks]]\nkind = "null"\n[[sinks]]\nkind = "grpc"\n'
    )
    assert with_insecure(str(path), []) == ["sinks.1.insecure=true"]
