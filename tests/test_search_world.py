from __future__ import annotations

import math

import numpy as np
import pytest

from edgeperc.bench.search_compare import factory
from edgeperc.bench.search_world import (
    ROAD,
    SKY,
    WEIGHTS,
    Conditions,
    Outcome,
    World,
    search,
)
from edgeperc.search.grid import Grid
from edgeperc.search.schedulers import Sight

GRID, SIGHT = Grid(), Sight()

# search.md, section 6, seeds 100 to 119: found by .25, .5, 1, 2, 4, 8 s, median time to detect,
# share missed, mean age.
PUBLISHED = {
    ("base", "raster"): ((0.00, 0.00, 0.07, 0.70, 0.88, 0.93), 1.72, 0.061, 1.46),
    ("base", "raster_region"): ((0.21, 0.60, 0.89, 0.93, 0.93, 0.93), 0.44, 0.061, 0.75),
    ("base", "paper"): ((0.18, 0.36, 0.72, 0.84, 0.93, 0.96), 0.72, 0.043, 1.02),
    ("base", "paper_wide"): ((0.18, 0.36, 0.72, 0.85, 0.95, 0.96), 0.70, 0.036, 0.92),
    ("no_wide", "raster"): ((0.00, 0.00, 0.06, 0.69, 0.87, 0.93), 1.76, 0.061, 1.45),
    ("no_wide", "raster_region"): ((0.21, 0.57, 0.86, 0.93, 0.93, 0.93), 0.46, 0.063, 0.76),
    ("no_wide", "paper"): ((0.16, 0.35, 0.72, 0.84, 0.94, 0.96), 0.72, 0.034, 1.00),
    ("bad_prior", "raster"): ((0.08, 0.18, 0.37, 0.69, 0.92, 0.95), 1.37, 0.045, 1.53),
    ("bad_prior", "raster_region"): ((0.08, 0.17, 0.26, 0.30, 0.30, 0.30), np.inf, 0.695, 4.63),
    ("bad_prior", "paper"): ((0.05, 0.12, 0.20, 0.26, 0.32, 0.38), np.inf, 0.604, 4.43),
    ("bad_prior", "paper_wide"): ((0.05, 0.12, 0.20, 0.36, 0.50, 0.55), 4.03, 0.430, 3.39),
    ("static", "raster_region"): ((0.21, 0.59, 0.88, 0.94, 0.94, 0.94), 0.44, 0.058, 0.82),
    ("static", "paper"): ((0.17, 0.38, 0.73, 0.85, 0.94, 0.97), 0.67, 0.020, 0.97),
}
SCENES = {
    "base": Conditions(),
    "no_wide": Conditions(wide=False),
    "static": Conditions(static=True, wide=False),
    "bad_prior": Conditions(bad_prior=True),
}


def world(seed: int = 0, **conditions: object) -> World:
    return World(seed, Conditions(**conditions), GRID, SIGHT)


def test_the_prior_puts_most_targets_on_roads_and_none_in_the_sky() -> None:
    here = world()
    assert here.prior.sum() == pytest.approx(1)
    assert here.prior[here.labels == ROAD].sum() == pytest.approx(WEIGHTS[ROAD])
    assert here.prior[here.labels == SKY].sum() == 0


def test_targets_are_drawn_from_the_prior_or_from_anywhere() -> None:
    for bad_prior, low, high in ((False, 0.75, 0.95), (True, 0.1, 0.35)):
        on_road = []
        for seed in range(20):
            here = world(seed, bad_prior=bad_prior, targets=30)
            cells = here.targets.y.astype(int), here.targets.x.astype(int)
            on_road.append((here.labels[cells] == ROAD).mean())
        assert low < np.mean(on_road) < high


def test_targets_that_leave_are_replaced_by_others() -> None:
    here = world(1)
    for step in range(1, 1200):
        here.advance(step / 120)
        assert ((here.targets.x >= 0) & (here.targets.x <= GRID.width)).all()
        born_now = np.take(here.births_s, here.targets.identity) == here.now_s
        assert np.isin(here.targets.x[born_now], (0.5, GRID.width - 0.5)).all()
    assert len(here.births_s) > 22
    assert len(set(here.targets.identity)) == 20
    newest = here.births_s[-1]
    assert 0 < newest < 10


def test_targets_at_rest_stay() -> None:
    here = world(1, static=True)
    before = here.targets.x.copy()
    here.advance(9.0)
    np.testing.assert_array_equal(here.targets.x, before)


def test_a_look_sees_what_is_near_and_notes_when() -> None:
    here = world(2, static=True, pd=1.0)
    here.now_s = 1.5
    k = 4
    gaze = float(here.targets.x[k]) + 5.1, float(here.targets.y[k]) - 5.1
    found = here.look(gaze)
    assert np.abs(found[:, :2] - (here.targets.x[k], here.targets.y[k])).max(axis=1).min() < 0.5
    assert here.first_s[here.targets.identity[k]] == 1.5
    off = (float(here.targets.x[k]) + 5.3, float(here.targets.y[k]))
    here = world(2, static=True, pd=1.0)
    here.look(off)
    assert math.isinf(here.first_s[here.targets.identity[k]])


def test_a_look_detects_as_often_as_it_should() -> None:
    here = world(3, static=True, pd=0.7)
    gaze = float(here.targets.x[0]), float(here.targets.y[0])
    inside = np.maximum(np.abs(here.targets.x - gaze[0]), np.abs(here.targets.y - gaze[1])) <= 5.2
    hits = sum(len(here.look(gaze)) for _ in range(2000))
    assert hits / 2000 == pytest.approx(0.7 * inside.sum(), abs=0.05)


def test_the_wide_detector_sees_large_targets_and_some_clutter() -> None:
    here = world(4, static=True, targets=40)
    frames = [here.wide() for _ in range(300)]
    large = here.targets.size_px + here.targets.bias_px > 32
    place = np.stack([here.targets.x, here.targets.y], axis=1)

    def seen(k: int) -> float:
        return np.mean([(np.abs(f[:, :2] - place[k]).max(axis=1) < 1.5).any() for f in frames])

    assert min(seen(k) for k in np.flatnonzero(large)) > 0.8
    assert np.mean([len(f) for f in frames]) > large.sum()
    assert world(4, wide=False).wide().shape == (0, 3)


def test_the_same_seed_is_the_same_search() -> None:
    first, second = (search(factory("bayes"), 5, Conditions(), span_s=4.0) for _ in range(2))
    np.testing.assert_array_equal(first.gazes, second.gazes)
    np.testing.assert_array_equal(first.ttd_s, second.ttd_s)


def test_slots_and_turns_take_their_time() -> None:
    slot = Sight()
    assert slot.cost_s(0) == pytest.approx(1 / 120)
    assert slot.cost_s(228) == pytest.approx(1 / 120)
    assert slot.cost_s(232) == pytest.approx(2 / 120)  # beyond 53.9 deg
    assert Sight(slot_s=0.0).cost_s(0) == pytest.approx(2.4e-3)
    outcome = search(factory("raster"), 0, Conditions(), span_s=4.0)
    assert len(outcome.gazes) == pytest.approx(4 * 120, abs=3)


def off_by(outcomes: list[Outcome], published: tuple) -> float:
    """The largest deviation in standard errors of either run, of what is near normal."""
    found, _, missed, age_s = published
    worst = 0.0
    for values, wanted in (
        *zip(np.array([o.found for o in outcomes]).T, found, strict=True),
        (np.array([np.isinf(o.ttd_s).mean() for o in outcomes]), missed),
        (np.array([o.age_mean_s for o in outcomes]), age_s),
    ):
        # Both are means of as many worlds. The table is rounded to .01.
        error = max(np.std(values, ddof=1) * math.sqrt(1 / len(values) + 1 / 20), 0.003)
        gap = max(abs(np.mean(values) - wanted) - 0.005, 0.0)
        worst = max(worst, gap / error)
    return worst


@pytest.mark.parametrize("name", ["raster", "paper"])
def test_a_few_worlds_are_like_the_published_ones(name) -> None:
    outcomes = [search(factory(name), seed, SCENES["base"]) for seed in range(100, 108)]
    assert off_by(outcomes, PUBLISHED["base", name]) < 3.5


@pytest.mark.slow
@pytest.mark.parametrize(("scene", "name"), PUBLISHED)
def test_the_worlds_are_like_the_published_ones(scene, name) -> None:
    outcomes = [search(factory(name), seed, SCENES[scene]) for seed in range(100, 120)]
    published = PUBLISHED[scene, name]
    assert off_by(outcomes, published) < 2.5
    ttd_s = np.sort(np.concatenate([o.ttd_s for o in outcomes]))
    median_s = ttd_s[ttd_s.size // 2]
    assert median_s == published[1] or abs(median_s / published[1] - 1) < 0.15


@pytest.mark.slow
def test_the_oracle_is_as_good_as_the_published_one() -> None:
    """search.md, section 6, seeds 0 to 9: median time to detect .05 s, mean age .09 s."""
    outcomes = [search(factory("oracle"), seed, SCENES["base"]) for seed in range(10)]
    ttd_s = np.sort(np.concatenate([o.ttd_s for o in outcomes]))
    assert ttd_s[ttd_s.size // 2] == pytest.approx(0.05, abs=0.01)
    assert np.mean([o.age_mean_s for o in outcomes]) == pytest.approx(0.09, abs=0.015)
