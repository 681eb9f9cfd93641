"""Recording: nobody waits, nothing is overwritten, and a sudden end costs a moment."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory

from edgeperc.errors import ConfigError
from edgeperc.packet import Events, Frame, Packet, Stamp
from edgeperc.recording import recorder as recorder_module
from edgeperc.recording.bag import make_bag
from edgeperc.recording.head import About
from edgeperc.recording.items import items
from edgeperc.recording.mcap_file import McapFile
from edgeperc.recording.reader import head
from edgeperc.recording.recorder import Limits, Recorder
from edgeperc.recording.repair import repair
from edgeperc.result import Result

from .recording_process import packet
from .test_ros_messages import ITEMS, as_bytes

ABOUT = About(
    values={"app": "test"},
    files={"app.toml": ("application/toml", b'rig = "twin"\n'), "odd": ("x/y", bytes(range(256)))},
)
PROCESS = Path(__file__).with_name("recording_process.py")


def until(condition: Any, timeout_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not come"
        time.sleep(0.01)


def record(path: Path, what: list[Packet | Result], **options: Any) -> Recorder:
    recorder = Recorder(path, ABOUT, **options)
    for item in what:
        recorder.put(item)
    recorder.close()
    assert recorder.error == ""
    return recorder


def frame(seq: int, side: int = 200) -> Frame:
    pixels = np.random.default_rng(seq).integers(0, 255, (side, side), np.uint8)
    stamp = Stamp(source="wide", seq=seq, start_ns=seq * 1000, end_ns=seq * 1000 + 500)
    return Frame(stamp=stamp, image=pixels)


def same(some: Iterator[Packet | Result], others: list[Packet | Result]) -> bool:
    return list(map(as_bytes, some)) == list(map(as_bytes, others))


def test_everything_comes_back_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "new" / "drive.mcap"
    recorder = record(path, list(ITEMS.values()))
    assert same(items(path), list(ITEMS.values()))
    status = recorder.status()
    assert not status.running
    assert (status.name, status.path, status.bytes) == ("drive", str(path), path.stat().st_size)
    assert (status.dropped, status.files, status.error) == (0, 1, "")
    said = head(path)
    assert said.values["app"] == "test"
    assert said.files["odd"] == bytes(range(256))


def test_independent_readers_open_it(tmp_path: Path) -> None:
    path = tmp_path / "drive.mcap"
    recorder = record(path, list(ITEMS.values()))
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True, decoder_factories=[DecoderFactory()])
        decoded = {
            channel.topic: message for _, channel, _, message in reader.iter_decoded_messages()
        }
        assert reader.get_summary().statistics.message_count == recorder.status().messages
        assert [each.name for each in reader.iter_attachments()] == ["app.toml", "odd"]
        (metadata,) = reader.iter_metadata()
        assert metadata.metadata["app"] == "test"
    assert decoded["app"].data == 'rig = "twin"\n'
    labels = decoded["dvs/finder_2b/labels"]
    assert (labels.encoding, labels.height, labels.width) == ("mono8", 260, 346)
    assert bytes(labels.data) == ITEMS["labels"].labels.tobytes()
    first = decoded["dvs/finder_2b/detections"].detections[0]
    assert first.results[0].hypothesis.class_id == "car"
    assert decoded["dvs/events"].encoding == "mono"


def test_ros_2_takes_it_for_a_bag(tmp_path: Path) -> None:
    from rosbags.rosbag2 import Reader

    recorder = record(
        tmp_path / "drive.mcap", [frame(k) for k in range(60)], limits=Limits(max_bytes=1_000_000)
    )
    assert recorder.status().files > 1
    make_bag(tmp_path / "drive.mcap", tmp_path / "bag")
    with Reader(tmp_path / "bag") as reader:
        found = [connection.topic for connection, _, _ in reader.messages()]
        assert len(found) == reader.message_count == recorder.status().messages
    assert found.count("wide/image_raw") == 60
    assert same(items(tmp_path / "bag"), [frame(k) for k in range(60)])
    with pytest.raises(ConfigError, match="is there already"):
        make_bag(tmp_path / "drive.mcap", tmp_path / "bag")


def test_label_info_comes_when_it_changes_and_in_every_file(tmp_path: Path) -> None:
    from dataclasses import replace

    labels = ITEMS["labels"]
    path = tmp_path / "a.mcap"
    record(path, [labels, labels, replace(labels, classes=("c",)), labels])
    with path.open("rb") as file:
        counts = make_reader(file).get_summary()
    by_topic = {
        channel.topic: counts.statistics.channel_message_counts[channel.id]
        for channel in counts.channels.values()
    }
    assert by_topic["dvs/finder_2b/labels"] == 4
    assert by_topic["dvs/finder_2b/label_info"] == 3


@pytest.mark.parametrize(
    ("topics", "kept"),
    [
        ((), {"Frame", "Events", "LabelMap", "Detections", "Instances", "SearchMap"}),
        (("dvs/events",), {"Events"}),
        (("*/labels", "*/map"), {"LabelMap", "SearchMap"}),
        (("!*/image_raw", "!*/finder_2b/*"), {"Events"}),
        (("nothing",), set()),
    ],
)
def test_topics_are_chosen_by_patterns(
    tmp_path: Path, topics: tuple[str, ...], kept: set[str]
) -> None:
    path = tmp_path / "a.mcap"
    record(path, list(ITEMS.values()), topics=topics)
    assert {type(item).__name__ for item in items(path)} == kept


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    path.write_bytes(b"precious")
    with pytest.raises(ConfigError, match="is there already"):
        Recorder(path, ABOUT)
    assert path.read_bytes() == b"precious"
    later = tmp_path / "b_0001.mcap"
    later.write_bytes(b"precious")
    recorder = Recorder(tmp_path / "b.mcap", ABOUT, limits=Limits(max_bytes=1))
    for seq in range(20):
        recorder.put(frame(seq))
    recorder.close()
    assert "b_0001.mcap: is there already" in recorder.error
    assert later.read_bytes() == b"precious"
    assert next(items(tmp_path / "b.mcap")).stamp.seq == 0


def test_a_folder_that_cannot_be_written_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        Recorder(tmp_path / "file" / "a.mcap", ABOUT)


def test_files_follow_each_other_and_each_stands_alone(tmp_path: Path) -> None:
    path = tmp_path / "drive.mcap"
    frames = [frame(seq) for seq in range(100)]
    recorder = record(path, frames, limits=Limits(max_bytes=1_000_000))
    found = sorted(tmp_path.iterdir())
    assert len(found) == recorder.status().files > 2
    assert [each.name for each in found[:2]] == ["drive.mcap", "drive_0001.mcap"]
    assert sum(each.stat().st_size for each in found) == recorder.status().bytes
    parts = [list(items(each)) for each in found]
    assert all(parts)
    assert same(iter([item for part in parts for item in part]), frames)
    assert same(items(tmp_path), frames)
    assert [head(each).values["part"] for each in found] == [str(k) for k in range(len(found))]


def test_a_file_ends_after_a_time(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "a.mcap", ABOUT, limits=Limits(max_s=0.05))
    with closing(recorder):
        for seq in range(3):
            recorder.put(frame(seq))
            until(lambda k=seq: recorder.status().files == k + 1)
            time.sleep(0.1)
    parts = [[item.stamp.seq for item in items(each)] for each in sorted(tmp_path.iterdir())]
    assert parts == [[0], [1], [2]]


class SlowDisk:
    """Holds the recorder's thread up at its first message until `go`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self.reached = threading.Event()
        add = McapFile.add

        def slow(file: McapFile, *arguments: Any, **options: Any) -> None:
            self.reached.set()
            assert self.go.wait(60)
            add(file, *arguments, **options)

        monkeypatch.setattr(McapFile, "add", slow)


def test_what_does_not_fit_is_dropped_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(monkeypatch)
    path = tmp_path / "a.mcap"
    recorder = Recorder(path, About(values={}, files={}), limits=Limits(queue_bytes=5 * 40_000))
    for seq in range(20):
        recorder.put(frame(seq))  # 40,000 bytes each; would hang here, if it waited
    assert disk.reached.wait(60)
    assert recorder.dropped() == {"wide/image_raw": 15}
    assert recorder.status().dropped == 15
    disk.go.set()
    recorder.close()
    assert [item.stamp.seq for item in items(path)] == [0, 1, 2, 3, 4]
    with path.open("rb") as file:
        told = {each.name: each.metadata for each in make_reader(file).iter_metadata()}
    assert told["edgeperc.dropped"] == {"wide/image_raw": "15"}


def test_packets_that_did_not_come_are_counted(tmp_path: Path) -> None:
    recorder = record(tmp_path / "a.mcap", [frame(seq) for seq in (7, 8, 11, 3, 4, 6)])
    assert recorder.dropped() == {"wide/image_raw": 3}


def test_a_replay_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SlowDisk(monkeypatch)
    path = tmp_path / "a.mcap"
    limits = Limits(queue_bytes=2 * 40_000)
    recorder = Recorder(path, About(values={}, files={}), limits=limits, wait=True)
    done = threading.Event()

    def feed() -> None:
        for seq in range(20):
            recorder.put(frame(seq))
        done.set()

    threading.Thread(target=feed, daemon=True).start()
    assert disk.reached.wait(60)
    assert not done.is_set()
    disk.go.set()
    assert done.wait(60)
    recorder.close()
    assert [item.stamp.seq for item in items(path)] == list(range(20))


def test_all_is_on_disk_soon_although_nothing_more_comes(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    recorder = Recorder(path, ABOUT)
    recorder.put(frame(0))

    def is_there() -> bool:
        try:
            return any(isinstance(item, Frame) for item in _readable(path))
        except Exception:
            return False

    until(is_there)
    recorder.close()


def _readable(path: Path) -> list[Packet | Result]:
    """What can be read of a file, whole or not."""
    found = []
    try:
        for item in items(path):
            found.append(item)
    except Exception:
        pass
    return found


@pytest.mark.parametrize(
    "after_s", [0.9, *(pytest.param(each, marks=pytest.mark.slow) for each in (0.3, 1.4))]
)
def test_a_killed_process_loses_its_last_moment_only(tmp_path: Path, after_s: float) -> None:
    path = tmp_path / "a.mcap"
    handed, killed_s = _killed(path, after_s + random.random() / 2)
    found = _readable(path)
    seqs = [item.stamp.seq for item in found]
    assert seqs == list(range(len(seqs)))
    for item in found[:: max(1, len(found) // 5)]:
        assert as_bytes(item) == as_bytes(packet(item.stamp.seq))
    # Ten times the promised second, for machines that are busy with others.
    assert all(seq < len(seqs) for seq, at_s in handed.items() if at_s < killed_s - 10)
    before = path.stat().st_size
    repaired = repair(path)
    assert repaired.messages == 2 * len(seqs)
    assert repaired.cut_bytes <= before
    assert same(items(path), found)
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        assert sum(1 for _ in reader.iter_messages(["dvs/events"])) == len(seqs)
    assert repair(path).was_whole


def _killed(path: Path, after_s: float) -> tuple[dict[int, float], float]:
    """Record in a process and kill it; when each packet was handed over, and the kill."""
    process = subprocess.Popen([sys.executable, PROCESS, path], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        lines = [process.stdout.readline()]  # it is at work now
        timer = threading.Timer(after_s, process.kill)
        timer.start()
        lines += process.stdout.readlines()
        killed_s = time.monotonic()
    finally:
        process.kill()
        process.wait()
    pairs = [line.split() for line in lines if line.endswith("\n")]
    return {int(seq): float(at_s) for seq, at_s in pairs}, killed_s


def test_a_disk_that_is_full_ends_the_recording_and_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    done = subprocess.run(
        [sys.executable, PROCESS, path, "limit"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr.splitlines()[-1:] == [f"recording ended: {path}: File too large"]
    assert done.stdout.splitlines()[-1] == f"ended: {path}: File too large"
    assert path.stat().st_size <= 3_000_000
    found = list(items(path))
    assert len(found) > 50
    assert same(iter(found), [packet(seq) for seq in range(len(found))])
    assert repair(path).was_whole


def test_a_bug_in_the_thread_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(recorder_module, "to_ros", broken)
    recorder = Recorder(tmp_path / "a.mcap", ABOUT)
    recorder.put(frame(0))
    until(lambda: not recorder.status().running)
    assert "a bug" in recorder.error
    recorder.put(frame(1))
    recorder.close()
    assert list(items(tmp_path / "a.mcap")) == []


def test_events_of_any_size_are_recorded(tmp_path: Path) -> None:
    def events(count: int) -> Events:
        big = packet(0)
        index = np.arange(count) % len(big)
        stamp = Stamp(source="dvs", seq=count, start_ns=0, end_ns=0)
        t = np.sort(big.t[index])
        return Events(
            stamp=stamp, t=t, x=big.x[index], y=big.y[index], p=big.p[index],
            width_px=346, height_px=260,
        )  # fmt: skip

    what: list[Any] = [events(count) for count in (0, 1, 300_000, 2)]
    record(tmp_path / "a.mcap", what)
    assert same(items(tmp_path / "a.mcap"), what)
    assert os.listdir(tmp_path) == ["a.mcap"]
