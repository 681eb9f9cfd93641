from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeperc.errors import ConfigError
from edgeperc.offline import datasets, fusion_pairs
from edgeperc.offline.fusion_conditions import CONDITIONS, TRAINED
from edgeperc.offline.samples import Sample
from edgeperc.packet import Frame
from edgeperc.pairs import Rules, pair

STREETS = [20_000, 20_001]


def frame(sample: Sample) -> Frame:
    assert sample.frame is not None
    return sample.frame


def same(a: Sample, b: Sample) -> bool:
    columns = zip(
        (a.events.t, a.events.x, a.events.y, a.events.p, a.labels, frame(a).image),
        (b.events.t, b.events.x, b.events.y, b.events.p, b.labels, frame(b).image),
        strict=True,
    )
    stamps = (a.events.stamp, frame(a).stamp) == (b.events.stamp, frame(b).stamp)
    return stamps and all(np.array_equal(u, v) for u, v in columns)


def sharpness(image: np.ndarray) -> float:
    return float(np.abs(np.diff(image.astype(np.float64), axis=1)).mean())


@pytest.fixture(scope="module")
def of() -> dict[str, Sample]:
    """The same window under each condition."""
    return {name: fusion_pairs.draw(20_001, 2, name) for name in CONDITIONS}


def test_the_cache_gives_what_the_twin_draws(tmp_path: Path) -> None:
    options = {"windows_a_street": 3}
    drawn = fusion_pairs.pairs(STREETS, TRAINED, **options)
    cached = fusion_pairs.cached_pairs(STREETS, TRAINED, tmp_path, processes=1, **options)
    assert len(cached) == len(drawn) == 6
    assert all(same(a, b) for a, b in zip(drawn, cached, strict=True))

    written = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    fusion_pairs.cached_pairs(STREETS, TRAINED, tmp_path, processes=1, **options)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == written
    others = fusion_pairs.cached_pairs(STREETS, ["day"], tmp_path, processes=1, **options)
    assert not same(others.read(1), cached.read(1))


def test_each_condition_is_drawn_equally_often_and_not_always_at_the_same_place() -> None:
    turns = [[fusion_pairs._in_turn(TRAINED, s, w) for w in range(16)] for s in range(4)]
    assert all(sorted(turn) == sorted(4 * list(TRAINED)) for turn in turns)
    assert len({tuple(turn) for turn in turns}) == 4


def test_a_sample_is_what_pairing_makes_of_the_same_frame_and_events(of: dict[str, Sample]) -> None:
    for sample in of.values():
        (found,), _ = pair([frame(sample)], [sample.events], Rules())
        assert np.array_equal(found.events.t, sample.events.t)
        assert (found.events.stamp.start_ns, found.events.stamp.end_ns) == (
            sample.events.stamp.start_ns,
            sample.events.stamp.end_ns,
        )


def test_conditions_do_to_frames_and_events_what_they_say(of: dict[str, Sample]) -> None:
    day, night, glare, fast = (of[name] for name in TRAINED)
    assert frame(night).image.mean() < 0.5 * frame(day).image.mean()
    assert (frame(glare).image == 255).mean() > (frame(day).image == 255).mean() + 0.01
    assert sharpness(frame(fast).image) < 0.8 * sharpness(frame(day).image)
    assert len(fast.events) > 1.5 * len(day.events)
    assert len(glare.events) < len(day.events)
    for sample in (day, night, glare):  # of one instant of the world
        assert np.array_equal(sample.labels, day.labels)
    sky = (slice(0, 40), slice(150, 200))
    noise = [np.diff(frame(s).image[sky].astype(int), axis=1).std() for s in (day, night)]
    assert noise[1] > 2 * noise[0]


def test_what_is_scored_was_never_learnt_from() -> None:
    assert set(datasets.HELD_OUT_STREETS).isdisjoint(datasets.TRAINING_STREETS)
    assert {"night-fast", "night-glare"} == CONDITIONS.keys() - set(TRAINED)


def test_names_open_streets_and_conditions() -> None:
    held_out = fusion_pairs.open_pairs("twin-night")
    assert held_out is not None
    assert len(held_out) == 192
    single = fusion_pairs.open_pairs("twin-night:20001")
    assert single is not None
    assert same(single.read(2), fusion_pairs.draw(20_001, 2, "night"))
    day = fusion_pairs.open_pairs("twin:20001")
    assert day is not None
    assert same(day.read(2), fusion_pairs.draw(20_001, 2, "day"))
    assert fusion_pairs.open_pairs("twins") is None
    assert fusion_pairs.open_pairs("/data/DDD17") is None
    for wrong, message in (("twin-fog", "unknown condition 'fog'"), ("twin:blue", "a number")):
        with pytest.raises(ConfigError, match=message):
            fusion_pairs.open_pairs(wrong)
