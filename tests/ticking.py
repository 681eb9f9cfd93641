"""Two sensors that tick, each with a pipeline of its own, for tests of the daemon's processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeperc.packet import Packet
from edgeperc.result import Result

SENSOR = '''
"""Frames and events at 50 Hz, and trouble where a file says so."""
import os, time
from pathlib import Path
import numpy as np
from edgeperc import DeviceError, Events, Frame, Stamp

class Ticker:
    def __init__(self, *, name: str, trouble: str = "", count: int = 1_000_000) -> None:
        self.name, self.trouble, self.count = name, Path(trouble), count
        self.closed = False

    def packets(self):
        began_ns = time.monotonic_ns()
        for seq in range(self.count):
            time.sleep(0.02)
            if self.closed:
                return
            if self.trouble.is_file():
                if (what := self.trouble.read_text()) == "lost":
                    raise DeviceError("unplugged")
                if what == "exit":
                    os._exit(7)
            end_us = time.monotonic_ns() // 1000
            t = np.arange(end_us - 20_000, end_us, 10, dtype=np.int64)
            span = {"start_ns": int(t[0]) * 1000, "end_ns": end_us * 1000}
            stamp = Stamp(source=self.name, seq=seq, **span)
            x = (t % 346).astype(np.uint16)
            y = (t % 260).astype(np.uint16)
            yield Events(stamp=stamp, t=t, x=x, y=y, p=t % 2 == 0, width_px=346, height_px=260)
            yield Frame(stamp=stamp, image=np.full((260, 346), seq % 256, np.uint8))

    def close(self):
        self.closed = True
'''
PIPELINE = '[[pipelines]]\nname = "{name}"\ninput = "{input}"\nmodel = "sltnet-twin"\nthreads = 1\n'


class Kept:
    """A sink that counts what it gets, by source."""

    where = ""

    def __init__(self) -> None:
        self.results: dict[str, int] = {}
        self.well: dict[str, bool] = {}
        self.closed = 0

    def write(self, result: Result) -> None:
        self.results[result.stamp.source] = self.results.get(result.stamp.source, 0) + 1

    def report(self, well: dict[str, bool]) -> None:
        self.well = dict(well)

    def close(self) -> None:
        self.closed += 1


class Seeing(Kept):
    """One that also wants packets."""

    def __init__(self) -> None:
        super().__init__()
        self.packets: list[Packet] = []

    def take(self, packet: Packet) -> None:
        self.packets.append(packet)


def eventually(condition: Callable[[], Any], timeout_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def exists(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def write_app(
    folder: Path,
    *,
    more: str = "",
    hang_s: float = 120,
    supervise: str = "",
    left: str = "",
    right: str = "",
) -> Path:
    """Two sensors, each with a pipeline of its own."""
    (folder / "ticker.py").write_text(SENSOR)
    (folder / "rig.toml").write_text(
        f'[sensors.left]\ndriver = "./ticker.py:Ticker"\ntrouble = "{folder}/left"\n{left}\n'
        f'[sensors.right]\ndriver = "./ticker.py:Ticker"\ntrouble = "{folder}/right"\n{right}\n'
    )
    path = folder / "app.toml"
    path.write_text(
        'rig = "rig.toml"\n'
        + PIPELINE.format(name="a", input="left")
        + PIPELINE.format(name="b", input="right")
        + more
        + f"\n[supervise]\nhang_s = {hang_s}\n{supervise}\n"
    )
    return path
