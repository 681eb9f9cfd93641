from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeperc.bench.search_compare import Settings, compare
from edgeperc.bench.search_world import Conditions, World
from edgeperc.search.bound import koopman, whole_looks
from edgeperc.search.grid import Grid
from edgeperc.search.schedulers import Sight

SIGHT = Sight()
LOOKS = (30, 60, 120, 240, 480)


def prior_of(seed: int) -> np.ndarray:
    return World(seed, Conditions(static=True, wide=False), Grid(), SIGHT).prior


def test_on_an_even_prior_effort_spreads_evenly() -> None:
    prior = np.full((10, 40), 1 / 400)
    for looks in (1, 7, 60):
        share = koopman(prior, looks, half=1.0, pd=0.9)
        assert share == pytest.approx(1 - 0.1 ** (looks * 4 / 400), rel=1e-6)


def test_one_look_that_covers_everything_finds_what_it_detects() -> None:
    prior = np.random.default_rng(0).random((4, 4))
    prior /= prior.sum()
    assert whole_looks(prior, 1, half=2.0, pd=0.7) == pytest.approx(0.7)
    assert koopman(np.full((4, 4), 1 / 16), 1, half=2.0, pd=0.7) == pytest.approx(0.7)


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.99), st.integers(1, 200))
@settings(max_examples=40, deadline=None)
def test_bounds_grow_with_effort_and_stay_in_order(seed, pd, looks) -> None:
    prior = np.random.default_rng(seed).random((12, 20)) ** 6
    prior /= prior.sum()
    whole = [whole_looks(prior, n, half=0.8, pd=pd) for n in (looks, looks + 1)]
    loose = [koopman(prior, n, half=0.8, pd=pd) for n in (looks, looks + 1)]
    assert 0 < whole[0] <= whole[1] <= 1 + 1e-9
    assert loose[0] <= loose[1] <= 1 + 1e-9
    assert whole[0] <= loose[0] + 1e-6


def test_nothing_is_found_without_effort() -> None:
    prior = np.full((5, 5), 0.04)
    assert koopman(prior, 0, half=1.0, pd=0.9) == whole_looks(prior, 0, half=1.0, pd=0.9) == 0
    assert koopman(prior, 3, half=1.0, pd=0.0) == 0


def test_the_bound_of_the_world_is_the_published_one() -> None:
    """search.md, section 6: .664, .847, .960, .995 for seeds 100 to 119."""
    bounds = [[koopman(prior_of(s), n, half=5.2, pd=0.92) for n in LOOKS] for s in range(20)]
    np.testing.assert_allclose(np.mean(bounds, axis=0), [0.664, 0.847, 0.960, 0.995, 1], atol=0.02)


def test_no_scheduler_finds_more_than_the_bound() -> None:
    assert_below_the_bound(
        ("bayes", "raster_region"), Settings(first_seed=0, last_seed=3, processes=1), 0.12
    )


@pytest.mark.slow
def test_no_scheduler_finds_more_than_the_bound_in_twenty_worlds() -> None:
    everyone = ("bayes", "paper", "paper_wide", "raster", "raster_region", "uniform", "ppm_iid")
    assert_below_the_bound(everyone, Settings(first_seed=600, last_seed=619), 0.03)


def assert_below_the_bound(names: tuple[str, ...], worlds: Settings, slack: float) -> None:
    found = compare(names, worlds, lambda _: None, scenes=("static",))
    for name in names:
        shares = np.mean([o.found for o in found.outcomes["static", name]], axis=0)
        assert (shares <= found.koopman.mean(axis=0) + slack).all(), name
