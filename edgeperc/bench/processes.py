"""What a daemon's processes cost: memory of each, the way to the first result, objects in a ring.

Memory is the proportional set size (PSS) of /proc/PID/smaps_rollup: what a process has for itself,
and its share of what it has in common with others, so that it may be added up.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edgeperc import places
from edgeperc.bench.figures import Figures
from edgeperc.bench.victim import Victim, descendants
from edgeperc.packet import Events, Frame, Stamp
from edgeperc.result import LabelMap, ModelRef
from edgeperc.supervise.feed import Feed, Inlet
from edgeperc.supervise.link import Link, pair

APPS = ("events", "prompt", "search")
SETTLE_S = 8.0
TIMES = 200
_TICKS = os.sysconf("SC_CLK_TCK")


def measure(figures: Figures, _recording: object = None, only: tuple[str, ...] = ()) -> None:
    """Add a table of rings and, of each app, tables and `APP_pss_mib`, `APP_first_result_s`.

    only: names of apps, or "rings"; all if empty.
    """
    if not only or "rings" in only:
        figures.progress("rings")
        figures.tables.append(("One object through a ring, CPU time", ring_rows()))
    for app in [each for each in APPS if not only or each in only]:
        _measure_app(figures, app)


def ring_rows(times: int = TIMES) -> list[dict[str, str]]:
    """CPU time to put objects into a ring and to read them, median, both ends in this process."""
    rows = []
    for name, thing in _things().items():
        feed, (ours, theirs) = Feed(), pair()
        feed.add(ours)
        inlet = Inlet(Link(theirs))
        put_s, read_s = [], []
        put = partial(feed.put, thing)
        for _ in range(times):
            put_s.append(_cpu_s(put))
            read_s.append(_cpu_s(inlet.receive))
        feed.close()
        inlet.link.close()
        about = {"put ms": f"{median(put_s) * 1e3:.3f}", "read ms": f"{median(read_s) * 1e3:.3f}"}
        rows.append({"object": name, **about})
    return rows


def _measure_app(figures: Figures, app: str) -> None:
    found = {}
    for inproc in (False, True):
        figures.progress(f"{app}{', one process' if inproc else ''}")
        with tempfile.TemporaryDirectory(prefix="edgeperc-processes-") as folder:
            found[inproc] = run_app(Path(folder), app, inproc=inproc)
    rows = [
        {"process": name, "PSS MiB": f"{mib:.0f}"}
        for name, mib in (*found[False]["parts"].items(), ("all of them", found[False]["pss_mib"]))
    ]
    rows.append({"process": "with --inproc, all", "PSS MiB": f"{found[True]['pss_mib']:.0f}"})
    figures.tables.append((app, rows))
    figures.add(f"{app}_pss_mib", found[False]["pss_mib"], f"{app}: memory of all its processes")
    for key, what in (
        ("first_result_s", "from the command to the first result at a client"),
        ("first_result_cpu_s", "CPU time of all its processes until then"),
    ):
        figures.add(f"{app}_{key}", found[False][key], f"{app}: {what}")
    for key in ("pss_mib", "first_result_s", "first_result_cpu_s"):
        figures.detail(f"{app}_{key}_inproc", found[True][key])


def run_app(folder: Path, app: str, *, inproc: bool = False, settle_s: float = SETTLE_S) -> Any:
    """Serve an app until its first result, and for a while more; what that took."""
    text = places.find_app(app)[1].read_text()
    text = re.sub(r'^listen = ".*?"', 'listen = "127.0.0.1:0"', text, flags=re.MULTILINE)
    began_s = time.monotonic()
    with Victim(text, folder, options=("--inproc",) if inproc else ()) as victim:
        victim.until(lambda: victim.all_results() > 0, "gives a result", 120)
        first_s = time.monotonic() - began_s
        pid = victim.process.pid
        cpu_s = sum(cpu_of(each) for each in {pid} | descendants(pid))
        time.sleep(settle_s)
        names = {found: name for name, found in victim.workers().items()} | {pid: "front"}
        parts = {
            names.get(each, f"process {each}"): pss_mib(each)
            for each in sorted({pid} | descendants(pid))
        }
    return {
        "parts": parts,
        "pss_mib": sum(parts.values()),
        "first_result_s": first_s,
        "first_result_cpu_s": cpu_s,
    }


def pss_mib(pid: int) -> float:
    """Memory of a process, with its share of what it has in common with others; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def cpu_of(pid: int) -> float:
    """CPU seconds that a process has used; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _cpu_s(do: Callable[[], object]) -> float:
    began_s = time.process_time()
    do()
    return time.process_time() - began_s


def _things() -> dict[str, Any]:
    random = np.random.default_rng(0)
    stamp = Stamp(source="a", seq=0, start_ns=0, end_ns=1)

    def frame(height: int, width: int) -> Frame:
        return Frame(stamp=stamp, image=random.integers(0, 256, (height, width, 3), np.uint8))

    def events(count: int) -> Events:
        return Events(
            stamp=stamp,
            t=np.sort(random.integers(0, 10_000, count)),
            x=random.integers(0, 346, count).astype(np.uint16),
            y=random.integers(0, 260, count).astype(np.uint16),
            p=random.integers(0, 2, count).astype(np.bool_),
            width_px=346,
            height_px=260,
        )

    labels = random.integers(0, 6, (260, 346), np.uint8)
    return {
        "frame 640 x 480 RGB, 0.9 MB": frame(480, 640),
        "frame 1920 x 1080 RGB, 6.2 MB": frame(1080, 1920),
        "1,000 events": events(1000),
        "100,000 events, 1.3 MB": events(100_000),
        "label map 346 x 260": LabelMap(
            stamp=stamp, labels=labels, classes=("a",), model=ModelRef(name="m")
        ),
    }
