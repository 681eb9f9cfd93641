"""What every scheduler must do, however it decides. A new one joins by a line in SCHEDULERS."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeperc import plugin
from edgeperc.search.grid import Grid
from edgeperc.search.paper import paper_wide
from edgeperc.search.schedulers import Place, Scheduler, Sight

SCHEDULERS = {
    **{
        name: plugin.resolve(name, kind="scheduler", where="", folder=Path())
        for name in plugin.SCHEDULERS
    },
    "paper_wide": paper_wide,
}
GRIDS = {"usual": Grid(), "low": Grid(width=97, height=40), "tiny": Grid(width=11, height=9)}
WEIGHTS = {0: 0.0, 1: 0.1, 2: 0.9}
NONE = np.empty((0, 3))
SLOT_S = 1 / 120


@pytest.fixture(params=SCHEDULERS)
def make(request) -> Callable[..., Scheduler]:
    return SCHEDULERS[request.param]


def labels_of(grid: Grid) -> NDArray[np.uint8]:
    labels = np.zeros(grid.shape, np.uint8)
    labels[grid.height // 3 :] = 1
    labels[grid.height // 2 : grid.height // 2 + 9] = 2
    return labels


def detections(rng: np.random.Generator, grid: Grid, count: int) -> NDArray[np.float64]:
    return rng.random((count, 3)) * (grid.width, grid.height, 1)


def drive(scheduler: Scheduler, grid: Grid, steps: int, seed: int = 0) -> Iterator[Place]:
    """A run with detections here and there; yields the gazes."""
    rng = np.random.default_rng(seed)
    for number in range(steps):
        now_s = number * SLOT_S
        if number == 10:
            scheduler.regions(now_s, labels_of(grid), WEIGHTS)
        if number % 12 == 5:
            scheduler.wide(now_s, detections(rng, grid, int(rng.integers(0, 8))))
        gaze = scheduler.step(now_s)
        yield gaze
        found = gaze + rng.normal(0, 3, (int(rng.integers(0, 3)), 2))
        scheduler.observe(now_s + SLOT_S, gaze, np.c_[found, rng.random(len(found))])


def assert_allowed(gaze: Place, grid: Grid, sight: Sight) -> None:
    for value, size in zip(gaze, (grid.width, grid.height), strict=True):
        assert isinstance(value, float)
        assert math.isfinite(value)
        low = min(sight.fov / 2, size / 2)
        assert low <= value <= size - low


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_gazes_lie_within_the_limits(make, grid) -> None:
    sight = Sight()
    for gaze in drive(make(grid, sight, seed=1), grid, 400):
        assert_allowed(gaze, grid, sight)


def test_the_limits_are_those_of_its_sight(make) -> None:
    grid, sight = Grid(), Sight(fov=30.0, half=13.0, pd=0.5, slot_s=0.001)
    for gaze in drive(make(grid, sight, seed=1), grid, 300):
        assert_allowed(gaze, grid, sight)


def test_same_seed_and_same_input_are_the_same_gazes(make) -> None:
    grid = Grid()
    first, second = (list(drive(make(grid, Sight(), seed=7), grid, 300)) for _ in range(2))
    assert first == second


def test_it_looks_at_more_than_one_place(make) -> None:
    gazes = list(drive(make(Grid(), Sight(), seed=1), Grid(), 300))
    assert len(set(gazes)) > 50


BAD = np.array(
    [
        [math.nan, 20, 0.9],
        [20, math.nan, 0.9],
        [20, 20, math.nan],
        [math.inf, 20, 0.9],
        [20, -math.inf, 0.9],
        [20, 20, math.inf],
        [20, 20, 1.01],
        [20, 20, -0.01],
        [1e300, 20, 0.9],
        [20, -500, 0.9],
    ]
)


def test_bad_detections_are_counted_and_change_nothing(make) -> None:
    grid = Grid()
    clean, dirty = make(grid, Sight(), seed=3), make(grid, Sight(), seed=3)
    good = np.array([[100.0, 60.0, 0.8], [30.0, 70.0, 0.6]])
    mixed = np.vstack([BAD[:5], good, BAD[5:]])
    for number in range(60):
        now_s = number * SLOT_S
        gazes = []
        for scheduler, told in ((clean, good), (dirty, mixed)):
            scheduler.wide(now_s, told if number % 12 == 0 else NONE)
            gazes.append(scheduler.step(now_s))
            scheduler.observe(now_s, gazes[-1], told if number % 7 == 0 else NONE)
        assert gazes[0] == gazes[1]
    assert clean.dropped == 0
    assert dirty.dropped == len(BAD) * (5 + 9)


@pytest.mark.parametrize(
    "shapeless", [np.zeros((3, 2)), np.zeros(3), np.float64(1.0), np.zeros((2, 3, 1))]
)
def test_detections_of_another_shape_are_dropped(make, shapeless) -> None:
    scheduler = make(Grid(), Sight(), seed=3)
    scheduler.wide(0.0, shapeless)
    scheduler.observe(0.0, scheduler.step(0.0), shapeless)
    assert scheduler.dropped >= 2
    assert_allowed(scheduler.step(0.1), Grid(), Sight())


def test_a_flood_of_detections_is_cut_to_the_surest(make) -> None:
    grid, rng = Grid(), np.random.default_rng(0)
    scheduler = make(grid, Sight(), seed=3)
    for number in range(20):
        scheduler.wide(number * SLOT_S, detections(rng, grid, 10_000))
        gaze = scheduler.step(number * SLOT_S)
        assert_allowed(gaze, grid, Sight())
        scheduler.observe(number * SLOT_S, gaze, detections(rng, grid, 10_000))
    assert scheduler.dropped == 20 * 2 * 9800
    intensity, tracks = scheduler.snapshot(0.2)
    assert np.isfinite(intensity).all()
    assert len(tracks) <= 500


def test_time_that_runs_backwards_or_is_none_does_no_harm(make) -> None:
    scheduler = make(Grid(), Sight(), seed=3)
    found = np.array([[100.0, 60.0, 0.8]])
    for now_s in (5.0, 4.0, -math.inf, math.nan, 5.1, math.inf, -1e9, 5.2, 1e9, 1e9 + 1):
        scheduler.wide(now_s, found)
        gaze = scheduler.step(now_s)
        assert_allowed(gaze, Grid(), Sight())
        scheduler.observe(now_s, gaze, found)
        intensity, tracks = scheduler.snapshot(now_s)
        assert np.isfinite(intensity).all()
        assert np.isfinite(tracks).all()


def test_a_gaze_that_cannot_be_is_counted(make) -> None:
    scheduler = make(Grid(), Sight(), seed=3)
    for gaze in ((math.nan, 3.0), (3.0, math.inf)):
        scheduler.step(0.0)
        scheduler.observe(0.0, gaze, np.array([[50.0, 50.0, 0.9]]))
    assert scheduler.dropped == 2
    for gaze in ((-1e6, 1e6), (1e300, -1e300)):  # a mirror that never settled
        scheduler.step(0.1)
        scheduler.observe(0.1, gaze, NONE)
    for _ in range(50):
        assert_allowed(scheduler.step(0.2), Grid(), Sight())


def test_a_step_may_come_before_the_observation_of_the_one_before(make) -> None:
    """Exposure k, decision k + 1, and only then what exposure k has shown."""
    grid, rng = Grid(), np.random.default_rng(0)
    scheduler = make(grid, Sight(), seed=3)
    scheduler.regions(0.0, labels_of(grid), WEIGHTS)
    last = scheduler.step(0.0)
    for number in range(1, 400):
        now_s = number * SLOT_S
        if number % 12 == 0:
            scheduler.wide(now_s, NONE)
        gaze = scheduler.step(now_s)
        assert_allowed(gaze, grid, Sight())
        if number % 50:  # a look is lost now and then
            scheduler.observe(now_s, last, detections(rng, grid, 1))
        last = gaze
    assert scheduler.dropped == 0


def test_looks_may_never_be_observed(make) -> None:
    scheduler = make(Grid(), Sight(), seed=3)
    gazes = [scheduler.step(number * SLOT_S) for number in range(300)]
    assert len(set(gazes)) > 50


def test_regions_that_cannot_be_are_dropped_or_mean_nothing(make) -> None:
    grid = Grid()
    scheduler = make(grid, Sight(), seed=3)
    scheduler.regions(0.0, np.zeros((4, 4), np.uint8), WEIGHTS)
    assert scheduler.dropped == 1
    for labels, weights in (
        (np.full(grid.shape, 255, np.uint8), WEIGHTS),
        (labels_of(grid), {}),
        (labels_of(grid), {0: math.nan, 1: -1.0, 2: math.inf}),
        (labels_of(grid), {300: 1.0, -1: 1.0}),
    ):
        scheduler.regions(0.1, labels, weights)
        gazes = [scheduler.step(0.1 + k * SLOT_S) for k in range(40)]
        for gaze in gazes:
            assert_allowed(gaze, grid, Sight())
        intensity, _ = scheduler.snapshot(0.5)
        assert np.isfinite(intensity).all()


def test_a_snapshot_is_the_size_of_the_grid(make) -> None:
    grid = GRIDS["low"]
    scheduler = make(grid, Sight(), seed=3)
    for _ in drive(scheduler, grid, 100):
        pass
    intensity, tracks = scheduler.snapshot(100 * SLOT_S)
    assert intensity.shape == grid.shape
    assert intensity.dtype == np.float32
    assert (intensity >= 0).all()
    assert tracks.shape == (len(tracks), 4)
    assert tracks.dtype == np.float64
