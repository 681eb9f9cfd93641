"""The figures of promptable networks, with parts that only pretend to work."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgeperc.bench import timing
from edgeperc.bench.figures import Figures
from edgeperc.bench.sam import Bench, Settings, measure
from edgeperc.bench.sam_worker import _routed, card_of, serve, windows_at_share
from edgeperc.errors import ConfigError
from edgeperc.prompting.networks import Sizes
from edgeperc.prompting.seam import Wish
from edgeperc.prompting.windows import choose

MS = {
    "dense_encoder": 60,
    "routed_encoder": 30,
    "dense_memory": 40,
    "pruned_memory": 10,
    "decoder": 5,
    "decoder_salient": 5,
    "memory_encoder": 5,
    "eager": 40,
    "encoder": 20,
}


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Parts that take their time on a clock of their own; the names of those that were started."""
    started, now_ns = [], 0

    def take(ms: int) -> None:
        nonlocal now_ns
        now_ns += ms * 1_000_000

    @contextmanager
    def worker(self: Bench, network: str, part: str) -> Iterator[Callable[[], object]]:
        started.append(part)
        yield lambda: take(MS[part])

    clock = SimpleNamespace(perf_counter_ns=lambda: now_ns, sleep=lambda _: None)
    monkeypatch.setattr(timing, "time", clock)
    monkeypatch.setattr(Bench, "_worker", worker)
    monkeypatch.setattr(Bench, "_gflop", lambda self, network, part: 6.0)
    monkeypatch.setattr(Bench, "peak", 200.0)
    return started


def test_a_frame_is_the_sum_of_its_parts(pretended: list[str]) -> None:
    figures = Figures()
    measure(figures, None, Settings(only=("video_speedup_l", "smr_speedup_l"), rounds=1))
    assert figures.metrics["smr_speedup_l"] == pytest.approx(4, rel=0.2)
    assert figures.metrics["video_speedup_l"] == pytest.approx(110 / 50, rel=0.2)
    assert pretended.count("dense_memory") == 1, "timed once for both figures"
    (title, rows), *_ = figures.tables
    assert title == "Parts"
    assert {row["part"] for row in rows} == set(MS) - {"eager", "encoder"}
    dense = next(row for row in rows if row["part"] == "dense_encoder")
    assert float(dense["GFLOP/s"]) == pytest.approx(100, rel=0.1)
    assert float(dense["of peak"].rstrip(" %")) == pytest.approx(50, rel=0.1)


def test_onnxruntime_against_torch(pretended: list[str]) -> None:
    figures = Figures()
    measure(figures, None, Settings(only=("encoder_ort_vs_torch_vitb",), rounds=1))
    assert figures.metrics["encoder_ort_vs_torch_vitb"] == pytest.approx(2, rel=0.2)


def test_an_unknown_figure() -> None:
    with pytest.raises(ConfigError, match="unknown figure 'speed'"):
        measure(Figures(), None, Settings(only=("speed",)))


def test_without_davis(tmp_path: Path) -> None:
    figures = Figures()
    measure(figures, None, Settings(only=("davis_jf_dense", "davis_jf_efficient"), data=tmp_path))
    assert not figures.metrics
    assert [note.split(":")[0] for note in figures.notes] == [
        "davis_jf_dense",
        "davis_jf_efficient",
    ]


def test_a_part_that_ends_says_why(tmp_path: Path) -> None:
    bench = Bench(Figures(), Settings(), tmp_path)
    nowhere = ["edgeperc.bench.sam_worker", "encoder", str(tmp_path / "none"), "1"]
    with bench._process(nowhere) as call, pytest.raises(ConfigError, match="no such file"):
        call()


def test_operations_of_a_part_are_those_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "routed_l").mkdir()
    parts = {"encoder_head": 1.0, "encoder_middle": 2.0, "encoder_tail": 4.0}
    (tmp_path / "routed_l" / "operations.json").write_text(json.dumps(parts))
    bench = Bench(Figures(), Settings(), tmp_path)
    assert bench._gflop("routed_l", "routed_encoder") == 7.0


@pytest.mark.parametrize(("windows", "count"), [(25, 6), (16, 4), (2, 1)])
def test_published_share_of_the_windows(windows: int, count: int) -> None:
    assert windows_at_share(windows) == count


@pytest.mark.parametrize("window", [14, 16])
def test_as_many_windows_are_chosen(window: int) -> None:
    """An encoder that counts what it would encode."""

    class Counting:
        def __init__(self) -> None:
            self.sizes = Sizes(table=card_of(1024, [], video=True).prompt, grid=64, width=256)  # type: ignore[arg-type]
            self.window, self.counters = window, {"windows": 0}

        def __call__(self, tensor: object, wish: Wish) -> None:
            if not wish.whole:
                self.counters = {
                    "windows": self.counters["windows"] + int(choose(wish.last, 64, window).sum())
                }

    call = _routed(Counting())  # type: ignore[arg-type]
    assert callable(call)


def test_a_worker_answers_each_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", ["\n", "\n"])
    answers = iter([1.5, None])
    serve(lambda: next(answers))
    assert capsys.readouterr().out == "1.5\n\n"
