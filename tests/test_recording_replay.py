"""What was recorded is played again: the same packets, and the same results to the last bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from edgeperc import places
from edgeperc.assemble import assemble
from edgeperc.calibration.file import identify
from edgeperc.config import App, PipelineTable, Rig
from edgeperc.drivers import formats
from edgeperc.drivers.replay import Replay
from edgeperc.errors import ConfigError, DataError
from edgeperc.packet import Events, Frame, Gaze, Packet
from edgeperc.plan import Plan
from edgeperc.recording.head import About, models_of
from edgeperc.recording.items import items
from edgeperc.recording.plan import _calibrated, other_models, recorded_plan, search_note
from edgeperc.recording.reader import head, messages
from edgeperc.recording.recorder import Recorder
from edgeperc.replay import replay, replay_plan, rig_plan
from edgeperc.result import ModelRef, Result, Timings
from edgeperc.ros.codec import deserialize
from edgeperc.ros.topics import DIAGNOSTICS, STRING, time_of
from edgeperc.sinks import ros2

from .test_recorder import frame, packet, record, until
from .test_ros_messages import as_bytes

QUIET = Console(quiet=True)


def sink(path: Path) -> dict[str, Any]:
    return {"kind": "record", "folder": str(path.parent), "name": path.name, "wait": True}


def play(plan: Plan, path: Path) -> None:
    """Play a plan to its end and record it."""
    plan = replace(plan, app=msgspec.structs.replace(plan.app, sinks=(sink(path),)))
    played = replay(plan, speed=None, out=None, console=QUIET)
    assert played.error is None


def stamps(path: Path) -> dict[str, list[tuple[int, int]]]:
    """Of each topic: the times in the headers, and when it was logged."""
    found: dict[str, list[tuple[int, int]]] = {}
    for entry in messages(path, lambda _, type_: type_ not in (STRING, DIAGNOSTICS)):
        header = deserialize(bytes(entry.data), entry.type).header
        found.setdefault(entry.topic, []).append((time_of(header), entry.time_ns))
    return found


def twin_plan(app: str, duration_s: float) -> Plan:
    return rig_plan(app, duration_s=duration_s, out=None, listen=None)


def of_sensor(path: Path, name: str, kind: type) -> list[Any]:
    """The packets of one kind that a sensor sent."""
    return [
        as_bytes(item)
        for item in items(path)
        if isinstance(item, kind) and item.stamp.source == name
    ]


def said(path: Path) -> dict[tuple[str, str], list[Any]]:
    """All that was said by each pipeline, but for how long it took."""
    found: dict[tuple[str, str], list[Any]] = {}
    for item in items(path):
        if not isinstance(item, (Frame, Events)):
            result: Result = replace(item, timings=Timings())
            found.setdefault((item.stamp.source, item.model.name), []).append(as_bytes(result))
    return found


def played_twice(plan: Plan, folder: Path) -> Path:
    """Record a plan, play the recording twice, and see that all three say the same."""
    first, second, third = (folder / f"{name}.mcap" for name in "abc")
    play(plan, first)
    play(recorded_plan(first), second)
    play(recorded_plan(second), third)
    results = said(first)
    assert sum(map(len, results.values())) > 3
    assert said(second) == results
    assert said(third) == results
    for name in plan.rig.sensors:
        for kind in (Frame, Events):
            assert of_sensor(second, name, kind) == of_sensor(first, name, kind)
    return first


def test_a_recording_of_events_gives_the_same_labels(tmp_path: Path) -> None:
    first = played_twice(twin_plan("events", 0.4), tmp_path)
    assert said(first).keys() == {("dvs", "sltnet-twin")}
    assert of_sensor(first, "dvs", Events)
    said_of_it = head(first)
    assert said_of_it.values["app"] == "events"
    (model,) = models_of(said_of_it)
    assert (model.name, len(model.sha256)) == ("sltnet-twin", 64)
    rig_file = places.find_rig("twin")[1]
    assert said_of_it.files["rig.toml"] == rig_file.read_bytes()


def test_a_recording_of_frames_and_events_gives_the_same_labels(tmp_path: Path) -> None:
    played_twice(twin_plan("fusion", 0.2), tmp_path)


def two_sensors() -> Plan:
    """A wide camera and an event camera over the same avenue, each with its network."""
    rig, rig_path = places.find_rig("twin-search")
    sensors = {
        name: {**rig.sensors[name], "duration_s": duration_s}
        for name, duration_s in (("wide", 0.5), ("dvs", 0.2))
    }
    app = App(
        rig="twin-search",
        pipelines=(
            PipelineTable(name="wide", input="wide", model="finder-twin"),
            PipelineTable(name="events", input="dvs", model="sltnet-twin", window_us=40_000),
        ),
    )
    return Plan(
        app=app,
        app_path=Path("two.toml"),
        rig=msgspec.structs.replace(rig, sensors=sensors, mirror=None, calibration=""),
        rig_path=rig_path,
    )


def test_each_sensor_plays_its_own(tmp_path: Path) -> None:
    first = played_twice(two_sensors(), tmp_path)
    assert said(first).keys() == {("wide", "finder-twin"), ("dvs", "sltnet-twin")}
    assert len(of_sensor(first, "wide", Frame)) == 5
    again = recorded_plan(first)
    assert {name: table["driver"] for name, table in again.rig.sensors.items()} == {
        "wide": "replay",
        "dvs": "replay",
    }


@pytest.mark.slow
def test_a_search_is_shown_what_it_saw_and_finds_the_same_again(tmp_path: Path) -> None:
    first = played_twice(twin_plan("search", 1.0), tmp_path)
    assert ("search", "bayes") in said(first)
    assert len(of_sensor(first, "search", Frame)) > 100
    plan = recorded_plan(first)
    assert {name: table["driver"] for name, table in plan.rig.sensors.items()} == {
        "wide": "replay",
        "search": "replay",
    }
    assert search_note(first, plan) == ""
    # No mirror is opened: there is none at that port.
    nobody = msgspec.structs.replace(plan.rig, mirror={"driver": "optotune", "port": "/dev/null"})
    play(calibrated(replace(plan, rig=nobody), first), tmp_path / "d.mcap")
    assert said(tmp_path / "d.mcap") == said(first)


def calibrated(plan: Plan, recording: Path) -> Plan:
    """The plan with the calibration of a recording, said to be of the devices that it has now."""
    text = head(recording).files["calibration.toml"]
    return _calibrated(plan, text)


@pytest.mark.slow
def test_a_search_that_was_recorded_live_is_shown_what_it_saw(tmp_path: Path) -> None:
    plan = Plan.load("search")
    table = msgspec.structs.replace(plan.app, sinks=(sink(tmp_path / "a.mcap"),))
    run = assemble(replace(plan, app=table))
    run.start()
    until(lambda: run.pipelines()[-1].meter.results > 100)
    run.stop()
    again = recorded_plan(tmp_path / "a.mcap")
    play(again, tmp_path / "b.mcap")
    play(recorded_plan(tmp_path / "b.mcap"), tmp_path / "c.mcap")
    live, played = said(tmp_path / "a.mcap"), said(tmp_path / "b.mcap")
    looks = [
        each for each in live["search", "finder-twin"] if each in played["search", "finder-twin"]
    ]
    assert len(looks) == len(live["search", "finder-twin"]) > 90
    assert said(tmp_path / "c.mcap") == played


def test_a_person_is_told_how_a_search_is_played(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    plan = Plan.load("search")
    looks = [
        replace(
            frame(seq),
            stamp=replace(frame(seq).stamp, source="search"),
            gaze=Gaze(pan_rad=0.1, tilt_rad=0.0),
        )
        for seq in range(2)
    ]
    what: list[list[Packet]] = [[frame(0), *looks], [frame(0)]]
    for number, items_ in enumerate(what):
        path = tmp_path / f"{number}.mcap"
        recorder = Recorder(path, About.of(plan, ()))
        for item in items_:
            recorder.put(item)
        recorder.close()
    live = recorded_plan(tmp_path / "0.mcap")
    assert "recorded live" in search_note(tmp_path / "0.mcap", live)
    changed = recorded_plan(tmp_path / "0.mcap", changes=["search.scheduler=raster"])
    assert "the mirror goes where it went" in search_note(tmp_path / "0.mcap", changed)
    blind = recorded_plan(tmp_path / "1.mcap")
    assert blind.rig.sensors["search"]["driver"] == "twin-search"
    assert "simulated anew" in search_note(tmp_path / "1.mcap", blind)
    nothing = replace(blind, app=msgspec.structs.replace(blind.app, search=None))
    assert "the search is left out" in search_note(tmp_path / "1.mcap", nothing)
    other = recorded_plan(tmp_path / "0.mcap", app="search")
    assert identify(other.rig, "wide", "search", (960, 448)).wide == "replay"
    assemble(other, lossless=True, speed=None).stop()


def test_a_recording_is_played_and_published_with_the_stamps_of_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "a.mcap", tmp_path / "b.mcap"
    play(twin_plan("events", 0.15), first)
    published: list[tuple[str, int]] = []

    class FakeWire:
        def publish(self, topic: Any, data: bytes) -> None:
            if topic.name.startswith("/edgeperc"):
                header = deserialize(data, topic.type).header
                published.append((topic.name.removeprefix("/edgeperc/"), time_of(header)))

        def close(self) -> None: ...

    monkeypatch.setattr(ros2, "_open", lambda *_, **__: FakeWire())
    monkeypatch.setattr(ros2, "choose", lambda _: "dds")
    plan = recorded_plan(first, sinks=[{"kind": "ros2", "image": True, "events": True}])
    sinks = (sink(second), *plan.app.sinks)
    plan = replace(plan, app=msgspec.structs.replace(plan.app, sinks=sinks))
    assert replay(plan, speed=None, out=None, console=QUIET).error is None
    assert stamps(second) == stamps(first)
    assert {"dvs/image_raw", "dvs/camera_info", "dvs/events"} < stamps(first).keys()
    assert {topic for topic, _ in published} == stamps(first).keys()
    then = {(topic, time_ns) for topic, times in stamps(first).items() for time_ns, _ in times}
    assert set(published) <= then


def test_a_search_ends_with_the_recording(tmp_path: Path) -> None:
    plan = Plan.load("search")  # as it is recorded live, without an end
    recorder = Recorder(tmp_path / "a.mcap", About.of(plan, ()))
    for seq in range(3):
        stamp = replace(frame(seq).stamp, end_ns=1_000_000_000 + seq)
        recorder.put(replace(frame(seq), stamp=stamp))
    recorder.close()
    again = recorded_plan(tmp_path / "a.mcap")
    assert again.app.search
    assert again.rig.sensors["search"]["duration_s"] == pytest.approx(1.0)
    assert again.rig.sensors["wide"]["driver"] == "replay"


def test_another_model_sees_what_was_recorded(tmp_path: Path) -> None:
    play(twin_plan("events", 0.2), tmp_path / "a.mcap")
    plan = replay_plan(
        tmp_path / "a.mcap",
        model="sltnet-twin",
        app=None,
        out=None,
        listen=None,
        max_gap_s=None,
        sensor={},
    )
    play(plan, tmp_path / "b.mcap")
    (first,) = said(tmp_path / "a.mcap").values()
    (again,) = said(tmp_path / "b.mcap").values()
    assert len(again) == len(first)


def test_models_that_have_changed_are_named(tmp_path: Path) -> None:
    one, other = ModelRef(name="a", sha256="1" * 64), ModelRef(name="b", sha256="2" * 64)
    recorder = Recorder(tmp_path / "a.mcap", About.of(Plan.load("events"), (one, other)))
    recorder.close()
    now = (one, replace(other, sha256="3" * 64), ModelRef(name="c", sha256="4" * 64))
    assert other_models(tmp_path / "a.mcap", now) == ("b",)


def test_changes_and_another_app_take_the_place_of_what_is_inside(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    play(twin_plan("events", 0.05), path)
    changed = recorded_plan(path, changes=["pipelines.0.window_us=10000"])
    assert changed.app.pipelines[0].window_us == 10_000
    (table,) = recorded_plan(path, app="fusion").app.pipelines
    assert (table.model, table.input) == ("mambaseg-nano", "dvs")
    with pytest.raises(ConfigError, match="unknown key 'modle'"):
        recorded_plan(path, changes=["pipelines.0.modle=x"])


def test_packets_are_left_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    what: list[Packet] = [packet(3), frame(9), packet(5), packet(4)]
    what[1] = replace(frame(9), gaze=Gaze(pan_rad=0.25, tilt_rad=-0.5))
    record(path, what)
    assert formats.sniff(path) is formats.OURS
    found = list(Replay(str(path), name="dvs", sensor="dvs").packets())
    assert list(map(as_bytes, found)) == [as_bytes(packet(seq)) for seq in (3, 5, 4)]
    (picture,) = Replay(str(path), name="wide", sensor="wide").packets()
    assert as_bytes(picture) == as_bytes(what[1])


def test_a_part_is_counted_from_the_recordings_beginning(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    record(path, [packet(0), frame(2), packet(1), packet(2), frame(5)])
    # Packets 0, 1, 2 last 2 ms each; the frames are at 2 and 5 µs.
    found = list(Replay(str(path), sensor="dvs", start_s=0.002, duration_s=0.002).packets())
    assert [item.stamp.seq for item in found] == [1]
    pictures = Replay(str(path), sensor="wide", start_s=4e-6).packets()
    assert [item.stamp.seq for item in pictures] == [5]


def test_several_sensors_ask_for_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    record(path, [packet(0), frame(0)])
    with pytest.raises(DataError, match="several sensors: dvs, wide"):
        list(Replay(str(path)).packets())
    assert list(Replay(str(path), sensor="nobody").packets()) == []


def test_what_is_readable_comes_before_the_error(tmp_path: Path) -> None:
    whole, cut = tmp_path / "a.mcap", tmp_path / "cut.mcap"
    record(whole, [packet(seq) for seq in range(200)])
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    found = []
    with pytest.raises(DataError, match=r"was not closed; it ends at byte [\d,]+ \(after") as error:
        found.extend(Replay(str(cut), sensor="dvs").packets())
    assert "--repair" in error.value.hint
    found = []
    try:
        for item in Replay(str(cut), sensor="dvs").packets():
            found.append(item)
    except DataError:
        pass
    assert 20 < len(found) < 200
    assert [item.stamp.seq for item in found] == list(range(len(found)))


def stranger(path: Path, *, rig: Rig, app: App) -> None:
    """A recording with an app of somebody else's."""
    plan = Plan(app=app, app_path=Path("x.toml"), rig=rig, rig_path=Path("y.toml"))
    recorder = Recorder(path, About.of(plan, ()))
    recorder.put(packet(0))
    recorder.close()


@pytest.mark.parametrize("where", ["sensor", "mirror", "scheduler"])
def test_code_that_a_recording_names_is_not_run(tmp_path: Path, where: str) -> None:
    evil = "./evil.py:Attack"
    (tmp_path / "evil.py").write_text("raise SystemExit('attacked')")
    search = {"gaze": "p", "scheduler": evil if where == "scheduler" else "bayes"}
    app = msgspec.convert(
        {
            "rig": "y",
            "pipelines": [{"name": "p", "input": "dvs", "model": "sltnet-twin"}],
            "search": search,
        },
        App,
    )
    rig = Rig(
        sensors={"dvs": {"driver": evil if where == "sensor" else "twin"}},
        mirror={"driver": evil if where == "mirror" else "twin-mirror"},
    )
    stranger(tmp_path / "a.mcap", rig=rig, app=app)
    with pytest.raises(ConfigError, match="names code of its own"):
        recorded_plan(tmp_path / "a.mcap")


def test_a_sensor_that_is_missing_is_named(tmp_path: Path) -> None:
    table = PipelineTable(name="p", input="wide", model="finder-twin")
    app = App(rig="y", pipelines=(table,))
    stranger(tmp_path / "a.mcap", rig=Rig(sensors={"wide": {"driver": "basler"}}), app=app)
    with pytest.raises(ConfigError, match="sensor 'wide', which 'p' looks at, was not recorded"):
        recorded_plan(tmp_path / "a.mcap")


def test_a_real_rigs_gaze_is_played_without_its_mirror(tmp_path: Path) -> None:
    tables = [{"name": name, "input": name, "model": "finder-twin"} for name in ("wide", "search")]
    app = msgspec.convert(
        {"rig": "y", "pipelines": tables, "search": {"gaze": "search", "hints": ["wide"]}}, App
    )
    cameras = {name: {"driver": "basler", "serial": name} for name in ("wide", "search")}
    rig = Rig(sensors=cameras, mirror={"driver": "optotune", "port": "/dev/null"})
    plan = Plan(app=app, app_path=Path("x.toml"), rig=rig, rig_path=Path("y.toml"))
    recorder = Recorder(tmp_path / "a.mcap", About.of(plan, ()))
    for name in ("wide", "search"):
        stamp = replace(frame(0).stamp, source=name)
        recorder.put(replace(frame(0), stamp=stamp))
    recorder.close()
    again = recorded_plan(tmp_path / "a.mcap")
    assert again.app.search is None
    assert {table["driver"] for table in again.rig.sensors.values()} == {"replay"}
    run = assemble(again, lossless=True, speed=None)
    run.start()
    assert run.wait(60)
    run.stop()
    assert run.errors == ()
    assert [pipeline.meter.results for pipeline in run.pipelines()] == [1, 1]
