from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeperc import plugin
from edgeperc.errors import ConfigError
from edgeperc.search.bayes import Bayes
from edgeperc.search.grid import Grid
from edgeperc.search.intake import Intake
from edgeperc.search.paper import SAMPLES, Paper, paper_wide
from edgeperc.search.prior import region_prior
from edgeperc.search.schedulers import Sight, draw_cells, ppm_iid, raster, raster_region, uniform

GRID, SIGHT = Grid(), Sight()
NONE = np.empty((0, 3))
SLOT_S = 1 / 120
ROAD = slice(60, 70)
WEIGHTS = {0: 0.1, 1: 0.9}


def street() -> NDArray[np.uint8]:
    labels = np.zeros(GRID.shape, np.uint8)
    labels[ROAD] = 1
    return labels


def gazes_of(scheduler, count: int, found=lambda gaze: NONE) -> NDArray[np.float64]:
    """Unpipelined: each look is observed before the next."""
    gazes = []
    for number in range(count):
        gaze = scheduler.step(number * SLOT_S)
        gazes.append(gaze)
        scheduler.observe((number + 1) * SLOT_S, gaze, found(gaze))
    return np.array(gazes)


def on_street(scheduler):
    scheduler.regions(0.0, street(), WEIGHTS)
    return scheduler


def test_gazes_and_cells_are_two_names_of_a_place() -> None:
    for x, y in ((0.0, 0.0), (128.0, 64.0), (250.5, 3.25)):
        assert GRID.cell(GRID.gaze(x, y)) == pytest.approx((x, y))
    right_up = GRID.gaze(200, 10)
    assert right_up.pan_rad > 0
    assert right_up.tilt_rad > 0
    np.testing.assert_allclose(
        GRID.cells(GRID.gazes()).reshape(*GRID.shape, 2)[3, 5], (5.5, 3.5), atol=1e-9
    )
    assert GRID.range.highest == GRID.gaze(256, 0)


def test_a_sweep_has_300_windows_to_and_fro_and_begins_again() -> None:
    gazes = gazes_of(raster(GRID, SIGHT), 600)
    assert len({tuple(gaze) for gaze in gazes}) == 300
    np.testing.assert_array_equal(gazes[:300], gazes[300:])
    assert np.abs(np.diff(gazes[:300], axis=0)).max() < 12  # never back to the line's beginning
    columns, rows = gazes[:, 0], gazes[:, 1]
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (6, 250, 6, 122)


def test_a_sweep_of_regions_leaves_out_what_the_prior_does() -> None:
    gazes = gazes_of(on_street(raster_region(GRID, SIGHT)), 200)
    rows = set(gazes[:, 1])
    assert rows
    assert all(54 < y < 76 for y in rows)
    assert len({tuple(gaze) for gaze in gazes}) == 25 * len(rows)


def test_cells_are_drawn_as_often_as_they_weigh() -> None:
    weights = np.array([[0.0, 1.0], [3.0, 0.0]])
    cells = draw_cells(weights, 4000, np.random.default_rng(0))
    assert {tuple(cell) for cell in cells.tolist()} == {(1, 0), (0, 1)}
    assert (cells[:, 1] == 1).mean() == pytest.approx(0.75, abs=0.03)


def test_uniform_looks_anywhere_and_ppm_where_the_prior_is() -> None:
    anywhere = gazes_of(on_street(uniform(GRID, SIGHT)), 600)
    likely = gazes_of(on_street(ppm_iid(GRID, SIGHT)), 600)
    road = (ROAD.start, ROAD.stop)
    inside = [((g[:, 1] >= road[0]) & (g[:, 1] < road[1])).mean() for g in (anywhere, likely)]
    assert inside[0] == pytest.approx(10 / 116, abs=0.05)
    assert inside[1] == pytest.approx(0.9, abs=0.05)


def test_paper_begins_with_a_round_from_the_prior() -> None:
    scheduler = on_street(Paper(GRID, SIGHT, seed=1))
    gazes = gazes_of(scheduler, 80)
    road = (gazes[:, 1] >= ROAD.start) & (gazes[:, 1] < ROAD.stop)
    assert road.mean() > 0.8
    l1 = np.abs(gazes[:, None] - gazes).sum(axis=2) + np.eye(80) * 99
    assert l1.min() * 60 / 256 >= 0.48  # thinned


def test_paper_spends_most_of_the_next_round_around_what_it_found() -> None:
    scheduler = on_street(Paper(GRID, SIGHT, seed=1))
    target = np.array([77.0, 64.0])

    def found(gaze):
        near = np.abs(gaze - target).max() <= SIGHT.half
        return np.array([[*target, 0.9]]) if near else NONE

    gazes = gazes_of(scheduler, 2 * SAMPLES, found)
    reach = 2.0 / 0.9 * 256 / 60
    around = np.abs(gazes - target).max(axis=1) <= reach + 1e-6
    assert around[:60].mean() < 0.2
    busiest = np.convolve(around, np.ones(60) / 60, "valid").max()
    assert busiest > 0.6


def test_the_wide_camera_raises_the_prior_of_its_extension_only() -> None:
    suspect = np.array([[200.0, 20.0, 0.9]])

    def looks_there(scheduler) -> int:
        scheduler.wide(0.0, suspect)
        gazes = gazes_of(on_street(scheduler), SAMPLES)
        return int((np.abs(gazes - (200, 20)).max(axis=1) < 6).sum())

    assert looks_there(Paper(GRID, SIGHT, seed=1)) <= 2
    assert looks_there(paper_wide(GRID, SIGHT, seed=1)) > 2


def covered(gazes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tenths of cells that lie in a look."""
    seen = np.zeros((GRID.height * 10, GRID.width * 10), np.bool_)
    for x, y in gazes:
        top, left = round((y - SIGHT.half) * 10), round((x - SIGHT.half) * 10)
        seen[top : top + 104, left : left + 104] = True
    return seen


def test_bayes_covers_a_street_with_looks_that_hardly_overlap() -> None:
    gazes = gazes_of(on_street(Bayes(GRID, SIGHT)), 24)
    road = covered(gazes)[ROAD.start * 10 : ROAD.stop * 10, 8:-8]
    assert road.mean() > 0.93  # 24 looks of 10.4 cells, a street of 254.4
    assert covered(gazes).sum() > 0.98 * 24 * 104**2


def test_bayes_looks_where_the_wide_camera_suspects_something() -> None:
    scheduler = on_street(Bayes(GRID, SIGHT))
    gazes_of(scheduler, 60)
    scheduler.wide(0.5, np.array([[200.0, 20.0, 0.9]]))
    gaze = np.array(scheduler.step(0.5))
    assert np.abs(gaze - (200, 20)).max() < SIGHT.half


def test_bayes_gives_up_a_suspicion_that_looks_disprove() -> None:
    scheduler = on_street(Bayes(GRID, SIGHT))
    looks = 0
    for number in range(240):
        now_s = number * SLOT_S
        if number % 12 == 0:
            scheduler.wide(now_s, np.array([[200.0, 20.0, 0.6]]))
        gaze = np.array(scheduler.step(now_s))
        looks += np.abs(gaze - (200, 20)).max() < SIGHT.half
        scheduler.observe(now_s + SLOT_S, gaze, NONE)
    assert 1 <= looks <= 6


def follow(scheduler, seconds: float, place) -> list[float]:
    """Times at which a target was seen."""
    seen = []
    for number in range(round(seconds / SLOT_S)):
        now_s = (number + 1) * SLOT_S
        gaze = np.array(scheduler.step(number * SLOT_S))
        target = np.array(place(now_s))
        near = np.abs(gaze - target).max() <= SIGHT.half
        scheduler.observe(now_s, gaze, np.array([[*target, 0.9]]) if near else NONE)
        if near:
            seen.append(now_s)
    return seen


def test_bayes_follows_a_target_that_moves() -> None:
    scheduler = on_street(Bayes(GRID, SIGHT))
    seen = follow(scheduler, 6.0, lambda t_s: (30 + 17 * t_s, 65.0))
    assert seen[0] < 0.5
    assert max(np.diff(seen)) < 0.8
    assert scheduler.map.speeds.mean()[1] == pytest.approx(17, abs=3)
    _, tracks = scheduler.snapshot(6.0)
    assert np.abs(tracks[:, 0] - (30 + 17 * 6.0)).min() < 2


def test_bayes_forgets_a_target_that_is_gone() -> None:
    scheduler = on_street(Bayes(GRID, SIGHT))
    follow(scheduler, 1.0, lambda t_s: (100.0, 65.0))
    assert len(scheduler.snapshot(1.0)[1]) == 1
    for number in range(120, 600):
        gaze = scheduler.step(number * SLOT_S)
        scheduler.observe((number + 1) * SLOT_S, gaze, NONE)
    assert len(scheduler.snapshot(5.0)[1]) == 0


def test_bayes_leaves_a_prior_that_is_wrong() -> None:
    """Targets are off the street only: soon looks go everywhere."""
    scheduler = on_street(Bayes(GRID, SIGHT))
    rng = np.random.default_rng(0)
    targets = np.column_stack([rng.uniform(5, 250, 20), rng.uniform(80, 120, 20)])

    def found(gaze):
        near = np.abs(targets - gaze).max(axis=1) <= SIGHT.half
        return np.column_stack([targets[near], np.full(near.sum(), 0.8)])

    assert scheduler.map.rates.trust > 0.8
    gazes = gazes_of(scheduler, 480, found)
    assert scheduler.map.rates.trust < 0.05
    assert covered(gazes)[60:-60, 60:-60].mean() > 0.9


def test_bayes_does_not_look_twice_before_it_knows() -> None:
    """Pipelined: the look decided last is not observed yet when the next is decided."""
    scheduler = on_street(Bayes(GRID, SIGHT))
    gazes = [scheduler.step(0.0)]
    for number in range(1, 24):
        gazes.append(scheduler.step(number * SLOT_S))
        scheduler.observe(number * SLOT_S, gazes[-2], NONE)
    assert covered(np.array(gazes)).sum() > 0.98 * 24 * 104**2


def test_bayes_does_not_look_at_a_track_twice_before_it_knows() -> None:
    scheduler = on_street(Bayes(GRID, SIGHT))
    target = (100.0, 30.0)
    scheduler.observe(0.0, scheduler.step(0.0), np.array([[*target, 0.9]]))
    scheduler.wide(0.3, NONE)
    scheduler.map.layers[:] = 0.0  # nothing else is worth a look
    scheduler.map.renew()
    near = []
    last = None
    for number in range(4):
        gaze = scheduler.step(0.4 + number * SLOT_S)
        near.append(bool(np.abs(np.subtract(gaze, target)).max() <= SIGHT.half))
        if last:
            scheduler.observe(0.4 + number * SLOT_S, last, NONE)
        last = gaze
    assert near == [True, False, True, False]


def test_bayes_looks_again_where_a_look_was_lost_or_went_elsewhere() -> None:
    for measured in ("lost", "elsewhere"):
        scheduler = on_street(Bayes(GRID, SIGHT))
        gazes = [scheduler.step(k * SLOT_S) for k in range(2)]
        if measured == "lost":
            scheduler.observe(SLOT_S, gazes[1], NONE)
        else:
            scheduler.observe(0.0, (gazes[0][0], gazes[0][1] + 40), NONE)
            scheduler.observe(SLOT_S, gazes[1], NONE)
        later = list(islice((scheduler.step(0.02) for _ in range(30)), 30))
        assert any(np.abs(np.subtract(gaze, gazes[0])).max() < 4 for gaze in later), measured


def test_bayes_weighs_what_a_look_is_worth_against_its_time() -> None:
    """With slots of 1 ms the far one takes twice as long, with usual ones no longer."""
    for slot_s, chosen in ((1 / 120, 1), (1e-3, 0)):
        scheduler = Bayes(GRID, Sight(slot_s=slot_s))
        x, y = scheduler.step(0.0)
        suspects = np.array([[x + 15, y, 0.5], [225.0, 12.0, 0.95]])
        scheduler.wide(0.01, suspects)
        gaze = scheduler.step(0.01)
        assert np.abs(np.subtract(gaze, suspects[chosen, :2])).max() < SIGHT.half


def test_time_stands_still_until_a_late_clock_has_caught_up() -> None:
    intake = Intake(GRID)
    times = [intake.time(t_s) for t_s in (5.0, 4.9, np.nan, 5.1)]
    assert times == [5.0, 5.0, 5.0, 5.1]
    put_back = [intake.time(t_s) for t_s in (1.0, 1.1, 1.3)]
    np.testing.assert_allclose(put_back, [5.1, 5.2, 5.4])


def test_costs_of_turns_reach_everywhere_and_grow() -> None:
    for slot_s in (0.0, 1e-3, 1 / 120, 1.0):
        sight = Sight(slot_s=slot_s)
        turns = list(sight.turns(GRID))
        costs, reaches = np.array(turns).T
        assert len(turns) <= 8
        assert (np.diff(costs) > 0).all()
        assert reaches[-1] >= GRID.width
        for cost_s, reach in turns[:-1]:
            assert sight.cost_s(reach - 1e-6) <= cost_s + 1e-9


def test_the_prior_is_even_where_no_weight_is_present() -> None:
    np.testing.assert_allclose(region_prior(street(), {9: 1.0}), 1 / (256 * 128))


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"scheduler": "bayes", "expected": 0.0}, "expected"),
        ({"scheduler": "bayes", "expectation": 3.0}, "expectation"),
        ({"scheduler": "raster", "seed": -1}, "seed"),
        ({"scheduler": "paper", "seed": "one"}, "seed"),
    ],
)
def test_options_of_an_operator_are_checked(table, complaint, tmp_path) -> None:
    injected = {"grid": GRID, "sight": SIGHT}
    with pytest.raises(ConfigError, match=complaint):
        plugin.prepare(
            table, kind="scheduler", where="[search]", folder=tmp_path, injected=injected
        )


def test_an_operator_may_say_how_many_targets_to_expect(tmp_path) -> None:
    make = plugin.prepare(
        {"scheduler": "bayes", "expected": 5.0},
        kind="scheduler", where="[search]", folder=tmp_path,
        injected={"grid": GRID, "sight": SIGHT},
    )  # fmt: skip
    assert make().snapshot(0.0)[0].sum() == pytest.approx(5.0, rel=0.02)
