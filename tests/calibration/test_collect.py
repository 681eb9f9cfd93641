from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgeperc.calibration.collect import Collected, Eyes, collect, spots_of
from edgeperc.calibration.models import IdealLens
from edgeperc.clock import ReplayClock, SteppedClock
from edgeperc.errors import DataError, DeviceError


@pytest.fixture
def eyes(pair: ModuleType) -> Callable[..., Eyes]:
    def make(*, reach_rad: float = float(pair.REACH_RAD), **seen: Any) -> Eyes:
        clock = SteppedClock(ReplayClock(None))
        mirror = pair.PairMirror(now_ns=clock.now_ns, reach_rad=reach_rad)
        dies = {"dies_after": seen.pop("dies_after")} if "dies_after" in seen else {}
        search = pair.PairSearch(name="search", clock=clock, mirror=mirror, **seen, **dies)
        wide = pair.PairWide(name="wide", clock=clock, **seen).packets()
        return Eyes(
            wide=lambda: next(wide).image,
            search=lambda: search.expose().image,
            mirror=mirror,
            wait_until=clock.wait_until,
            search_rad=float(pair.SEARCH_RAD),
        )

    return make


@pytest.fixture
def guess(pair: ModuleType) -> IdealLens:
    return IdealLens.of_view(*pair.WIDE_PX, float(pair.WIDE_RAD))


def error_px(pair: ModuleType, found: Collected) -> Any:
    """Wide px between where a look was found and where it is."""
    return np.linalg.norm(found.wide_px - pair.wide_px_of(found.gaze), axis=1)


def test_looks_are_found_where_they_are(
    eyes: Callable[..., Eyes], guess: IdealLens, pair: ModuleType
) -> None:
    progress: list[tuple[int, int, int]] = []
    found = collect(eyes(), guess, grid=6, on_look=lambda *told: progress.append(told))
    assert len(found.gaze) >= 28
    assert np.percentile(error_px(pair, found), 95) < 0.15
    assert found.tried == 36
    assert len(found.gaze) + sum(found.refused.values()) == 36
    assert progress[-1][0] == progress[-1][1]
    assert progress[-1][2] >= len(found.gaze)


def test_alike_windows_are_not_mixed_up(
    eyes: Callable[..., Eyes], guess: IdealLens, pair: ModuleType
) -> None:
    found = collect(eyes(kind="houses"), guess, grid=8)
    assert len(found.gaze) >= 20
    assert np.percentile(error_px(pair, found), 95) < 1.0
    assert found.wide_px[:, 1].min() > 170  # the sky has nothing to hold on to


def test_what_moves_is_refused(
    eyes: Callable[..., Eyes], guess: IdealLens, pair: ModuleType
) -> None:
    found = collect(eyes(moving=True), guess, grid=6)
    assert found.refused["moving"] + found.refused["not alike"] >= 1
    assert error_px(pair, found).max() < 1.0


def test_a_wall_without_texture_is_a_clear_error(
    eyes: Callable[..., Eyes], guess: IdealLens
) -> None:
    with pytest.raises(DataError, match="0 looks were found in the wide picture, need 5") as caught:
        collect(eyes(kind="blank"), guess, grid=6)
    assert "more texture" in caught.value.hint


def test_cameras_that_see_different_things_are_a_clear_error(
    eyes: Callable[..., Eyes], guess: IdealLens
) -> None:
    one, other = eyes(), eyes(kind="houses")
    mixed = Eyes(
        wide=other.wide,
        search=one.search,
        mirror=one.mirror,
        wait_until=one.wait_until,
        search_rad=one.search_rad,
    )
    with pytest.raises(DataError, match=r"need 5 at first|lie on one line|found agree") as caught:
        collect(mixed, guess, grid=6)
    assert "do both cameras see the same" in caught.value.hint


def test_the_mirror_is_asked_only_for_what_it_reaches(
    eyes: Callable[..., Eyes], guess: IdealLens, pair: ModuleType
) -> None:
    seeing = eyes(reach_rad=0.15)
    found = collect(seeing, guess, grid=6)
    mirror: Any = seeing.mirror
    assert all(mirror.range.clip(gaze) == gaze for gaze in mirror.asked)
    assert len(found.gaze) >= 20  # the fields lie where it reaches, not all over the picture
    assert np.percentile(error_px(pair, found), 95) < 0.15


def test_a_mirror_that_looks_elsewhere_is_a_clear_error(
    eyes: Callable[..., Eyes], pair: ModuleType
) -> None:
    narrow = IdealLens.of_view(*pair.WIDE_PX, np.radians(1.0))
    narrow = IdealLens((9000.0, 9000.0), narrow.focal_px)
    with pytest.raises(DataError, match="reaches nothing that the wide camera sees"):
        collect(eyes(), narrow, grid=6)


def test_a_lost_camera_ends_it(eyes: Callable[..., Eyes], guess: IdealLens) -> None:
    with pytest.raises(DeviceError, match="unplugged"):
        collect(eyes(dies_after=20), guess, grid=6)


def test_a_stopped_clock_ends_it(eyes: Callable[..., Eyes], guess: IdealLens) -> None:
    going = eyes()
    stopped = Eyes(
        wide=going.wide,
        search=going.search,
        mirror=going.mirror,
        wait_until=lambda _time_ns: False,
        search_rad=going.search_rad,
    )
    with pytest.raises(DataError, match="stopped before all points"):
        collect(stopped, guess, grid=6)


def test_it_waits_until_the_mirror_lies_still(eyes: Callable[..., Eyes], guess: IdealLens) -> None:
    hasty = eyes()
    waited: list[int] = []

    def wait_until(time_ns: int) -> bool:
        waited.append(time_ns - hasty.mirror.settled_ns())
        return hasty.wait_until(time_ns)

    patient = Eyes(
        wide=hasty.wide,
        search=hasty.search,
        mirror=hasty.mirror,
        wait_until=wait_until,
        search_rad=hasty.search_rad,
    )
    collect(patient, guess, grid=5)
    assert len(waited) > 40
    assert min(waited) >= 0


def test_spots_have_texture_and_room(pair: ModuleType) -> None:
    everywhere = np.array([[-np.inf, -np.inf], [np.inf, np.inf]])
    spots = spots_of(pair.exposed(pair.wall("houses"), 1), 8, 20.0, everywhere)
    assert 30 <= len(spots) <= 56
    assert (spots >= 20).all()
    assert (spots <= np.array(pair.WIDE_PX) - 20).all()
    assert spots[:, 1].min() > 155
    middle = np.linalg.norm(spots - (480, 270), axis=1)
    assert middle[0] == middle.min()
