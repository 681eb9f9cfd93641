"""Faults of processes, devices and files."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np

from edgeperc import places
from edgeperc.bench.victim import FaultError, Victim, descendants

Do = Callable[[Path], float | None]

RIG = """
[sensors.left]
driver = "twin"
[sensors.right]
driver = "twin"
seed = 7
"""
APP = """
rig = "rig.toml"
[[sinks]]
kind = "grpc"
listen = "127.0.0.1:0"
[supervise]
hang_s = 3.0
[[pipelines]]
name = "hurt"
input = "left"
model = "sltnet-twin"
threads = 1
[[pipelines]]
name = "other"
input = "right"
model = "mambaseg-nano"
threads = 1
"""
HURT, OTHER = "sltnet-twin", "mambaseg-nano"
SEARCH_RIG = """
[sensors.wide]
driver = "basler"
serial = "0815-0000"
width_px = 960
height_px = 448
rate_hz = 5.0
[sensors.search]
driver = "basler"
serial = "0815-0001"
width_px = 224
height_px = 224
trigger = "software"
[mirror]
driver = "optotune"
port = "{port}"
[field]
wide_deg = 60.0
search_deg = 2.81
"""
SEARCH_APP = """
rig = "rig.toml"
[[sinks]]
kind = "grpc"
listen = "127.0.0.1:0"
[[pipelines]]
name = "wide"
input = "wide"
model = "finder-twin"
threads = 1
[[pipelines]]
name = "gaze"
input = "search"
model = "finder-twin"
rate_hz = 60.0
threads = 1
[search]
gaze = "gaze"
hints = ["wide"]
"""
STOPPED_S = 3.5


@contextmanager
def two_pipelines(folder: Path, app: str = APP, rig: str = RIG) -> Iterator[Victim]:
    """A daemon with a pipeline that is hurt and another one, both at work."""
    with Victim(app, folder, files={"rig.toml": rig}) as victim:
        victim.wait_results(HURT)
        victim.wait_results(OTHER)
        yield victim


def killed(kind: str) -> Do:
    """Kill -9 the process of the hurt pipeline, or of its sensor."""

    def do(folder: Path) -> float:
        with two_pipelines(folder) as victim:
            pid = _of_hurt(victim, kind)
            before = victim.results(OTHER)
            count = len(victim.workers())
            os.kill(pid, signal.SIGKILL)
            seconds = _came_back(victim, pid, count)
            _went_on(victim, before)
            return seconds

    return do


def hung(folder: Path) -> float:
    """Stop the hurt pipeline's process."""
    with two_pipelines(folder) as victim:
        pid = _of_hurt(victim, "pipeline")
        before = victim.results(OTHER)
        count = len(victim.workers())
        os.kill(pid, signal.SIGSTOP)
        seconds = _came_back(victim, pid, count)
        _went_on(victim, before)
        return seconds


def search_killed(folder: Path) -> float:
    """Kill -9 the process that steers the mirror."""
    app = SEARCH_APP.replace('rig = "rig.toml"', 'rig = "twin-search"')
    with Victim(app, folder) as victim:
        victim.wait_results("bayes")
        os.kill(victim.worker("search 1"), signal.SIGKILL)
        victim.until(lambda: "search 1" not in victim.workers(), "buries it", 10)
        return victim.wait_results("bayes", 3)


def decoder_hung(folder: Path) -> float | None:
    """Stop the process that decodes a recording; nothing else may notice."""
    folder.mkdir(exist_ok=True)
    _write_text(folder / "events.txt")
    rig = RIG.replace(
        '[sensors.left]\ndriver = "twin"',
        '[sensors.left]\ndriver = "replay"\npath = "events.txt"\ndeadline_s = 2.0',
    )
    with two_pipelines(folder, rig=rig) as victim:
        before = victim.results(OTHER)
        os.kill(victim.worker("decoder 1"), signal.SIGSTOP)
        victim.wait_health("sensors/left", False, 60)
        _went_on(victim, before)
        if victim.healthy("sensors/right") is not True:
            raise FaultError("the other sensor is not well")
        return None


def mirror_unplugged(folder: Path) -> float:
    """End the program that plays the mirror, and start it again."""
    link = folder / "mirror"
    command = [sys.executable, "-m", "edgeperc", "simulate", "mirror", "--link", str(link)]
    with _program(command) as mirror:
        _wait_for(link)
        rig = SEARCH_RIG.format(port=link)
        environment = {"PYLON_CAMEMU": "2"}
        files = {"rig.toml": rig}
        with Victim(SEARCH_APP, folder, files=files, environment=environment) as victim:
            victim.wait_health("sensors/mirror", True)
            victim.wait_results("bayes")
            mirror.kill()
            mirror.wait()
            victim.wait_health("sensors/mirror", False)
            if not victim.healthy("sensors/wide"):
                raise FaultError("the wide camera is not well without the mirror")
            with _program(command):
                seconds = victim.wait_health("sensors/mirror", True)
                victim.wait_results("bayes", 3)
                return seconds


def camera_unplugged(folder: Path) -> float:
    """End the network camera, and start it again."""
    rig = RIG.replace(
        '[sensors.left]\ndriver = "twin"',
        '[sensors.left]\ndriver = "video"\nsource = "http://127.0.0.1:{}/"\ndeadline_s = 3.0',
    )
    app = APP.replace('model = "sltnet-twin"', 'model = "promptable"')
    with _Camera() as camera:
        files = {"rig.toml": rig.format(camera.port)}
        with Victim(app, folder, files=files) as victim:
            victim.wait_results("promptable", 3)
            before = victim.results(OTHER)
            camera.close()
            victim.wait_health("sensors/left", False)
            _went_on(victim, before)
            with _Camera(camera.port):
                seconds = victim.wait_results("promptable", 3)
                victim.wait_health("sensors/left", True)
                return seconds


def clock_stepped(folder: Path) -> float | None:
    """A sensor's clock jumps an hour ahead and back again, as it does where someone sets it."""
    folder.mkdir(exist_ok=True)
    _write_text(folder / "events.txt", steps=(0, 3_600_000_000, 1_000_000))
    rig = RIG.replace(
        '[sensors.left]\ndriver = "twin"', '[sensors.left]\ndriver = "replay"\npath = "events.txt"'
    )
    with two_pipelines(folder, rig=rig) as victim:
        before = victim.results(OTHER)
        victim.until(lambda: "decoder 1" not in victim.workers(), "reads it to its end", 60)
        _went_on(victim, before)
        return None


def model_corrupted(folder: Path) -> float:
    """Flip a bit of a network's file, kill its process, then put the file back."""
    where = places.find_model("sltnet-twin").folder
    model = folder / "model"
    shutil.copytree(where, model)
    network = max(model.glob("*.onnx"), key=lambda path: path.stat().st_size)
    app = APP.replace('model = "sltnet-twin"', f'model = "{model}"')
    with two_pipelines(folder, app) as victim:
        whole = network.read_bytes()
        broken = bytearray(whole)
        broken[len(broken) // 2] ^= 1
        network.write_bytes(broken)
        before = victim.results(OTHER)
        os.kill(_of_hurt(victim, "pipeline"), signal.SIGKILL)
        victim.wait_health("pipelines/hurt", False)
        victim.until(lambda: "sha256" in victim.said(), "says what is wrong with the file", 30)
        _went_on(victim, before)
        network.write_bytes(whole)
        return victim.wait_health("pipelines/hurt", True, 90)


def model_corrupted_before(folder: Path) -> float | None:
    """Start a daemon whose network's file has a flipped bit."""
    where = places.find_model("sltnet-twin").folder
    model = folder / "model"
    shutil.copytree(where, model)
    network = max(model.glob("*.onnx"), key=lambda path: path.stat().st_size)
    broken = bytearray(network.read_bytes())
    broken[len(broken) // 2] ^= 1
    network.write_bytes(broken)
    (folder / "rig.toml").write_text(RIG)
    (folder / "app.toml").write_text(APP.replace('model = "sltnet-twin"', f'model = "{model}"'))
    done = subprocess.run(
        [sys.executable, "-m", "edgeperc", "serve", str(folder / "app.toml")],
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )
    if done.returncode != 1 or "sha256" not in done.stderr:
        raise FaultError(f"exit code {done.returncode}: {done.stderr[-300:]}")
    return None


def app_broken(folder: Path) -> float | None:
    """Spoil the app's file and ask the daemon to read it again."""
    with two_pipelines(folder) as victim:
        workers = victim.workers()
        victim.app.write_text(APP.replace("[[pipelines]]", "[[pipelines"))
        os.kill(victim.process.pid, signal.SIGHUP)
        victim.until(lambda: "app.toml" in victim.said().split("stop: Ctrl-C")[-1], "says so", 30)
        victim.wait_results(HURT, 3)
        if victim.workers() != workers:
            raise FaultError("processes were started anew for a file that was refused")
        return None


def terminated(folder: Path) -> float:
    """SIGTERM while everything works and clients read."""
    with two_pipelines(folder) as victim:
        workers = descendants(victim.process.pid)
        started_s = time.monotonic()
        victim.process.terminate()
        try:
            code = victim.process.wait(STOPPED_S)
        except subprocess.TimeoutExpired:
            raise FaultError(f"it was still there after {STOPPED_S:g} s") from None
        seconds = time.monotonic() - started_s
        left = [pid for pid in workers if Path(f"/proc/{pid}").exists() and not _is_zombie(pid)]
        if code != 0 or left:
            raise FaultError(f"exit code {code}, {len(left)} processes left")
        return seconds


def front_killed(folder: Path) -> float:
    """Kill -9 the daemon itself: its processes may not outlive it for long."""
    with two_pipelines(folder) as victim:
        workers = descendants(victim.process.pid)
        victim.process.kill()
        victim.process.wait()
        started_s = time.monotonic()
        while any(Path(f"/proc/{pid}").exists() and not _is_zombie(pid) for pid in workers):
            if time.monotonic() - started_s > 10:
                raise FaultError("its processes outlived it by 10 s")
            time.sleep(0.05)
        return time.monotonic() - started_s


FAULTS: tuple[tuple[str, str, Do], ...] = (
    ("kill -9 a pipeline", "started anew alone", killed("pipeline")),
    ("kill -9 a sensor", "started anew alone", killed("sensor")),
    ("kill -9 the search", "started anew", search_killed),
    ("kill -9 the daemon", "no process outlives it", front_killed),
    ("hang of a pipeline", "killed and started anew alone", hung),
    ("hang of a decoder", "its sensor is given up, others go on", decoder_hung),
    ("mirror unplugged", "not well, then well again", mirror_unplugged),
    ("camera unplugged", "not well, then well again", camera_unplugged),
    ("clock step of a sensor", "counted, others go on", clock_stepped),
    ("corrupt model at start", "refused by its hash, exit 1", model_corrupted_before),
    ("corrupt model at a restart", "said, others go on, back with the file", model_corrupted),
    ("broken app at a reload", "said, nothing changes", app_broken),
    ("SIGTERM under load", f"exit 0 in {STOPPED_S:g} s, no process left", terminated),
)


def _of_hurt(victim: Victim, kind: str) -> int:
    """Process id of the hurt pipeline or its sensor: they are started first."""
    return victim.worker(f"{kind} 1")


def _came_back(victim: Victim, dead: int, count: int) -> float:
    """Wait until a process is gone, there are `count` again, and the hurt pipeline gives results.

    Seconds since it was hurt. Results alone would not do: some were on their way before.
    """
    started_s = time.monotonic()
    victim.until(lambda: dead not in descendants(victim.process.pid), "buries it", 60)
    victim.until(lambda: len(victim.workers()) >= count, "starts another", 60)
    victim.until(lambda: victim.healthy("pipelines/hurt") is True, "gives results again", 60)
    victim.wait_results(HURT, 3)
    return time.monotonic() - started_s


def _went_on(victim: Victim, before: int) -> None:
    if victim.results(OTHER) == before:
        victim.wait_results(OTHER, 1, 10)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _write_text(path: Path, steps: tuple[int, ...] = (0,)) -> None:
    """Events of a minute in all, as text. steps: what the clock of each part is ahead by, in µs."""
    rng = np.random.default_rng(0)
    lines = ["346 260"]
    each_us = 60_000_000 // len(steps)
    for number, step_us in enumerate(steps):
        times = np.arange(0, each_us, 200) + number * each_us + step_us
        x, y = rng.integers(0, 346, times.size), rng.integers(0, 260, times.size)
        rows = zip(times.tolist(), x.tolist(), y.tolist(), strict=True)
        lines += [f"{t} {column} {row} 1" for t, column, row in rows]
    path.write_text("\n".join(lines) + "\n")


@contextmanager
def _program(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    nothing = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=nothing, stderr=nothing, stdin=nothing) as program:
        try:
            yield program
        finally:
            program.kill()


def _wait_for(path: Path) -> None:
    deadline_s = time.monotonic() + 30
    while not path.exists():
        if time.monotonic() > deadline_s:
            raise FaultError(f"{path} never came")
        time.sleep(0.05)


class _Camera:
    """A network camera: MJPEG over HTTP, for anyone who asks. port: 0 takes a free one."""

    def __init__(self, port: int = 0) -> None:
        self._server = socket.create_server(("127.0.0.1", port))
        self.port = self._server.getsockname()[1]
        self._clients: list[socket.socket] = []
        self._over = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Unplug it; may be called twice."""
        self._over.set()
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        for client in (self._server, *self._clients):
            client.close()

    def __enter__(self) -> _Camera:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self._clients.append(client)
            threading.Thread(target=self._send, args=(client,), daemon=True).start()

    def _send(self, client: socket.socket) -> None:
        rng = np.random.default_rng(0)
        picture = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (320, 240))
        with suppress(OSError):
            client.recv(4096)
            kind = b"multipart/x-mixed-replace; boundary=frame"
            client.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: " + kind + b"\r\n\r\n")
            while not self._over.wait(0.1):
                picture = np.roll(picture, 3, axis=1)
                body = cv2.imencode(".jpg", picture)[1].tobytes()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
                client.sendall(head.encode() + body + b"\r\n")
