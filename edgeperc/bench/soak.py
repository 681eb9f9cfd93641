"""A daemon left alone for half an hour: whether it grows, and whether it always answers.

Three pipelines of the twin at a few results a second, a client that reads them all, a health check
every second. Growth is of the memory that all its processes hold for themselves: the median of the
last fifth of the time over that of the second fifth.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from edgeperc.bench.fault_parts import RIG
from edgeperc.bench.figures import Figures
from edgeperc.bench.victim import Victim, descendants
from edgeperc.supervise.memory import own_memory

DEFAULT_MINUTES = 30.0
BEAT_S = 1.0
PIPELINE = """
[[pipelines]]
name = "{0}"
input = "{1}"
model = "{0}"
rate_hz = {2}
threads = 1
"""
MODELS = {"sltnet-twin": "left", "mambaseg-nano": "right", "promptable": "right"}
OBJECT = "[[pipelines.prompt.objects]]\nbox = [220.0, 128.0, 268.0, 158.0]\n"


@dataclass
class Soaked:
    """What was seen. rss_bytes: of all processes together, once a beat. results: by model."""

    rss_bytes: list[int] = field(default_factory=list)
    missed: int = 0
    results: dict[str, int] = field(default_factory=dict)

    def growth(self) -> float:
        """Of 1: last fifth over second fifth, less one."""
        fifth = max(1, len(self.rss_bytes) // 5)
        return median(self.rss_bytes[-fifth:]) / median(self.rss_bytes[fifth : 2 * fifth]) - 1


def measure(figures: Figures, _recording: object = None, seconds: float | None = None) -> None:
    """Add soak_growth, soak_missed_beats; seconds: how long, half an hour if None."""
    whole_s = 60 * DEFAULT_MINUTES if seconds is None else seconds
    with tempfile.TemporaryDirectory(prefix="edgeperc-soak-") as folder:
        soaked = soak(Path(folder), whole_s, figures)
    what = f"{whole_s / 60:g} minutes of three pipelines"
    figures.add("soak_growth", soaked.growth(), f"{what}: share by which memory grew", aim=0.01)
    figures.add("soak_missed_beats", soaked.missed, f"{what}: health checks without a good answer")
    figures.detail("soak_rss_mib", soaked.rss_bytes[-1] / 2**20)
    rows = [{"pipeline": name, "results": f"{n:,}"} for name, n in soaked.results.items()]
    figures.tables.append(("Soak", rows))


def soak(folder: Path, seconds: float, figures: Figures, *, rate_hz: float = 4.0) -> Soaked:
    """Leave a daemon alone for so long and look at it."""
    soaked = Soaked()
    app = 'rig = "rig.toml"\n[[sinks]]\nkind = "grpc"\nlisten = "127.0.0.1:0"\n'
    for model, sensor in MODELS.items():
        app += PIPELINE.format(model, sensor, rate_hz)
        app += OBJECT if model == "promptable" else ""
    with Victim(app, folder, files={"rig.toml": RIG}) as victim:
        for model in MODELS:
            victim.wait_results(model, 2)
        started_s, beats = time.monotonic(), 0
        while (spent_s := time.monotonic() - started_s) < seconds:
            figures.progress(f"{spent_s / 60:.0f} of {seconds / 60:g} minutes")
            soaked.missed += victim.healthy() is not True
            soaked.rss_bytes.append(memory_of({victim.process.pid}))
            beats += 1
            time.sleep(max(0.0, started_s + BEAT_S * beats - time.monotonic()))
        soaked.results = {model: victim.results(model) for model in MODELS}
    return soaked


def memory_of(pids: Sequence[int] | set[int]) -> int:
    """Bytes that processes and their descendants hold for themselves."""
    everyone = set(pids).union(*(descendants(pid) for pid in pids))
    return sum(own_memory(pid) for pid in everyone)
