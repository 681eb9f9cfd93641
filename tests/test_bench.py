from __future__ import annotations

import json
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from edgeperc.bench import events, kernels, machine, network, run, suite, whole
from edgeperc.bench.figures import Figures
from edgeperc.bench.timing import compare
from edgeperc.drivers.replay import Replay
from edgeperc.errors import ConfigError
from edgeperc.packet import Events, Stamp
from edgeperc.represent import voxel_grid
from edgeperc.window import TimeWindows


@pytest.fixture
def windows() -> list[Events]:
    """Three windows of a few random events each, at times of their own."""
    rng = np.random.default_rng(0)
    found = []
    for start_us in (7_000_000, 3_000, 500_000):
        t = start_us + np.sort(rng.integers(0, 50_000, 200))
        found.append(
            Events(
                stamp=Stamp(
                    source="x", seq=9, start_ns=start_us * 1000, end_ns=(start_us + 50_000) * 1000
                ),
                t=t,
                x=rng.integers(0, 346, 200, dtype=np.uint16),
                y=rng.integers(0, 260, 200, dtype=np.uint16),
                p=rng.random(200) < 0.5,
                width_px=346,
                height_px=260,
            )
        )
    return found


def quiet() -> Console:
    return Console(quiet=True)


def test_figures_are_written_as_json(tmp_path, monkeypatch) -> None:
    def measure(figures: Figures, recording: object) -> None:
        figures.progress("two things")
        figures.add("fast", 12.5, "a rate", aim=10)
        figures.add("slow", 1 / 3, "another")
        figures.note("One sentence.")

    monkeypatch.setitem(suite.SUITES, "small", measure)
    run("small", tmp_path / "out.json", console=quiet())
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["suite"] == "small"
    assert written["metrics"] == {"fast": 12.5, "slow": 0.3333}
    assert "One sentence." in written["notes"]
    assert {"cpu", "cores", "versions", "load_before", "load_after", "busy"} <= set(
        written["machine"]
    )
    assert isinstance(written["commit"], str)


def test_mistakes_are_config_errors(tmp_path, monkeypatch) -> None:
    with pytest.raises(ConfigError, match="unknown suite 'speed'"):
        run("speed", console=quiet())
    monkeypatch.setitem(suite.SUITES, "empty", lambda figures, recording: None)
    with pytest.raises(ConfigError, match="no such folder"):
        run("empty", tmp_path / "no/such/folder.json", console=quiet())


def test_a_busy_machine_is_said_to_be_busy(monkeypatch) -> None:
    monkeypatch.setitem(suite.SUITES, "empty", lambda figures, recording: None)
    monkeypatch.setattr(machine, "load", lambda: 7.5)
    assert any("busy" in note for note in run("empty", console=quiet()).notes)
    monkeypatch.setattr(machine, "load", lambda: 0.5)
    assert not run("empty", console=quiet()).notes


def test_compared_calls_take_turns_there_and_back() -> None:
    turns: list[str] = []
    calls = [partial(turns.append, name) for name in "ABC"]
    result = compare(*calls, rounds=2, baseline_reps=1, reps=1)
    assert "".join(turns) == "ABC" + 2 * "ABCCBA"
    assert len(result.pairs) == 2
    assert all(pair.speedup > 0 for pair in result.pairs)
    assert 0 <= result.steady <= 1


def test_the_numpy_baseline_computes_the_same_grid(windows) -> None:
    for window in windows:
        np.testing.assert_allclose(
            kernels.add_at_voxels(window, bins=5), voxel_grid(window, bins=5), atol=1e-5
        )


def test_each_window_completes_one_of_the_pipelines(windows) -> None:
    """Of its overhead a window is asked alone: none may wait for the packet after it."""
    moved = list(events.one_after_the_other(windows, window_us=50_000))
    cutter = TimeWindows(50_000)
    for turn in range(2):
        for window in moved:
            packet = whole._later(window, turn * 150_000)
            (cut,) = cutter.push(packet)
            np.testing.assert_array_equal(cut.t, packet.t)
    assert all(a.stamp.end_ns == b.stamp.start_ns for a, b in pairwise(moved))


def test_the_recording_holds_the_windows(windows, tmp_path) -> None:
    moved = list(events.one_after_the_other(windows, window_us=50_000))
    whole.write_dat(tmp_path / "three.dat", moved)
    read = list(Replay(str(tmp_path / "three.dat")).packets())
    assert {(packet.width_px, packet.height_px) for packet in read} == {(346, 260)}
    for name in "txyp":
        np.testing.assert_array_equal(
            np.concatenate([getattr(packet, name) for packet in read]),
            np.concatenate([getattr(window, name) for window in moved]),
        )


def test_work_of_the_unfolded_network() -> None:
    """1.4 GMAC, 65 % of them in the stem, as counted independently from the published code."""
    baseline = pytest.importorskip("edgeperc.offline.baseline")
    count = baseline.products(6, (5, 200, 352))
    stem = 200 * 352 * 9 * (5 * 32 + 32 * 32) + 100 * 176 * 9 * 32 * 32
    assert stem / count == pytest.approx(0.65, abs=0.02)
    assert count == pytest.approx(1.4e9, rel=0.02)


def test_without_torch_its_figures_are_left_out(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [name for name in sys.modules if name.startswith("edgeperc.offline.")]:
        monkeypatch.delitem(sys.modules, name)
    figures = Figures()
    assert network._baseline(figures) is None
    assert figures.notes == [
        "No comparison with torch: needs torch: pip install 'edgeperc[offline]'"
    ]


@pytest.mark.slow
def test_the_events_suite_measures_everything_without_an_import(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("EDGEPERC_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    figures = run("events", tmp_path / "events.json", console=quiet())
    wanted = {
        "sltnet_speedup_vs_eager", "sltnet_fps", "voxel_mev_s", "count_mev_s", "voxel_vs_add_at",
        "overhead_ms_p50",
    }  # fmt: skip
    assert wanted <= set(figures.metrics)
    assert all(value > 0 for value in figures.metrics.values())
    assert any("random weights" in note for note in figures.notes)


def test_the_calibration_suite_fits_every_model_at_every_depth(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from edgeperc.bench import calibration

    monkeypatch.setattr(calibration, "SEEDS", 1)
    monkeypatch.setattr(calibration, "TESTS", 50)
    monkeypatch.setattr(calibration, "_twin_miss_px", lambda: np.array([3.0, 4.0]))
    figures = Figures()
    calibration.measure(figures)
    assert len(figures.metrics) == 11
    assert figures.metrics["twin_rms_px"] == pytest.approx(np.sqrt(12.5), abs=1e-3)
    assert figures.metrics["cubic_1z_rms_px_10_60m"] < figures.metrics["cubic_rms_px_10_60m"] / 3
    with pytest.raises(ConfigError, match="not on a recording"):
        calibration.measure(Figures(), Path("x.aedat4"))
