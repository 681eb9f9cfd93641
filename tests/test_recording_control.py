"""Recordings begun and ended while a run goes on, on the command line, and by an app's sink."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgeperc.assemble import open_sinks
from edgeperc.cli import main
from edgeperc.control import ControlError
from edgeperc.daemon import LocalDaemon
from edgeperc.errors import ConfigError, EdgepercError
from edgeperc.plan import Plan
from edgeperc.recording.control import Recordings
from edgeperc.recording.items import items
from edgeperc.recording.names import file_name, recordings_home
from edgeperc.recording.reader import head
from edgeperc.result import ModelRef
from edgeperc.sink import Inventory, PacketSink, Sink
from edgeperc.sinks.record import Record, RecordSink

from .test_recorder import frame, record

PLAN = Plan.load("events")


class FakeRun:
    """Takes sinks and gives them up."""

    def __init__(self) -> None:
        self.sinks: list[Any] = []

    def add(self, sink: Sink) -> None:
        self.sinks.append(sink)

    def remove(self, sink: Sink) -> None:
        self.sinks.remove(sink)
        sink.close()

    def pipelines(self) -> tuple[Any, ...]:
        return ()


@pytest.mark.parametrize(
    "name", ["drive", "drive.mcap", "2026-11-27 a", "Straße", "a.b", "x" * 190]
)
def test_plain_names_are_taken(name: str) -> None:
    assert file_name(name) == name.removesuffix(".mcap") + ".mcap"


@pytest.mark.parametrize(
    "name",
    ["a/b", "/etc/x", "..", ".", "../x", "a\\b", "a\nb", "a\0b", ".hidden", "-o", " ", ".mcap",
     "x" * 300, "\u202ex", "a\x7f", " x", "\ud800"],
)  # fmt: skip
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ControlError, match="is no plain file name") as error:
        file_name(name)
    assert error.value.why == "range"
    assert str(error.value).isprintable()


def test_no_name_is_the_time_of_day() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d\.mcap", file_name(""))


def test_a_recording_begins_and_ends(tmp_path: Path) -> None:
    run = FakeRun()
    recordings = Recordings(lambda: PLAN, run, tmp_path)  # type: ignore[arg-type]
    assert recordings.status() is None
    with pytest.raises(ControlError, match="nothing is recorded") as unknown:
        recordings.stop()
    assert unknown.value.why == "unknown"
    begun = recordings.start("drive")
    assert (begun.running, begun.name, begun.path) == (True, "drive", str(tmp_path / "drive.mcap"))
    (sink,) = run.sinks
    assert isinstance(sink, PacketSink)
    sink.take(frame(0))
    with pytest.raises(ControlError, match="'drive' is being recorded already") as taken:
        recordings.start("other")
    assert taken.value.why == "taken"
    ended = recordings.stop()
    assert (ended.running, ended.messages > 1, run.sinks) == (False, True, [])
    assert recordings.status() == ended
    assert len(list(items(tmp_path / "drive.mcap"))) == 1
    assert head(tmp_path / "drive.mcap").values["app"] == "events"
    with pytest.raises(ControlError, match="is there already") as conflict:
        recordings.start("drive")
    assert conflict.value.why == "conflict"
    assert recordings.start().running
    recordings.stop()


@pytest.mark.parametrize(
    "limits",
    [{"max_bytes": 999_999}, {"max_bytes": -1}, {"max_s": 0.5}, {"max_s": -1.0}]
    + [{"max_s": float(odd)} for odd in ("nan", "inf")],
)
def test_limits_that_make_no_sense_are_refused(tmp_path: Path, limits: dict[str, Any]) -> None:
    recordings = Recordings(lambda: PLAN, FakeRun(), tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ControlError, match="must be at least") as error:
        recordings.start("a", **limits)
    assert error.value.why == "range"
    assert list(tmp_path.iterdir()) == []


def test_two_who_start_at_once_get_one_recording(tmp_path: Path) -> None:
    recordings = Recordings(lambda: PLAN, FakeRun(), tmp_path)  # type: ignore[arg-type]
    came: list[Any] = []

    def start(name: str) -> None:
        try:
            came.append(recordings.start(name))
        except ControlError as error:
            came.append(error.why)

    threads = [threading.Thread(target=start, args=(f"r{k}",)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recordings.stop()
    assert came.count("taken") == 7
    assert len(list(tmp_path.iterdir())) == 1


def test_recordings_go_where_edgeperc_is_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPERC_HOME", str(tmp_path))
    assert recordings_home() == tmp_path / "recordings"
    monkeypatch.delenv("EDGEPERC_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    assert recordings_home() == tmp_path / "share" / "edgeperc" / "recordings"


def test_the_daemon_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPERC_HOME", str(tmp_path))
    daemon = LocalDaemon(PLAN)
    with pytest.raises(ControlError):
        daemon.start_recording("a")
    daemon.bind(FakeRun())  # type: ignore[arg-type]
    assert daemon.start_recording("a").running
    assert daemon.stop_recording().path == str(tmp_path / "recordings" / "a.mcap")


def test_a_sink_that_failed_says_so_once(tmp_path: Path) -> None:
    from edgeperc.recording.head import About
    from edgeperc.recording.recorder import Recorder

    sink = RecordSink(Recorder(tmp_path / "a.mcap", About(values={}, files={})))
    sink.recorder._fail(OSError(28, "No space left on device"))
    with pytest.raises(EdgepercError, match=r"a\.mcap: the disk is full"):
        sink.take(frame(0))
    with pytest.raises(EdgepercError, match="the disk is full"):
        sink.close()
    sink.close()


def opened(**table: Any) -> Sink:
    app = msgspec.structs.replace(PLAN.app, sinks=({"kind": "record", **table},))
    inventory = Inventory(models=(ModelRef(name="sltnet-twin", sha256="ab" * 32),))
    (sink,) = open_sinks(replace(PLAN, app=app), inventory, [], LocalDaemon(PLAN))
    return sink


def test_the_table_of_a_sink_is_checked(tmp_path: Path) -> None:
    sink = opened(folder=str(tmp_path), name="a", max_mb=5, topics=["wide/*"], queue_mb=1)
    assert isinstance(sink, Record)
    assert sink.where == str(tmp_path / "a.mcap")
    sink.close()
    assert '"sltnet-twin"' in head(tmp_path / "a.mcap").values["models"]
    for table, why in (
        ({"max_mb": 0}, "max_mb"),
        ({"name": "../a"}, "is no plain file name"),
        ({"foldr": "x"}, "did you mean 'folder'"),
        ({"name": "a"}, "is there already"),
    ):
        with pytest.raises(ConfigError, match=why):
            opened(**{"folder": str(tmp_path), **table})


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A file system of its own that is soon full. Skips where it may not be made."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(path: Path) -> None:
    """Write until there is no room."""
    with path.open("wb") as rest:
        while True:
            rest.write(bytes(1 << 16))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_full_disk_leaves_a_whole_file(tmp_path: Path) -> None:
    from edgeperc.recording.head import About
    from edgeperc.recording.recorder import Recorder
    from edgeperc.recording.repair import repair

    with small_disk(tmp_path / "disk", 3000) as disk:
        recorder = Recorder(disk / "a.mcap", About(values={}, files={}), wait=True)
        seq = 0
        while not recorder.error:
            recorder.put(frame(seq))
            seq += 1
        recorder.close()
        assert recorder.status().error == f"{disk}/a.mcap: the disk is full"
        seqs = [item.stamp.seq for item in items(disk / "a.mcap")]
        assert seqs == list(range(len(seqs)))
        assert len(seqs) > 20
        assert repair(disk / "a.mcap").was_whole
        with pytest.raises(OSError, match="No space"):
            fill(disk / "rest")
        with pytest.raises(ConfigError, match=r"b\.mcap: cannot be written: No space left"):
            Recorder(disk / "b.mcap", About(values={}, files={}))
        assert not (disk / "b.mcap").exists()


def test_the_command_records_repairs_and_makes_a_bag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def edgeperc(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["edgeperc", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(str(ended.value.code)), captured.out, captured.err

    path = tmp_path / "a.mcap"
    words = ["record", "events", "-o", str(tmp_path / "a"), "--lossless", "--duration-s", "0.2"]
    code, out, _ = edgeperc(*words, "--json")
    assert code == 0
    status = json.loads(out)
    assert (status["path"], status["dropped"], status["running"]) == (str(path), 0, False)
    assert len({type(item) for item in items(path)}) == 3
    code, _, err = edgeperc(*words)
    assert (code, "is there already" in err) == (2, True)
    code, out, _ = edgeperc("record", "--bag", str(path), "-o", str(tmp_path / "bag"))
    assert code == 0
    assert (tmp_path / "bag" / "metadata.yaml").is_file()
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(path.read_bytes()[:-100])
    code, out, _ = edgeperc("record", "--repair", str(cut))
    assert (code, "was made whole" in out) == (0, True)
    code, out, _ = edgeperc("record", "--repair", str(cut))
    assert (code, "is whole" in out) == (0, True)
    record(tmp_path / "two.mcap", [frame(0)])
    code, _, err = edgeperc("record", "--repair", str(tmp_path / "bag" / "metadata.yaml"))
    assert (code, "is no recording of edgeperc" in err) == (1, True)
    code, _, _ = edgeperc("replay", str(path), "--speed", "max", "--out", str(tmp_path / "out"))
    assert code == 0
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert len(lines) == sum(hasattr(item, "labels") for item in items(path))
