"""serve, check and replay as a user meets them: commands, most in processes of their own."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeperc import cli
from edgeperc.client import connect
from edgeperc.clock import ReplayClock
from edgeperc.drivers.twin import Twin
from edgeperc.errors import EdgepercError
from edgeperc.packet import Events

DAVIS = Path(__file__).parents[2] / "shared/data/events/davis346.aedat4"
EDGEPERC = [sys.executable, "-m", "edgeperc"]
Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a second of the twin as `t x y p` text: ten full windows and a rest."""
    path = tmp_path_factory.mktemp("recording") / "street.txt"
    twin = Twin(name="dvs", clock=ReplayClock(None), seed=7, duration_s=0.53)
    packets = [packet for packet in twin.packets() if isinstance(packet, Events)]
    columns = [np.concatenate([getattr(p, name) for p in packets]) for name in "txyp"]
    np.savetxt(path, np.stack(columns, axis=1), fmt="%d")
    return path


def edgeperc(*args: object, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*EDGEPERC, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def in_here(*args: object) -> subprocess.CompletedProcess[str]:
    """The same in this process, which has imported everything."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["edgeperc", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return subprocess.CompletedProcess(
        args, int(ended.value.code or 0), out.getvalue(), err.getvalue()
    )


def replay(
    recording: Path, out: Path, *args: object, call: Call = in_here
) -> subprocess.CompletedProcess[str]:
    size = ("--width-px", 346, "--height-px", 260) if recording.suffix == ".txt" else ()
    return call("replay", recording, "--model", "sltnet-twin", "--out", out, *size, *args)


def wait_until_well(port: int) -> None:
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        with contextlib.suppress(EdgepercError), connect(f"127.0.0.1:{port}") as client:
            if client.is_healthy():
                return
        time.sleep(0.1)
    pytest.fail(f"nobody serves on port {port}")


def digest(out: Path) -> str:
    """One hash over the names and bytes of all label maps."""
    total = hashlib.sha256()
    for path in sorted((out / "labels").iterdir()):
        total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()


@pytest.fixture(scope="module")
def replayed(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was written of the recording, as fast as it can."""
    out = tmp_path_factory.mktemp("replayed") / "out"
    done = replay(recording, out, "--speed", "max", call=edgeperc)
    assert done.returncode == 0, done.stderr
    return out


def test_replay_writes_full_windows_and_says_so(replayed: Path) -> None:
    lines = [json.loads(line) for line in (replayed / "results.jsonl").open()]
    assert [line["seq"] for line in lines] == list(range(10))
    first_us = lines[0]["start_us"]
    assert [line["start_us"] for line in lines] == [first_us + 50_000 * k for k in range(10)]
    for line in lines:
        assert line["file"] == f"labels/{line['end_us']}.png"
        labels = cv2.imread(str(replayed / line["file"]), cv2.IMREAD_UNCHANGED)
        assert labels.shape == (260, 346)
        assert set(np.unique(labels)) <= {0, 1, 2, 3, 4, 5, 255}
    summary = json.loads((replayed / "summary.json").read_text())
    assert summary["complete"]
    assert summary["pipelines"][0]["meter"]["results"] == 10
    assert summary["pipelines"][0]["meter"]["dropped"] == 0
    assert summary["pipelines"][0]["model"]["sha256"]


@pytest.mark.parametrize("speed", ["max", "0.7", pytest.param("1.0", marks=pytest.mark.slow)])
def test_the_same_labels_every_time_and_at_every_speed(
    recording: Path, replayed: Path, tmp_path: Path, speed: str
) -> None:
    done = replay(recording, tmp_path / "out", "--speed", speed)
    assert done.returncode == 0, done.stderr
    assert digest(tmp_path / "out") == digest(replayed)


def test_start_and_duration_play_a_part(recording: Path, tmp_path: Path) -> None:
    done = replay(
        recording, tmp_path / "out", "--speed", "max", "--start-s", 0.1, "--duration-s", 0.2
    )
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "out/results.jsonl").read_text().splitlines()
    assert 3 <= len(lines) <= 4


def test_a_broken_recording_keeps_its_prefix_and_is_one_line(
    recording: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.txt"
    rows = recording.read_text().splitlines()
    half = len(rows) // 2
    broken.write_text("\n".join([*rows[:half], "not an event", *rows[half:]]))
    done = replay(broken, tmp_path / "out", "--speed", "max")
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "broken.txt" in errors[0]
    assert "Traceback" not in done.stderr
    assert 4 <= len(list((tmp_path / "out/labels").iterdir())) <= 6
    assert not json.loads((tmp_path / "out/summary.json").read_text())["complete"]


def test_a_second_run_does_not_overwrite_the_first(recording: Path, replayed: Path) -> None:
    before = digest(replayed)
    again = replay(recording, replayed, "--speed", "max")
    assert again.returncode == 2
    assert digest(replayed) == before
    assert "not an empty folder" in again.stderr


def test_a_recording_without_one_full_window_is_not_a_success(
    recording: Path, tmp_path: Path
) -> None:
    short = tmp_path / "short.txt"
    short.write_text("\n".join(recording.read_text().splitlines()[:100]))
    done = replay(short, tmp_path / "out", "--speed", "max")
    assert done.returncode == 1
    assert "not one full window in 100 events" in done.stderr
    assert not json.loads((tmp_path / "out/summary.json").read_text())["complete"]


def test_an_interrupted_replay_says_so(recording: Path, tmp_path: Path) -> None:
    size = ("--width-px", "346", "--height-px", "260")
    command = [*EDGEPERC, "replay", str(recording), "--model", "sltnet-twin", "--speed", "0.01"]
    with subprocess.Popen(
        [*command, "--out", str(tmp_path / "out"), *size],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not (tmp_path / "out" / "results.jsonl").exists():
            time.sleep(0.1)
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "stopped before its end" in err
    assert not json.loads((tmp_path / "out/summary.json").read_text())["complete"]


def test_a_folder_that_cannot_be_made_is_the_users_mistake(recording: Path) -> None:
    done = replay(recording, Path("/proc/nowhere/out"), "--speed", "max")
    assert done.returncode == 2
    assert "/proc/nowhere/out: cannot be written" in done.stderr


def test_a_real_pause_can_be_allowed(recording: Path, tmp_path: Path) -> None:
    paused = tmp_path / "paused.txt"
    rows = recording.read_text().splitlines()
    later = [f"{int(t) + 11_000_000} {rest}" for t, rest in (row.split(" ", 1) for row in rows)]
    paused.write_text("\n".join([*rows[-2000:], *later[:2000]]))
    assert replay(paused, tmp_path / "a", "--speed", "max").returncode == 1
    done = replay(paused, tmp_path / "b", "--speed", "max", "--max-gap-s", 30)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "b/labels").iterdir())) > 200


def test_check_runs_everything_and_says_what_is_wrong(tmp_path: Path) -> None:
    app = tmp_path / "app.toml"
    app.write_text('rig = "rig.toml"\n[[pipelines]]\nname="a"\ninput="dvs"\nmodel="sltnet-twin"\n')
    (tmp_path / "rig.toml").write_text('[sensors.dvs]\ndriver = "twin"\n')
    good = edgeperc("check", app, "--json")
    assert good.returncode == 0, good.stderr
    report = json.loads(good.stdout)
    assert report["trouble"] == []
    assert report["pipelines"][0]["meter"]["results"] > 0

    (tmp_path / "rig.toml").write_text('[sensors.dvs]\ndriver = "video"\nsource = "/dev/video99"\n')
    bad = in_here("check", app)
    assert bad.returncode == 1
    assert "/dev/video99" in bad.stderr


def first_seen(address: str, count: int) -> list[dict[str, object]]:
    """So many results of a daemon, as `watch` writes them."""
    with subprocess.Popen(
        [*EDGEPERC, "watch", address, "--json"], stdout=subprocess.PIPE, text=True
    ) as watch:
        late = threading.Timer(120, watch.kill)
        late.start()
        assert watch.stdout is not None
        lines = list(islice((line for line in watch.stdout if line.startswith("{")), count))
        late.cancel()
        watch.kill()
    assert len(lines) == count
    return [json.loads(line) for line in lines]


def test_a_daemon_streams_to_another_process_and_ends_at_ctrl_c(tmp_path: Path) -> None:
    with socket.socket() as probe:  # a port that is free now
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    app = tmp_path / "app.toml"
    app.write_text(
        'rig = "twin"\n[[pipelines]]\nname="a"\ninput="dvs"\nmodel="sltnet-twin"\n'
        f'[[sinks]]\nkind="grpc"\nlisten="127.0.0.1:{port}"\n'
    )
    with subprocess.Popen(
        [*EDGEPERC, "serve", str(app)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as daemon:
        try:
            wait_until_well(port)
            results = first_seen(f"127.0.0.1:{port}", 21)
            daemon.send_signal(signal.SIGINT)
            started_s = time.monotonic()
            out, err = daemon.communicate(timeout=20)
            ended_s = time.monotonic() - started_s
        finally:
            daemon.kill()
    assert {result["source"] for result in results} == {"dvs"}
    assert daemon.returncode == 0, err
    assert ended_s < 10  # one to two seconds on a machine at rest
    assert "total" in out  # the summary table


@pytest.mark.skipif(not DAVIS.exists(), reason="../shared/data is not there")
def test_the_real_davis_recording_gives_47_windows(tmp_path: Path) -> None:
    done = replay(DAVIS, tmp_path / "out", "--speed", "max", call=edgeperc)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out/labels").iterdir())) == 47
