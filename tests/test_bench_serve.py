"""The suite `serve` in small: a round with one reader and one that is dead, and its figures."""

from __future__ import annotations

import time

import numpy as np
import pytest

from edgeperc.bench import serve, serve_worker
from edgeperc.bench.figures import Figures


@pytest.mark.slow
def test_a_round_counts_what_readers_got_and_what_it_cost_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serve, "SECONDS", 1.0)
    monkeypatch.setattr(serve, "WARM_S", 0.2)
    found = serve.round_of([["--clients", "1", "--rate", "20"], ["--clients", "1", "--dead"]])
    assert 0 < found.p50_ms <= found.p99_ms
    assert 0 < found.core_share < 2
    assert 0 < found.client_core_share < 2
    assert 0 < found.received_share < 0.5  # thinned, and the dead one got nothing


def test_the_figures_are_those_that_were_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def round_of(clients: list[list[str]]) -> serve.Round:
        asked.append(len(clients))
        dead = any("--dead" in each for each in clients)
        return serve.Round(
            {"cpu_s": 1, "wall_s": 10, "published": 4},
            [{"latencies_ms": [3.0 if dead else 2.0] * 4, "core_share": 0.05}],
            0.5,
        )

    monkeypatch.setattr(serve, "round_of", round_of)
    figures = Figures()
    serve.measure(figures, None)
    assert asked == [4, *[5, 6] * serve.PAIRS]
    assert figures.metrics["p99_ms_4_clients"] == 2.0
    assert figures.metrics["server_core_share"] == 0.1
    assert figures.metrics["client_core_share"] == 0.05
    assert figures.metrics["p99_ratio_50_clients_5_dead"] == 1.5


@pytest.mark.parametrize(
    ("pauses_ms", "kept_ms"), [([1.0], 1.0), ([80.0, 2.0], 2.0), ([80.0, 30.0, 50.0], 30.0)]
)
def test_a_round_in_which_the_machine_stood_still_is_measured_again(
    pauses_ms: list[float], kept_ms: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter(pauses_ms)
    served = {"cpu_s": 1.0, "wall_s": 10.0, "published": 4.0}
    got = [{"latencies_ms": [1.0], "core_share": 0.1}]
    monkeypatch.setattr(serve, "round_of", lambda _: serve.Round(served, got, next(left)))
    assert serve.calm_round_of([]).pause_ms == kept_ms
    assert next(left, None) is None


def test_a_pause_is_seen_by_whom_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    naps = iter([0.0, 0.2])
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(seconds + next(naps, 0.0)))
    assert serve.longest_pause_ms(0.1) >= 200


def test_the_maps_have_the_size_and_classes_of_a_street() -> None:
    labels = serve_worker.street(0)
    assert labels.shape == (480, 640)
    assert labels.dtype == np.uint8
    assert labels.flags.c_contiguous
    assert len(np.unique(labels)) == 15
