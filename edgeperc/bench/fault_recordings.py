"""Faults of recordings: a full disk, a daemon that is killed while it records."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeperc.bench.fault_parts import APP, HURT, two_pipelines
from edgeperc.bench.victim import FaultError, ImpossibleError
from edgeperc.errors import EdgepercError

Do = Callable[[Path], float | None]

RECORD = """
[[sinks]]
kind = "record"
folder = "{}"
name = "drive"
"""
DISK_MB = 8
KILLS = 5
corrupt: list[str] = []
"""Recordings of this process's faults that could not be read."""


def disk_full(folder: Path) -> None:
    """Record onto a disk of a few megabytes."""
    with _small_disk(folder / "disk") as disk:
        with two_pipelines(folder, APP + RECORD.format(disk)) as victim:
            victim.until(lambda: "disk is full" in victim.said(), "says that the disk is full", 90)
            victim.wait_results(HURT, 5)
            if victim.healthy() is not True:
                raise FaultError("the daemon is not well")
        _read(disk / "drive.mcap")


def killed_while_recording(folder: Path) -> None:
    """Kill -9 the daemon while it records, several times."""
    for number in range(KILLS):
        inside = folder / str(number)
        with two_pipelines(inside, APP + RECORD.format(inside)) as victim:
            victim.wait_results(HURT, 5)
            time.sleep(2 * random.random())
            victim.process.kill()
            victim.process.wait()
            killed_ns = time.time_ns()
        last_ns = _read(inside / "drive.mcap")
        lost_s = (killed_ns - last_ns) * 1e-9
        if lost_s > 2.5:  # the last second, and what was on its way
            raise FaultError(f"the last {lost_s:.1f} s are missing")


def terminated_while_recording(folder: Path) -> None:
    """SIGTERM while it records: the file is whole."""
    with two_pipelines(folder, APP + RECORD.format(folder)) as victim:
        victim.wait_results(HURT, 5)
        victim.process.terminate()
        if victim.process.wait(10) != 0:
            raise FaultError(f"exit code {victim.process.returncode}")
    data = (folder / "drive.mcap").read_bytes()
    if not data.endswith(b"\x89MCAP0\r\n"):
        raise FaultError("the file has no end")
    _read(folder / "drive.mcap")


FAULTS: tuple[tuple[str, str, Do], ...] = (
    ("disk full", "the recording ends with an error, the daemon goes on", disk_full),
    ("kill -9 while recording", "all but the last second can be read", killed_while_recording),
    ("SIGTERM while recording", "the file is whole", terminated_while_recording),
)


def _read(path: Path) -> int:
    """When the last message of a recording was written, Unix ns. Raises FaultError for none."""
    from edgeperc.recording.reader import messages

    last_ns, count = 0, 0
    try:
        for entry in messages(path, lambda topic, type_: True):
            last_ns, count = max(last_ns, entry.time_ns), count + 1
    except EdgepercError as error:
        if not count:
            corrupt.append(str(path))
            raise FaultError(f"{path.name}: {error}") from error
    if not count:
        corrupt.append(str(path))
        raise FaultError(f"{path.name}: nothing in it")
    return last_ns


@contextmanager
def _small_disk(at: Path) -> Iterator[Path]:
    """A file system of DISK_MB in memory. Raises ImpossibleError where one may not mount."""
    if os.geteuid() != 0:
        raise ImpossibleError("mounting a small disk needs root")
    at.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs"]
    done = subprocess.run(["mount", *options, str(at)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ImpossibleError(done.stderr.strip())
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=False)
