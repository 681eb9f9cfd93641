from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeperc.search import tracks
from edgeperc.search.tracks import AGE, MOST, PX, SX, Tracks


def seen(*places: tuple[float, float]) -> NDArray[np.float64]:
    return np.array([[x, y, 0.9] for x, y in places])


def filtered(times_s, places):
    """The constant-velocity Kalman filter with matrices, started like a track."""
    state, covariance = np.array([places[0], 0.0]), np.diag([0.05, 100.0])
    for before, now, x in zip(times_s, times_s[1:], places[1:], strict=False):
        a = now - before
        f = np.array([[1, a], [0, 1]])
        q = 40.0 * np.array([[a**3 / 3, a**2 / 2], [a**2 / 2, a]])
        state, covariance = f @ state, f @ covariance @ f.T + q
        gain = covariance[:, 0] / (covariance[0, 0] + 0.03)
        state = state + gain * (x - state[0])
        covariance = covariance - np.outer(gain, covariance[0])
    return state, covariance


def test_a_track_is_a_kalman_filter() -> None:
    rng = np.random.default_rng(0)
    times_s = np.cumsum(rng.uniform(0.1, 0.3, 12))
    places = 50 + 8 * times_s + rng.normal(0, 0.1, 12)
    followed = Tracks(0.92)
    followed.add(times_s[0], seen((places[0], 20)))
    for t_s, x in zip(times_s[1:], places[1:], strict=True):
        hits, new = followed.update(t_s, seen((x, 20)))
        assert hits.all()
        assert not len(new)
    state, covariance = filtered(times_s, places)
    row = followed.rows[0]
    np.testing.assert_allclose(row[[tracks.X, tracks.SPEED]], state, rtol=1e-9)
    np.testing.assert_allclose(
        row[[tracks.P00, tracks.P01, tracks.P11]], covariance[[0, 0, 1], [0, 1, 1]], rtol=1e-9
    )
    later = followed.predict(times_s[-1] + 0.5)[0]
    assert later[PX] == pytest.approx(state[0] + 0.5 * state[1])
    spread = covariance[0, 0] + 2 * 0.5 * covariance[0, 1] + 0.25 * covariance[1, 1]
    assert later[SX] == pytest.approx(spread**0.5)
    assert later[AGE] == pytest.approx(0.5)


def test_each_detection_goes_to_the_nearest_track_and_each_track_takes_one() -> None:
    followed = Tracks(0.92)
    followed.add(0.0, seen((10, 10), (40, 10)))
    hits, new = followed.update(0.1, seen((40.2, 10), (40.4, 10), (90, 50)))
    assert hits.tolist() == [False, True]
    assert new[:, 0].tolist() == [40.4, 90]


def test_tracks_are_dropped_when_missed_unseen_or_outside() -> None:
    followed = Tracks(0.92)
    followed.add(0.0, seen((10, 10), (40, 10), (100, 10), (200, 10)))
    followed.rows[2, tracks.SPEED] = 200.0
    for _ in range(3):
        followed.miss(np.array([False, True, False, False]))
    lost = followed.drop(1.0, 256)
    assert lost.tolist() == [[40, 10]]  # the one at speed left the field
    assert followed.rows[:, tracks.X].tolist() == [10, 200]
    assert len(followed.drop(4.1, 256)) == 2
    assert len(followed) == 0


def test_a_sight_ends_a_row_of_misses() -> None:
    followed = Tracks(0.92)
    followed.add(0.0, seen((10, 10)))
    for _ in range(2):
        followed.miss(np.array([True]))
    followed.update(0.5, seen((10, 10)))
    followed.miss(np.array([True]))
    assert not len(followed.drop(0.6, 256))
    assert len(followed) == 1


def test_there_are_never_too_many_and_the_newest_stay() -> None:
    followed = Tracks(0.92)
    for k in range(4):
        places = [(float(x), 10.0 * k) for x in range(100)]
        followed.add(float(k), seen(*places))
    assert len(followed) == MOST
    assert (followed.rows[:, tracks.LAST] >= 1.0).all()


def test_the_worse_the_detector_the_more_misses_a_track_survives() -> None:
    assert Tracks(0.92).misses_most == 3
    assert Tracks(0.75).misses_most == 6
    assert Tracks(1.0).misses_most == 2
    assert Tracks(0.0).misses_most < 100
