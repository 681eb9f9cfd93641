"""What a service manager hears, through a real datagram socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeperc.notify import Notify

from .ticking import write_app


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """An address as NOTIFY_SOCKET has it, and the socket behind it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        if request.param == "path":
            address = str(tmp_path / "notify")
            listening.bind(address)
        else:
            address = f"@edgeperc-test-{os.getpid()}-{time.monotonic_ns()}"
            listening.bind("\0" + address[1:])
        listening.settimeout(60)
        yield address, listening


def heard(listening: socket.socket) -> dict[str, str]:
    lines = listening.recv(4096).decode().splitlines()
    return dict(line.split("=", 1) for line in lines)


def until(listening: socket.socket, wanted: Callable[[dict[str, str]], bool]) -> dict[str, str]:
    deadline_s = time.monotonic() + 120
    while not wanted(said := heard(listening)):
        assert time.monotonic() < deadline_s, said
    return said


def test_each_state_is_said_as_it_is_written_down(manager: tuple[str, socket.socket]) -> None:
    address, listening = manager
    notify = Notify({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000"})
    assert notify.watchdog_s == 30
    notify.ready("two\nlines")
    assert heard(listening) == {"READY": "1", "STATUS": "two lines"}
    notify.alive()
    notify.alive()  # too soon
    notify.status("two\nlines")  # said already
    notify.status("degraded")
    assert heard(listening) == {"WATCHDOG": "1"}
    assert heard(listening) == {"STATUS": "degraded"}
    before_us = time.monotonic_ns() // 1000
    notify.reloading()
    said = heard(listening)
    assert said["RELOADING"] == "1"
    assert before_us <= int(said["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    notify.stopping()
    assert heard(listening) == {"STOPPING": "1"}


@pytest.mark.parametrize(
    "environ",
    [{}, {"NOTIFY_SOCKET": "/nowhere/at/all"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "5"}],
)
def test_where_nobody_listens_nothing_happens(environ: dict[str, str]) -> None:
    notify = Notify(environ)
    notify.ready("x")
    notify.alive()
    notify.stopping()


def test_the_watchdog_of_another_process_is_not_fed() -> None:
    environ = {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid() + 1)}
    assert Notify(environ).watchdog_s == 0
    assert Notify({**environ, "WATCHDOG_PID": str(os.getpid())}).watchdog_s == 30


@pytest.mark.parametrize("manager", ["path"], indirect=True)
def test_a_daemon_tells_all_of_it_and_reloads_at_sighup(
    manager: tuple[str, socket.socket], tmp_path: Path
) -> None:
    address, listening = manager
    path = write_app(tmp_path)
    environ = {**os.environ, "NOTIFY_SOCKET": address, "WATCHDOG_USEC": "600000"}
    with subprocess.Popen(
        [sys.executable, "-m", "edgeperc", "serve", str(path), "--log", "text"],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as daemon:
        try:
            until(listening, lambda said: said.get("READY") == "1")
            until(listening, lambda said: said.get("WATCHDOG") == "1")
            until(listening, lambda said: said.get("STATUS") == "serving")
            path.write_text(path.read_text().replace('name = "b"', 'name = "c"'))
            daemon.send_signal(signal.SIGHUP)
            until(listening, lambda said: said.get("RELOADING") == "1")
            until(listening, lambda said: said.get("READY") == "1")
            path.write_text("rig = ")
            daemon.send_signal(signal.SIGHUP)
            until(listening, lambda said: said.get("STATUS", "").startswith("degraded"))
            daemon.send_signal(signal.SIGTERM)
            until(listening, lambda said: said.get("STOPPING") == "1")
            _, err = daemon.communicate(timeout=30)
        finally:
            daemon.kill()
    assert daemon.returncode == 0, err
    assert 'msg="the app was changed; started anew: pipelines/c"' in err
    assert "level=error worker=front" in err
