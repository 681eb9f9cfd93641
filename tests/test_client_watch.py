"""`watch` in a process of its own, beside a real daemon: picture, lines, JSON, and its endings."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest

from edgeperc.client.watch import watch
from edgeperc.errors import DeviceError
from edgeperc.packet import Stamp
from edgeperc.result import Detections, LabelMap, ModelRef, Result, Timings
from edgeperc.sink import Inventory, SourceInfo
from edgeperc.sinks.grpc import Grpc

MODEL = ModelRef(name="sltnet-twin", engine="spiking")
INVENTORY = Inventory(sources=(SourceInfo(name="dvs", driver="twin"),), models=(MODEL,))
PROGRAM = "import sys; from edgeperc.client.watch import watch; watch(sys.argv[1], {options})"


def label_map(seq: int) -> LabelMap:
    labels = np.zeros((20, 30), np.uint8)
    labels[:5] = 1
    return LabelMap(
        stamp=Stamp(source="dvs", seq=seq, start_ns=seq * 10**6, end_ns=(seq + 1) * 10**6),
        labels=labels,
        classes=("road", "car"),
        model=MODEL,
        timings=Timings(total_ns=5_000_000),
    )


def detections(seq: int) -> Detections:
    return Detections(
        stamp=Stamp(source="wide", seq=seq, start_ns=0, end_ns=0),
        boxes=np.array([[1, 2, 3, 4]], np.float32),
        scores=np.array([0.5], np.float32),
        class_ids=np.array([0]),
        classes=("person",),
        model=ModelRef(name="finder", engine="onnxruntime"),
    )


@contextmanager
def daemon(listen: str = "127.0.0.1:0") -> Iterator[str]:
    """A sink that is written to every 10 ms; yields its address."""
    sink = Grpc(listen=listen, inventory=INVENTORY)
    stopping = threading.Event()

    def run() -> None:
        seq = 0
        while not stopping.wait(0.01):
            results: tuple[Result, ...] = (label_map(seq), detections(seq))
            for result in results:
                sink.write(result)
            seq += 1

    writer = threading.Thread(target=run)
    writer.start()
    try:
        yield sink.address
    finally:
        stopping.set()
        writer.join()
        sink.close()


def watching(address: str, options: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM.format(options=options), address]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)


def test_json_is_one_line_a_result() -> None:
    with daemon() as address:
        output, errors = watching(address, "as_json=True, duration_s=1.5").communicate(timeout=60)
    assert errors == ""
    lines = [json.loads(line) for line in output.splitlines()]
    maps = [line for line in lines if line["source"] == "dvs"]
    boxes = [line for line in lines if line["source"] == "wide"]
    assert len(maps) > 10
    for before, after in pairwise(maps):
        assert after["seq"] == before["seq"] + after["dropped_before"] + 1
    first = maps[0]
    assert first.pop("delivery_ms") >= 0
    seq = first["seq"]
    assert first == {
        "source": "dvs",
        "seq": seq,
        "start_us": seq * 1000,
        "end_us": (seq + 1) * 1000,
        "model": "sltnet-twin",
        "engine": "spiking",
        "latency_ms": 5.0,
        "dropped_before": 0,
        "shares": {"road": 0.75, "car": 0.25},
    }
    assert boxes[0]["detections"] == [{"class": "person", "score": 0.5, "box": [1, 2, 3, 4]}]


def test_lines_where_the_output_is_no_terminal() -> None:
    with daemon() as address:
        output, errors = watching(address, "duration_s=2.5").communicate(timeout=60)
    assert errors == ""
    lines = output.splitlines()
    assert len(lines) in (2, 4)  # two sources, once or twice
    assert lines[0].startswith("dvs by sltnet-twin (spiking): per second ")
    assert lines[0].endswith(": road 75%  car 25%")
    assert lines[1].startswith("wide by finder (onnxruntime): per second ")
    assert lines[1].endswith(": person 1")


def test_picture_in_a_terminal_until_ctrl_c() -> None:
    ours, theirs = pty.openpty()
    with daemon() as address:
        command = [sys.executable, "-c", PROGRAM.format(options=""), address]
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
        process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment
        )
        os.close(theirs)
        shown = read_until(ours, "person")
        process.send_signal(signal.SIGINT)
        shown += read_until(ours, None)
        assert process.wait(timeout=30) == 0
    os.close(ours)
    assert "▀" in shown
    assert "sltnet-twin" in shown
    assert "car 25%" in shown
    assert "Traceback" not in shown


def read_until(terminal: int, word: str | None) -> str:
    """What the terminal shows, until `word` came or (None) its program ended."""
    shown, deadline_s = b"", time.monotonic() + 30
    while word is None or word.encode() not in shown:
        assert time.monotonic() < deadline_s, shown.decode()
        if select.select([terminal], [], [], 1)[0]:
            try:
                shown += os.read(terminal, 1 << 16)
            except OSError:  # Linux says so when the other end is closed
                break
    return shown.decode(errors="replace")


def test_daemon_that_goes_away_is_waited_for() -> None:
    with daemon() as address:
        process = watching(address, "as_json=True")
        assert process.stdout is not None
        assert process.stderr is not None
        before = json.loads(process.stdout.readline())
    assert process.stderr.readline() == f"the daemon at {address} stopped; waiting for it\n"
    with daemon(address):
        assert process.stderr.readline() == f"connected to {address} again\n"
        while json.loads(process.stdout.readline())["seq"] > before["seq"]:
            pass  # what was on its way; the new daemon counts from 0
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_reader_that_has_seen_enough_ends_it_quietly() -> None:
    with daemon() as address:
        process = watching(address, "as_json=True")
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == ""
        process.stderr.close()


def test_no_daemon_at_all_is_an_error() -> None:
    with pytest.raises(DeviceError, match="no daemon at 127.0.0.1:9") as caught:
        watch("127.0.0.1:9")
    assert "edgeperc serve" in caught.value.hint
