from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeperc.twin.avenue import FIELD_SLOPE, PERSON, VEHICLE, Avenue
from edgeperc.twin.plots import BEHIND_ALL, REGIONS

STEP_S = 0.2


def same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return a.tobytes() == b.tobytes()


@pytest.fixture(scope="module", params=range(4))
def minute(request: pytest.FixtureRequest) -> tuple[Avenue, list[NDArray[Any]]]:
    avenue = Avenue(request.param)
    return avenue, [avenue.movers(STEP_S * k) for k in range(300)]


@given(seed=st.integers(0, 10**9), times_s=st.lists(st.floats(-1e3, 1e6), min_size=1, max_size=4))
@settings(deadline=None, max_examples=25)
def test_a_moment_does_not_depend_on_what_was_asked_before(seed: int, times_s: list[float]) -> None:
    wandering = Avenue(seed)
    for time_s in times_s:
        wandering.movers(time_s)
    assert same(wandering.movers(times_s[0]), Avenue(seed).movers(times_s[0]))
    assert same(wandering.plots.quads, Avenue(seed).plots.quads)


def test_another_seed_is_another_avenue() -> None:
    a, b = Avenue(1), Avenue(2)
    assert not same(a.movers(0.0), b.movers(0.0))
    assert not same(a.plots.quads, b.plots.quads)


def test_identities_are_of_one_and_come_and_go_outside_the_field(
    minute: tuple[Avenue, list[NDArray[Any]]],
) -> None:
    _, moments = minute
    came = 0
    for before, after in pairwise(moments):
        assert len(np.unique(after["identity"])) == len(after)
        for here, there in ((before, after), (after, before)):
            gone = here[~np.isin(here["identity"], there["identity"])]
            inner_m = np.minimum(np.abs(gone["x0"]), np.abs(gone["x1"]))
            assert np.all(inner_m > (FIELD_SLOPE - 0.03) * gone["z"])
            came += len(gone)
    assert came > 5


def test_people_walk_and_vehicles_drive_as_fast_as_they_may(
    minute: tuple[Avenue, list[NDArray[Any]]],
) -> None:
    _, moments = minute
    fastest = {PERSON: 0.0, VEHICLE: 0.0}
    for before, after in pairwise(moments):
        _, i, j = np.intersect1d(before["identity"], after["identity"], return_indices=True)
        for kind, so_far in fastest.items():
            a, b = before[i], after[j]
            chosen = a["kind"] == kind
            moved_m = np.abs(b["x0"] + b["x1"] - a["x0"] - a["x1"])[chosen] / 2
            speeds = np.degrees(moved_m / a["z"][chosen] / STEP_S)
            fastest[kind] = max(so_far, float(speeds.max(initial=0)))
    assert 0.1 < fastest[PERSON] <= 0.6
    assert 1.0 < fastest[VEHICLE] <= 4.0


def test_nobody_drives_through_anybody(minute: tuple[Avenue, list[NDArray[Any]]]) -> None:
    _, moments = minute
    for sprites in moments:
        vehicles = sprites[sprites["kind"] == VEHICLE]
        for track in np.unique(vehicles["track"]):
            lane = np.sort(vehicles[vehicles["track"] == track], order="x0")
            assert np.all(lane["x0"][1:] > lane["x1"][:-1])


def test_a_mover_faces_the_way_it_goes(minute: tuple[Avenue, list[NDArray[Any]]]) -> None:
    _, moments = minute
    a, b = moments[0], moments[1]
    _, i, j = np.intersect1d(a["identity"], b["identity"], return_indices=True)
    moved_m = b["x0"][j] + b["x1"][j] - a["x0"][i] - a["x1"][i]
    going = np.abs(moved_m) > 1e-3
    assert np.array_equal(moved_m[going] > 0, a["flipped"][i][going] == 1)


def test_tracks_and_ranks_say_who_hides_whom(minute: tuple[Avenue, list[NDArray[Any]]]) -> None:
    avenue, moments = minute
    for sprites in moments[:5]:
        assert np.all(np.diff(sprites["z"]) >= 0)
        assert np.array_equal(avenue.tracks_m[sprites["track"]], sprites["z"])
    assert len(avenue.tracks_m) <= BEHIND_ALL
    quads = avenue.plots.quads
    rank, region = quads["kind"] >> 3, quads["kind"] & 7
    assert np.all(np.diff(quads["z0"]) >= 0)
    assert np.array_equal(rank, np.searchsorted(avenue.tracks_m, quads["z0"].astype(float)))
    assert {REGIONS[k] for k in region} == {"building", "tree", "object"}


def test_a_field_holds_about_twenty() -> None:
    people, vehicles = [], []
    for seed in range(30):
        sprites = Avenue(seed).movers(7.0)
        middle = (sprites["x0"] + sprites["x1"]) / 2
        kinds = sprites["kind"][np.abs(middle) < math.tan(math.radians(30)) * sprites["z"]]
        people.append(np.count_nonzero(kinds == PERSON))
        vehicles.append(np.count_nonzero(kinds == VEHICLE))
    assert 16 < np.mean(people) + np.mean(vehicles) < 28
    assert np.mean(people) > 6
    assert np.mean(vehicles) > 6
    assert np.std(np.add(people, vehicles)) > 2
