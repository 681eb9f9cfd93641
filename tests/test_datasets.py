from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeperc.errors import ConfigError, DataError
from edgeperc.offline import datasets
from edgeperc.offline.samples import Sample


def same(a: Sample, b: Sample) -> bool:
    columns = zip(
        (a.events.t, a.events.x, a.events.y, a.events.p, a.labels),
        (b.events.t, b.events.x, b.events.y, b.events.p, b.labels),
        strict=True,
    )
    return a.events.stamp == b.events.stamp and all(np.array_equal(u, v) for u, v in columns)


def test_the_cache_gives_what_the_twin_draws(tmp_path: Path) -> None:
    streets = [20_000, 20_001]
    drawn = datasets.twin(streets, windows_a_street=3)
    advanced = []
    cached = datasets.cached_twin(
        streets,
        tmp_path,
        windows_a_street=3,
        processes=1,
        on_street=lambda: advanced.append(1),
    )
    assert len(cached) == len(drawn) == 6
    assert len(advanced) == 2
    assert all(same(a, b) for a, b in zip(drawn, cached, strict=True))

    files = sorted(tmp_path.iterdir())
    written = [file.stat().st_mtime_ns for file in files]
    datasets.cached_twin(streets, tmp_path, windows_a_street=3, processes=1)
    assert [file.stat().st_mtime_ns for file in sorted(tmp_path.iterdir())] == written


def test_training_validation_and_demo_streets_are_not_held_out() -> None:
    from edgeperc.offline.train import VALIDATION_STREETS

    held_out = set(datasets.HELD_OUT_STREETS)
    assert held_out.isdisjoint(datasets.TRAINING_STREETS)
    assert held_out.isdisjoint(VALIDATION_STREETS)
    assert set(VALIDATION_STREETS).isdisjoint(datasets.TRAINING_STREETS)


def test_a_limit_spreads_over_the_whole() -> None:
    dataset = datasets.open_dataset("twin:20003", limit=2)
    first, last = dataset
    whole = datasets.open_dataset("twin:20003")
    assert same(first, whole.read(0))
    assert same(last, whole.read(len(whole) - 1))
    assert len(whole.thinned(10_000)) == len(whole)


def test_a_name_that_is_nothing_is_a_mistake_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="seed must be a number"):
        datasets.open_dataset("twin:blue")
    with pytest.raises(ConfigError, match="no such folder"):
        datasets.open_dataset(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="neither DDD17 nor DSEC"):
        datasets.open_dataset(str(tmp_path))
