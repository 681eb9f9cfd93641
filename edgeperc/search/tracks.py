"""Targets that were found: where each is now, how sure that is, and how long ago it was seen.

A target moves along x at a speed that changes slowly; y is the last one measured. Source:
search.md, section 4.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edgeperc.jit import kernel
from edgeperc.search.intake import Cells

MOST = 256
"""Tracks kept; beyond that, those seen longest ago make room."""
X, SPEED, P00, P01, P11, Y, LAST, CONFIDENCE, MISSES, WAITING = range(10)
"""Columns: x and its speed, their covariance, y, time last seen, largest confidence, looks in a row
without a sight, and the number of a look that has been decided but not observed."""
COLUMNS = 10
ACCELERATION = 40.0
"""White acceleration, cells^2/s^3."""
NOISE = 0.03
"""Variance of a measured x, cells^2."""
NEW_SPEED_VARIANCE = 100.0
CHANCE = 6e-4
"""A track is given up when it would be missed so often by chance no oftener than this."""
UNSEEN_MOST_S = 4.0
OUTSIDE_MOST = 2.0
FRESH_S = 0.1
"""A look without a sight counts as a miss only this long after the last sight."""
NEAR = 4.0
"""Cells around a gaze within which a track should have been seen."""
NOT_WAITING = -1.0

PX, SX, AGE = range(3)
"""Columns of a prediction: x, its standard deviation, seconds since last seen."""


class Tracks:
    """Rows of numbers, one a target. rows: (N, 10) float64, columns as above.

    pd: how probably a look detects a target.
    """

    def __init__(self, pd: float) -> None:
        self.rows = np.empty((0, COLUMNS))
        missed = min(max(1 - pd, 1e-3), 0.9)
        self.misses_most = max(2, math.ceil(math.log(CHANCE) / math.log(missed)))

    def __len__(self) -> int:
        return len(self.rows)

    def predict(self, t_s: float) -> NDArray[np.float64]:
        """Where they are at a time: (N, 3) x, its standard deviation, and age in s."""
        predicted = np.empty((len(self.rows), 3))
        predict(self.rows, t_s, predicted)
        return predicted

    def update(self, t_s: float, detections: Cells) -> tuple[NDArray[np.bool_], Cells]:
        """Give each detection to the track it fits best, if any.

        Returns which tracks were seen, and the detections that fit none.
        """
        match = np.empty(len(detections), np.int64)
        associate(self.rows, self.predict(t_s), detections, match)
        correct(self.rows, t_s, detections, match)
        seen = np.zeros(len(self.rows), np.bool_)
        seen[match[match >= 0]] = True
        return seen, detections[match < 0]

    def add(self, t_s: float, detections: Cells) -> None:
        """New tracks, at rest until they are seen again."""
        new = np.zeros((len(detections), COLUMNS))
        new[:, X], new[:, Y], new[:, CONFIDENCE] = detections.T
        new[:, P00], new[:, P11] = 0.05, NEW_SPEED_VARIANCE
        new[:, LAST], new[:, WAITING] = t_s, NOT_WAITING
        rows = np.vstack([self.rows, new])
        if len(rows) > MOST:
            rows = rows[np.sort(np.argsort(-rows[:, LAST], kind="stable")[:MOST])]
        self.rows = rows

    def miss(self, near: NDArray[np.bool_]) -> None:
        """Tracks that were looked at and not seen."""
        self.rows[near, MISSES] += 1

    def drop(self, t_s: float, width: int) -> NDArray[np.float64]:
        """Give up those missed too often, unseen too long or gone; returns places (K, 2)."""
        predicted = self.predict(t_s)
        x, age_s = predicted[:, PX], predicted[:, AGE]
        outside = (x < -OUTSIDE_MOST) | (x > width + OUTSIDE_MOST)
        gone = outside | (age_s > UNSEEN_MOST_S) | (self.rows[:, MISSES] >= self.misses_most)
        if not gone.any():
            return np.empty((0, 2))
        places = np.stack([x[gone & ~outside], self.rows[gone & ~outside, Y]], axis=1)
        self.rows = self.rows[~gone]
        return places


@kernel()
def predict(rows: NDArray[np.float64], t_s: float, out: NDArray[np.float64]) -> None:
    """Fill out (N, 3): predicted x, its standard deviation, age."""
    for k in range(rows.shape[0]):
        row = rows[k]
        age_s = max(t_s - row[LAST], 0.0)
        out[k, PX] = row[X] + row[SPEED] * age_s
        variance = row[P00] + 2 * row[P01] * age_s + row[P11] * age_s**2
        out[k, SX] = np.sqrt(max(variance, 0.0))
        out[k, AGE] = age_s


@kernel()
def associate(
    rows: NDArray[np.float64],
    predicted: NDArray[np.float64],
    detections: NDArray[np.float64],
    match: NDArray[np.int64],
) -> None:
    """Fill match with the track of each detection, -1 for none; a track takes one."""
    taken = np.zeros(rows.shape[0], np.bool_)
    for i in range(detections.shape[0]):
        match[i] = -1
        best = 2.0
        for k in range(rows.shape[0]):
            if taken[k]:
                continue
            along = abs(predicted[k, PX] - detections[i, 0]) / (3 * predicted[k, SX] + 1)
            across = abs(rows[k, Y] - detections[i, 1]) / (2 + 3 * predicted[k, AGE])
            if along + across < best:
                best = along + across
                match[i] = k
        if match[i] >= 0:
            taken[match[i]] = True


@kernel()
def correct(
    rows: NDArray[np.float64],
    t_s: float,
    detections: NDArray[np.float64],
    match: NDArray[np.int64],
) -> None:
    """Kalman update of each matched track."""
    for i in range(match.size):
        if match[i] < 0:
            continue
        row = rows[match[i]]
        a = max(t_s - row[LAST], 0.0)
        x = row[X] + row[SPEED] * a
        p00 = row[P00] + 2 * row[P01] * a + row[P11] * a**2 + ACCELERATION * a**3 / 3
        p01 = row[P01] + row[P11] * a + ACCELERATION * a**2 / 2
        p11 = row[P11] + ACCELERATION * a
        total = p00 + NOISE
        gain_x, gain_speed = p00 / total, p01 / total
        off = detections[i, 0] - x
        row[X], row[SPEED] = x + gain_x * off, row[SPEED] + gain_speed * off
        row[P00], row[P01] = (1 - gain_x) * p00, (1 - gain_x) * p01
        row[P11] = p11 - gain_speed * p01
        row[Y], row[LAST], row[MISSES] = detections[i, 1], t_s, 0.0
        row[CONFIDENCE] = max(row[CONFIDENCE], detections[i, 2])
