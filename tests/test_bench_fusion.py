from __future__ import annotations

import sys

import pytest
import torch

from edgeperc.bench import fusion
from edgeperc.bench.figures import Figures
from edgeperc.errors import ConfigError
from edgeperc.offline import bench_scan
from edgeperc.offline.nets.selective_scan import sequential_scan


def test_the_keys_and_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {
        "scan_speedup_encoder": (10, {"stage 1": (2, 20, 1, 600), "stage 3": (2, 20, 1, 300)}),
        "scan_speedup_16state": (30, {"channel": (2, 40, 16, 150)}),
    }
    monkeypatch.setattr(bench_scan, "SHAPES", small)
    threads = torch.get_num_threads()
    figures = Figures()
    bench_scan.measure(figures)
    assert torch.get_num_threads() == threads
    assert [each.key for each in figures.shown] == list(small)
    each = [figures.details[f"scan_speedup_encoder_{stage}"] for stage in ("1", "3")]
    assert figures.metrics["scan_speedup_encoder"] == min(each)
    assert min(figures.metrics.values()) > 1
    ((_, rows),) = figures.tables
    assert [row["K, C, N, L"] for row in rows] == [
        "2, 20, 1, 600",
        "2, 20, 1, 300",
        "2, 40, 16, 150",
    ]


def test_the_loop_that_discretises_as_it_goes_is_the_same_scan() -> None:
    tensors = tuple(map(torch.from_numpy, bench_scan.arrays_of((3, 7, 4, 50))))
    expected = sequential_scan(*tensors, softplus=True)
    torch.testing.assert_close(bench_scan.stepwise(*tensors), expected)


def test_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "edgeperc.offline.bench_scan")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigError, match="bench fusion needs torch"):
        fusion.measure(Figures())


def test_a_figure_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {key: (aim, {"one": (2, 4, 1, 30)}) for key, (aim, _) in bench_scan.SHAPES.items()}
    monkeypatch.setattr(bench_scan, "SHAPES", small)
    figures = Figures()
    fusion.measure(figures, only=("scan_speedup_16state",))
    assert [each.key for each in figures.shown] == ["scan_speedup_16state"]
    with pytest.raises(ConfigError, match="no such figure"):
        fusion.measure(figures, only=("scan",))
