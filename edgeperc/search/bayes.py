"""Bayesian search: look where most undetected targets are expected, and after those long unseen.

Source: search.md, section 4, with what differs: the map's cells tile a look exactly, looks start at
corners of what is left, and whether the prior is right is inferred from what looks find.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeperc.search import tracks as columns
from edgeperc.search.grid import Grid
from edgeperc.search.intake import Cells, Intake
from edgeperc.search.probability_map import ProbabilityMap
from edgeperc.search.revisits import add_revisits
from edgeperc.search.schedulers import Place, Seed, Sight
from edgeperc.search.tracks import AGE, PX, Tracks

SILENCE_S = 0.25
"""Without a word from the wide camera for so long, time passes all the same."""
REVISIT = 0.035
"""What a look at a track unseen for 0.4 s is worth, in targets newly found."""
SUSPECT_S = 0.4
"""For so long a look may disprove what the wide camera suspected."""
SUSPECTS = 400
"""Suspicions that are remembered."""
SPEED_VARIANCE = 9.0
"""A track's speed counts once it is this sure, cells^2/s^2."""
LOST_MASS = 0.3
"""Expected targets that a dropped track leaves behind."""
OUTSTANDING = 4
"""Looks decided but not observed that are remembered."""


@dataclass
class _Look:
    number: int
    x: float
    y: float
    searched: NDArray[np.float64]


class Bayes:
    """Expected undetected targets, tracks, and the look that is worth most.

    expected: targets in the whole field, about; corrected by what is found. seed: not needed, as
    nothing is drawn.
    """

    def __init__(
        self,
        grid: Grid,
        sight: Sight,
        *,
        seed: Seed = 0,
        expected: Annotated[float, msgspec.Meta(gt=0, le=10_000)] = 20.0,
    ) -> None:
        self.map = ProbabilityMap(grid, sight, expected=expected)
        self.tracks = Tracks(sight.pd)
        self._grid, self._sight = grid, sight
        self._intake = Intake(grid)
        self._last: Place = (grid.width / 2, grid.height / 2)
        self._looks: deque[_Look] = deque()
        self._number = 0
        self._passed_s: float | None = None
        self._suspects = np.empty((0, 3))  # x, y, time
        self._scores = np.empty_like(self.map.scores)
        margin = sight.fov / 2 - sight.half
        self._visible = (margin, grid.width - margin, margin, grid.height - margin)

    @property
    def dropped(self) -> int:
        """Detections and gazes left out so far."""
        return self._intake.dropped

    def regions(self, t_s: float, labels: NDArray[np.uint8], weights: Mapping[int, float]) -> None:
        """A new map of regions; what was seen and learned stays."""
        if self._intake.fits(labels):
            self.map.regions(labels, weights)

    def wide(self, t_s: float, detections: Cells) -> None:
        """Let time pass, and suspect targets where no track explains a detection."""
        t_s = self._intake.time(t_s)
        self._pass_time(t_s)
        new = self._unexplained(t_s, self._intake.detections(detections))
        for x, y, confidence in new.tolist():
            self.map.suspect(x, y, confidence)
        if len(new):
            fresh = np.column_stack([new[:, :2], np.full(len(new), t_s)])
            self._suspects = np.vstack([self._suspects, fresh])[-SUSPECTS:]
        self.map.rescore()

    def step(self, t_s: float) -> Place:
        """The look that is worth most; counts as taken."""
        t_s = self._intake.time(t_s)
        if self._passed_s is None or t_s - self._passed_s > SILENCE_S:
            self._pass_time(t_s)
            self.map.rescore()
        x, y = self.map.place(*self._best(t_s))
        self._await(t_s, x, y)
        self._last = (x, y)
        return self._last

    def observe(self, t_s: float, gaze: Place, detections: Cells) -> None:
        """Update tracks, rates and suspicions by what a look has found."""
        t_s = self._intake.time(t_s)
        found = self._intake.detections(detections)
        place = self._intake.gaze(gaze)
        if place is None:
            return
        searched = self._settle(*place)
        seen, new = self.tracks.update(t_s, found)
        self._count_misses(t_s, place, seen)
        self._learn_speeds(seen)
        for x, y in self.tracks.drop(t_s, self._grid.width).tolist():
            self.map.lost(x, y, LOST_MASS)
        self.tracks.add(t_s, new)
        self._disprove(t_s, place, found)
        self.map.learn(searched, new)

    def snapshot(self, t_s: float) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Expected undetected targets a cell of the grid (H, W), and tracks (N, 4)."""
        rows, predicted = self.tracks.rows, self.tracks.predict(self._intake.time(t_s))
        shown = (predicted[:, PX], rows[:, columns.Y], rows[:, columns.CONFIDENCE])
        return self.map.grid_intensity(), np.column_stack([*shown, predicted[:, AGE]])

    def _pass_time(self, t_s: float) -> None:
        if self._passed_s is not None and t_s > self._passed_s:
            self.map.pass_time(t_s - self._passed_s)
            self.map.value()
        self._passed_s = t_s
        self._suspects = self._suspects[self._suspects[:, 2] >= t_s - SUSPECT_S]

    def _unexplained(self, t_s: float, detections: Cells) -> Cells:
        """Detections with no track close by."""
        predicted = self.tracks.predict(t_s)
        along = np.abs(detections[:, :1] - predicted[:, PX])
        across = np.abs(detections[:, 1:2] - self.tracks.rows[:, columns.Y])
        explained = (along < 4 + 9 * predicted[:, AGE]) & (across < 3)
        return detections[~explained.any(axis=1)]

    def _best(self, t_s: float) -> tuple[int, int]:
        """Row and column of the look with the largest worth per slot."""
        top, bottom, left, right = limits = self.map.limits
        scores = self._scores
        np.copyto(scores[top:bottom, left:right], self.map.scores[top:bottom, left:right])
        add_revisits(
            self.tracks.rows, self.tracks.predict(t_s), (self._sight.half, self.map.cell),
            self._visible, limits, REVISIT / self._sight.pd, scores,
        )  # fmt: skip
        best, chosen = -np.inf, (top, left)
        for cost_s, reach in self._sight.turns(self._grid):
            row, column = self.map.corner(*self._last)
            cells = int(reach / self.map.cell)
            y = slice(max(row - cells, top), min(row + cells + 1, bottom))
            x = slice(max(column - cells, left), min(column + cells + 1, right))
            part = scores[y, x]
            at = int(part.argmax())
            y_at, x_at = divmod(at, part.shape[1])
            value = float(part[y_at, x_at]) / cost_s
            if value > best:
                best, chosen = value, (y.start + y_at, x.start + x_at)
        return chosen

    def _await(self, t_s: float, x: float, y: float) -> None:
        """Count a look as taken: what it covers is seen, and its tracks need no other look."""
        self._number += 1
        self._looks.append(_Look(self._number, x, y, self.map.look(x, y)))
        if len(self._looks) > OUTSTANDING:
            self._no_longer_waiting(self._looks.popleft().number)
        near = self._near(t_s, (x, y))
        self.tracks.rows[near, columns.WAITING] = self._number

    def _near(self, t_s: float, place: Place) -> NDArray[np.bool_]:
        predicted = self.tracks.predict(t_s)
        near_x = np.abs(predicted[:, PX] - place[0]) <= columns.NEAR
        near: NDArray[np.bool_] = near_x & (
            np.abs(self.tracks.rows[:, columns.Y] - place[1]) <= columns.NEAR
        )
        return near

    def _settle(self, x: float, y: float) -> NDArray[np.float64]:
        """Find the look that was observed, and make up for where it was not as decided.

        Returns the unseen cells that it searched, by label. Looks decided before it were never
        taken.
        """
        decided = next((look for look in self._looks if _same(look, x, y)), None)
        while self._looks and self._looks[0] is not decided:
            look = self._looks.popleft()
            self._no_longer_waiting(look.number)
            self.map.unlook(look.x, look.y)
            if decided is None:
                break
        if decided is None:
            return self.map.look(x, y)
        self._looks.popleft()
        self._no_longer_waiting(decided.number)
        return decided.searched

    def _no_longer_waiting(self, number: int) -> None:
        rows = self.tracks.rows
        rows[rows[:, columns.WAITING] <= number, columns.WAITING] = columns.NOT_WAITING

    def _count_misses(self, t_s: float, place: Place, seen: NDArray[np.bool_]) -> None:
        fresh = t_s - self.tracks.rows[:, columns.LAST] <= columns.FRESH_S
        self.tracks.miss(self._near(t_s, place) & ~seen & ~fresh)

    def _learn_speeds(self, seen: NDArray[np.bool_]) -> None:
        sure = self.tracks.rows[seen & (self.tracks.rows[:, columns.P11] < SPEED_VARIANCE)]
        if len(sure):
            self.map.learn_speeds(sure[:, (columns.X, columns.Y, columns.SPEED)])

    def _disprove(self, t_s: float, place: Place, found: Cells) -> None:
        """Suspicions that were looked at are over; where nothing was found, they were clutter."""
        if not len(self._suspects):
            return
        off = np.abs(self._suspects[:, :2] - place)
        looked_at = (off <= 4.5).all(axis=1)
        for x, y, _ in self._suspects[looked_at].tolist():
            close = (np.abs(found[:, 0] - x) <= 4) & (np.abs(found[:, 1] - y) <= 3)
            if not close.any():
                self.map.disprove(x, y)
        self._suspects = self._suspects[~looked_at]


def _same(look: _Look, x: float, y: float) -> bool:
    """Whether a look decided is the one observed: within half a cell of the grid."""
    return max(abs(look.x - x), abs(look.y - y)) <= 0.5
