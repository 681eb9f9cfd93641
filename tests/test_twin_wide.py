from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeperc import plugin
from edgeperc.clock import ReplayClock
from edgeperc.drivers.twin_wide import TwinWide
from edgeperc.errors import ConfigError


def wide(**options: Any) -> TwinWide:
    small = {"name": "wide", "width_px": 240, "height_px": 112, "duration_s": 1.0}
    return TwinWide(**{"clock": ReplayClock(None), **small, **options})


def test_frames_come_after_each_period_on_the_world_s_clock() -> None:
    frames = list(wide(rate_hz=10.0, exposure_us=2000.0).packets())
    assert [frame.stamp.end_ns for frame in frames] == [100_000_000 * k for k in range(1, 11)]
    assert {frame.stamp.end_ns - frame.stamp.start_ns for frame in frames} == {2_000_000}
    assert [frame.stamp.seq for frame in frames] == list(range(10))
    for before, after in pairwise(frames):
        assert before.image.shape == (112, 240)
        assert not np.array_equal(before.image, after.image)


def test_a_frame_shows_the_middle_of_its_exposure() -> None:
    sensor = wide()
    frame = next(sensor.packets())
    assert np.array_equal(frame.image, sensor.view.image(0.0995, noise=0))
    truth, there = sensor.truth(frame), sensor.view.truth(0.0995)
    assert np.array_equal(truth.boxes, there.boxes)


def test_an_exposure_is_no_longer_than_a_period() -> None:
    frames = list(wide(rate_hz=100.0, exposure_us=50_000.0, duration_s=0.05).packets())
    for before, after in pairwise(frames):
        assert before.stamp.end_ns <= after.stamp.start_ns


def test_the_same_seed_gives_the_same_frames_at_any_speed() -> None:
    fast = list(wide(seed=5).packets())
    paced = list(wide(seed=5, clock=ReplayClock(20.0)).packets())
    other = list(wide(seed=6).packets())
    assert [frame.stamp for frame in fast] == [frame.stamp for frame in paced]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(fast, paced, strict=True))
    assert not np.array_equal(fast[0].image, other[0].image)


@pytest.mark.parametrize(
    ("key", "value"),
    [("rate_hz", 0.0), ("width_px", 8), ("seed", -1), ("exposure_us", 0.0), ("focal_px", 3.0)],
)
def test_a_bad_key_is_named(key: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=key):
        plugin.prepare(
            {"driver": "twin-wide", key: value},
            kind="driver",
            where="rig.toml [sensors.wide]",
            folder=tmp_path,
            injected={"name": "wide", "clock": ReplayClock(None)},
        )
