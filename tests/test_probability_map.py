from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeperc.search import kernels
from edgeperc.search.grid import Grid
from edgeperc.search.prior import region_prior
from edgeperc.search.probability_map import SIDE, ProbabilityMap
from edgeperc.search.region_rates import RegionRates
from edgeperc.search.region_speeds import RegionSpeeds
from edgeperc.search.schedulers import Sight

SHAPE = (24, 31)
seeds = st.integers(0, 2**32 - 1)
GRID = Grid()


class Maps:
    """Random maps of the kernels."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.rng = rng
        self.layers = rng.random((4, *SHAPE), np.float32)
        self.layers[2:] += self.layers[:2]
        self.suspected = rng.random(SHAPE, np.float32) * 0.1
        self.labels = rng.integers(0, 4, SHAPE).astype(np.uint8)
        self.rates = rng.random(256)
        self.worth = worth(self.layers, self.suspected, self.labels, self.rates)

    def tuple(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        return self.layers, self.suspected, self.worth


# Plain numpy, what the kernels must compute.


def worth(layers, suspected, labels, rates):
    return (rates[labels] * layers[2:].mean(axis=0) + suspected).astype(np.float32)


def looked(layers, suspected, labels, window, pd):
    top, left, side = window
    block = np.s_[max(top, 0) : top + side, max(left, 0) : left + side]
    searched = np.zeros(256)
    unseen = layers[:2].mean(axis=0)[block]
    np.add.at(searched, labels[block], pd * unseen)
    layers, suspected = layers.copy(), suspected.copy()
    layers[(np.s_[:], *block)] *= 1 - pd
    suspected[block] *= 1 - pd
    return layers, suspected, searched


def scored(values, side, frame, share):
    height, width = values.shape
    out = np.empty((height - side + 1, width - side + 1))
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            inner = values[y : y + side, x : x + side].sum()
            outer = values[
                max(y - frame, 0) : y + side + frame, max(x - frame, 0) : x + side + frame
            ].sum()
            out[y, x] = inner - share * (outer - inner)
    return out


def flowed(layers, labels, moved, across, down, recovery, growth, fresh):
    height, width = labels.shape
    out = np.empty_like(layers)
    for k, layer in enumerate(layers):
        source = np.arange(width) - (1, -1)[k % 2] * moved[labels]
        outside = 1.0 if k < 2 else fresh
        padded = np.pad(layer, ((0, 0), (60, 60)), constant_values=outside)
        shifted = np.array(
            [np.interp(source[y], np.arange(-60, width + 60), padded[y]) for y in range(height)]
        )
        reach = across.size // 2
        padded = np.pad(shifted, ((0, 0), (reach, reach)), constant_values=outside)
        blurred = sum(a * padded[:, i : i + width] for i, a in enumerate(across))
        reach = down.size // 2
        padded = np.pad(blurred, ((reach, reach), (0, 0)), mode="edge")
        blurred = sum(d * padded[i : i + height] for i, d in enumerate(down))
        out[k] = recovery * outside + (1 - recovery) * blurred
    out[2:] += growth * out[:2]
    return out


@given(seeds, st.integers(-15, 30), st.integers(-15, 35), st.floats(0.1, 0.99))
@settings(max_examples=40, deadline=None)
def test_a_look_thins_what_it_covers_and_nothing_else(seed, top, left, pd) -> None:
    maps = Maps(seed)
    window = (top, left, 9)
    if top + 9 <= 0 or left + 9 <= 0:
        window = (0, 0, 9)
    layers, suspected, searched = looked(maps.layers, maps.suspected, maps.labels, window, pd)
    got = np.zeros(256)
    kernels.look(maps.tuple(), maps.labels, maps.rates, window, pd, got)
    np.testing.assert_allclose(maps.layers, layers, rtol=1e-5)
    np.testing.assert_allclose(maps.suspected, suspected, rtol=1e-5)
    np.testing.assert_allclose(
        maps.worth, worth(layers, suspected, maps.labels, maps.rates), rtol=1e-4
    )
    np.testing.assert_allclose(got, searched, rtol=1e-4)


@given(seeds, st.floats(0.1, 0.95))
@settings(max_examples=20, deadline=None)
def test_a_look_taken_back_leaves_no_trace(seed, pd) -> None:
    maps, before = Maps(seed), Maps(seed)
    window = (5, 7, 9)
    kernels.look(maps.tuple(), maps.labels, maps.rates, window, pd, np.zeros(256))
    kernels.unlook(maps.tuple(), maps.labels, maps.rates, window, pd)
    for now, then in zip(maps.tuple(), before.tuple(), strict=True):
        np.testing.assert_allclose(now, then, rtol=1e-4, atol=1e-6)


@given(seeds, st.integers(0, 4), st.floats(0, 0.5))
@settings(max_examples=20, deadline=None)
def test_scores_are_sums_of_squares_less_a_share_of_their_frames(seed, frame, share) -> None:
    maps = Maps(seed)
    side = 7
    scores = np.full((SHAPE[0] - side + 1, SHAPE[1] - side + 1), -1, np.float32)
    part = (2, 15, 3, 20)
    kernels.score(maps.worth, side, (frame, share), part, scores)
    wanted = scored(maps.worth.astype(np.float64), side, frame, share)
    block = np.s_[part[0] : part[1], part[2] : part[3]]
    np.testing.assert_allclose(scores[block], wanted[block], rtol=1e-5, atol=1e-6)
    scores[block] = -1
    assert (scores == -1).all()


def test_equal_squares_have_equal_scores() -> None:
    """Whatever lies before them, so that the first of them is chosen on every machine."""
    values = np.random.default_rng(0).random((40, 90)).astype(np.float32)
    values[:, 45:] = values[:, :45]
    scores = np.zeros((34, 84), np.float32)
    kernels.score(values, 7, (0, 0.0), (0, 34, 0, 84), scores)
    np.testing.assert_array_equal(scores[:, :39], scores[:, 45:])


@given(seeds, st.floats(0, 0.2), st.floats(0, 0.1), st.floats(0.01, 9))
@settings(max_examples=20, deadline=None)
def test_time_shifts_and_blurs_what_is_unseen(seed, recovery, growth, fast) -> None:
    maps = Maps(seed)
    moved = np.linspace(0, fast, 256) * 64
    across, down = (np.array(w, np.float32) for w in ([0.1, 0.2, 0.4, 0.2, 0.1], [0.2, 0.5, 0.3]))
    wanted = flowed(maps.layers, maps.labels, moved, across, down, recovery, growth, 0.4)
    kernels.flow(maps.layers, maps.labels, moved, (across, down), (recovery, growth, 0.4))
    np.testing.assert_allclose(maps.layers, wanted, rtol=2e-4, atol=1e-5)


def street() -> NDArray[np.uint8]:
    labels = np.zeros(GRID.shape, np.uint8)
    labels[60:72] = 1
    return labels


def street_map() -> ProbabilityMap:
    grid_map = ProbabilityMap(GRID, Sight())
    grid_map.regions(street(), {0: 0.1, 1: 0.9})
    return grid_map


def test_the_map_begins_with_the_expected_targets_where_the_prior_has_them() -> None:
    intensity = street_map().grid_intensity()
    assert intensity.sum() == pytest.approx(20, rel=0.02)
    assert intensity[60:72].sum() == pytest.approx(
        20 * (0.9 * (0.98 * 0.9 + 0.02 * 12 / 128) + 0.1 * 12 / 128), rel=0.06
    )


def test_a_look_covers_exactly_its_square_and_neighbours_fit_without_a_gap() -> None:
    grid_map = street_map()
    before = grid_map.grid_intensity().sum()
    sight = Sight()
    for k in range(4):
        grid_map.look(60.4 + k * 2 * sight.half, 66.0)
    left = grid_map.layers[0]
    thinned = left < 0.5
    assert thinned.sum() == 4 * SIDE**2
    np.testing.assert_allclose(left[thinned], 1 - sight.pd, rtol=1e-5)
    assert grid_map.grid_intensity().sum() < before


def test_scores_renewed_around_a_look_are_those_renewed_everywhere() -> None:
    rng = np.random.default_rng(0)
    grid_map = street_map()
    for _ in range(50):
        x, y = Sight().clamp(GRID, *(rng.random(2) * (256, 128)))
        grid_map.look(x, y)
    grid_map.unlook(x, y)
    kept = grid_map.scores.copy()
    grid_map.rescore()
    np.testing.assert_allclose(kept, grid_map.scores, rtol=1e-4, atol=1e-7)


def test_what_was_seen_is_unseen_again_from_the_sides() -> None:
    grid_map = street_map()
    grid_map.layers[:] = 0.0
    grid_map.speeds.learn(np.full(50, 1, np.uint8), np.full(50, 10.0))
    for _ in range(10):
        grid_map.pass_time(0.1)
    unseen = grid_map.layers[:2].mean(axis=0)
    road, column = grid_map.index(0, 66)[0], round(5 / grid_map.cell)
    assert unseen[road, column] > 0.45  # half of the targets there have come in
    assert unseen[road, 160] < 0.05
    assert unseen[road, -column] > 0.45


def test_a_suspicion_raises_the_mass_once_until_it_is_disproved() -> None:
    grid_map = street_map()
    begin = grid_map.grid_intensity()
    for _ in range(5):
        grid_map.suspect(100.0, 30.0, 0.9)
    raised = grid_map.grid_intensity() - begin
    y, x = np.unravel_index(raised.argmax(), raised.shape)
    assert abs(x - 100) <= 5
    assert abs(y - 30) <= 4
    assert begin[27:33, 96:104].sum() + raised.sum() == pytest.approx(0.36, rel=0.2)
    grid_map.look(100.0, 30.0)
    grid_map.disprove(100.0, 30.0)
    before = grid_map.grid_intensity().sum()
    grid_map.suspect(100.0, 30.0, 0.9)
    assert grid_map.grid_intensity().sum() - before < 0.15


def told(hits: list[int], searched: dict[int, float]) -> RegionRates:
    """Rates of a field of 1000 cells, 100 of them (label 1) with nearly all targets promised."""
    rates = RegionRates(20.0, 1.0)
    labels = np.zeros(1000, np.uint8)
    labels[:100] = 1
    rates.regions(labels.reshape(25, 40), {0: 0.05, 1: 0.95})
    area = np.zeros(256)
    for label, cells in searched.items():
        area[label] = cells
    rates.looked(area)
    rates.found(np.array(hits, np.uint8), np.ones(len(hits), np.float32))
    rates.renew()
    return rates


def test_the_prior_is_trusted_until_looks_contradict_it() -> None:
    begin = told([], {})
    assert begin.trust == pytest.approx(0.9)
    assert begin.rates[1] > 20 * begin.rates[0]
    as_promised = told([1] * 5, {1: 25.0})
    assert as_promised.trust > 0.97
    assert told([], {1: 50.0}).trust < 0.1
    contradicted = told([0, 0, 0], {1: 25.0, 0: 100.0})
    assert contradicted.trust < 0.05
    # Then all cells are nearly alike, though nobody has looked at most of them.
    assert contradicted.rates[1] < 2 * contradicted.rates[0]


def test_empty_looks_lower_a_rate_and_hits_raise_it() -> None:
    begin = told([], {})
    assert told([], {1: 50.0}).rates[1] < begin.rates[1]
    assert told([1] * 30, {1: 50.0}).rates[1] > begin.rates[1]


def test_one_false_alarm_does_not_overthrow_the_prior() -> None:
    assert told([1] * 5 + [0], {1: 25.0}).trust > 0.5


def test_old_evidence_fades() -> None:
    rates = told([1] * 30, {1: 50.0})
    begin = told([], {}).rates[1]
    raised = rates.rates[1]
    rates.forget(600.0)
    assert begin < raised
    assert rates.renew()[1] / rates.trust == pytest.approx(begin / 0.9, rel=0.1)


def test_speeds_are_learned_by_region() -> None:
    speeds = RegionSpeeds()
    speeds.learn(np.array([3, 3, 3, 3], np.uint8), np.array([10.0, -10.0, 12.0, -12.0]))
    assert 8 < speeds.mean()[3] < 11
    assert speeds.mean()[2] == RegionSpeeds().mean()[2]
    for _ in range(400):
        speeds.learn(np.array([3], np.uint8), np.array([2.0]))
    assert speeds.mean()[3] == pytest.approx(2.0, abs=1.5)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_a_region_has_its_weight_however_large_it_is(seed) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, (20, 30)).astype(np.uint8)
    prior = region_prior(labels, {0: 1.0, 1: 3.0, 7: 5.0})
    assert prior.sum() == pytest.approx(1)
    assert prior[labels == 1].sum() == pytest.approx(0.75)
    assert prior[labels == 2].sum() == 0
