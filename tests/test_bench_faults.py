"""The bench that hurts daemons: what it sees, and what it says where the demanded does not come."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgeperc.bench import fault_recordings, faults, soak
from edgeperc.bench.fault_parts import two_pipelines
from edgeperc.bench.faults import FAULTS, Fault
from edgeperc.bench.figures import Figures
from edgeperc.bench.victim import FaultError, ImpossibleError, Victim, descendants
from edgeperc.errors import ConfigError


def test_descendants_are_children_and_theirs() -> None:
    code = "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True)"
    parent = subprocess.Popen(
        [sys.executable, "-c", f"{code}; sys.stdin.read(); p.kill()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout
        grandchild = int(parent.stdout.readline())
        assert descendants(parent.pid) == {grandchild}
    assert descendants(grandchild) == set()


def test_an_outcome_that_does_not_come_is_a_fault_that_was_not_survived(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(_: Path) -> float:
        raise FaultError("it died")

    def impossible(_: Path) -> float:
        raise ImpossibleError("needs root")

    made = (
        Fault("a", "goes on", lambda _: 1.5),
        Fault("b", "goes on", fails),
        Fault("c", "goes on", impossible),
    )
    monkeypatch.setattr(faults, "FAULTS", made)
    figures = Figures()
    faults.measure(figures)
    assert figures.metrics["faults_injected"] == 2
    assert figures.metrics["faults_survived"] == 1
    assert figures.metrics["recovery_s_a"] == 1.5
    outcomes = [row["outcome"] for row in figures.tables[0][1]]
    assert outcomes == ["as demanded", "FAILED: it died", "not tried: needs root"]
    with pytest.raises(ConfigError, match="no such fault"):
        faults.measure(figures, only=("d",))


def test_a_daemon_that_does_not_start_is_said_with_its_words(tmp_path: Path) -> None:
    with (
        pytest.raises(FaultError, match=r"(?s)died before it serves.*app.toml: key"),
        Victim('rig = "nowhere"\n', tmp_path),
    ):
        pass


def test_a_soak_comes_after_the_faults_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[str] = []

    def hurt(_: Path) -> None:
        order.append("fault")

    def alone(folder: Path, seconds: float, figures: Figures) -> soak.Soaked:
        order.append(f"alone for {seconds:g} s")
        return soak.Soaked(rss_bytes=[100, 100, 100, 100, 103], missed=2, results={"a": 5})

    monkeypatch.setattr(faults, "FAULTS", (Fault("a", "goes on", hurt),))
    monkeypatch.setattr(soak, "soak", alone)
    figures = Figures()
    faults.measure(figures)
    assert "soak_growth" not in figures.metrics
    figures = Figures()
    faults.measure(figures, soak_s=90.0)
    assert order == ["fault", "fault", "alone for 90 s"]
    assert figures.metrics["soak_growth"] == pytest.approx(0.03)
    assert figures.metrics["soak_missed_beats"] == 2
    assert figures.metrics["faults_survived"] == 1


@pytest.mark.slow
def test_a_victim_is_seen_from_outside(tmp_path: Path) -> None:
    with two_pipelines(tmp_path) as victim:
        kinds = sorted(name.split()[0] for name in victim.workers())
        assert kinds == ["pipeline", "pipeline", "sensor", "sensor"]
        assert victim.healthy() is True
        assert victim.healthy("sensors/nobody") is None
        with pytest.raises(FaultError, match="never gives 1 results of nothing"):
            victim.wait_results("nothing", 1, 0.2)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_every_fault_is_survived(fault: Fault, tmp_path: Path) -> None:
    try:
        fault.do(tmp_path)
    except ImpossibleError as error:
        pytest.skip(f"{fault.name}: {error}")
    assert not fault_recordings.corrupt
