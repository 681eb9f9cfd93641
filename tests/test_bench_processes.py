"""What processes cost, as the bench sees it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from edgeperc.bench import processes
from edgeperc.bench.figures import Figures


def test_memory_and_time_are_those_of_a_process() -> None:
    before_mib, before_s = processes.pss_mib(os.getpid()), processes.cpu_of(os.getpid())
    held = bytearray(os.urandom(1 << 20) * 64)
    assert 60 < processes.pss_mib(os.getpid()) - before_mib < 80
    while time.process_time() < before_s + 0.1:
        pass
    assert processes.cpu_of(os.getpid()) >= before_s + 0.05
    assert processes.pss_mib(0) == processes.cpu_of(0) == 0.0
    del held


def test_every_object_goes_through_a_ring() -> None:
    rows = processes.ring_rows(times=3)
    assert len(rows) == 5
    assert all(float(row["put ms"]) > 0 and float(row["read ms"]) > 0 for row in rows)


def test_the_figures_are_of_processes_and_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_app(folder: Path, app: str, *, inproc: bool) -> Any:
        parts = {"front": 60.0} if inproc else {"front": 60.0, "sensor 1": 40.0}
        return {
            "parts": parts,
            "pss_mib": sum(parts.values()),
            "first_result_s": 2.0 + inproc,
            "first_result_cpu_s": 1.5,
        }

    monkeypatch.setattr(processes, "run_app", run_app)
    figures = Figures()
    processes.measure(figures, only=("events",))
    assert figures.metrics["events_pss_mib"] == 100
    assert figures.metrics["events_pss_mib_inproc"] == 60
    assert figures.metrics["events_first_result_s_inproc"] == 3
    assert [row["process"] for row in figures.tables[0][1]] == [
        "front",
        "sensor 1",
        "all of them",
        "with --inproc, all",
    ]


@pytest.mark.slow
def test_an_app_is_served_until_it_gives_results(tmp_path: Path) -> None:
    found = processes.run_app(tmp_path, "events", settle_s=0.5)
    assert set(found["parts"]) == {"front", "sensor 1", "pipeline 1"}
    assert all(mib > 5 for mib in found["parts"].values())
    assert found["first_result_cpu_s"] > 0
