"""A scheduler that is told where all targets are: how well one could look at best."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgeperc.bench.search_world import World
from edgeperc.search.grid import Grid
from edgeperc.search.intake import Cells
from edgeperc.search.schedulers import Place, Seed, Sight

CLOSE = 9.0
"""Cells within which targets are looked at together."""


class Oracle:
    """Looks where most targets are that were never found, then at the one unseen for longest."""

    dropped = 0

    def __init__(self, grid: Grid, sight: Sight, *, seed: Seed = 0) -> None:
        self._grid, self._sight = grid, sight
        self._world: World | None = None

    def know(self, world: World) -> None:
        """Be told the truth."""
        self._world = world

    def regions(self, t_s: float, labels: NDArray[np.uint8], weights: Mapping[int, float]) -> None:
        """Needs no prior."""

    def wide(self, t_s: float, detections: Cells) -> None:
        """Needs no hint."""

    def observe(self, t_s: float, gaze: Place, detections: Cells) -> None:
        """Reads what was found from the world."""

    def step(self, t_s: float) -> Place:
        """The middle of most unfound targets that lie together; else the one longest unseen."""
        world = self._world
        assert world, "an oracle must be told the truth"
        x, y = world.targets.x, world.targets.y
        reach = self._sight.fov / 2 - self._sight.half  # nearer to a border nothing can be seen
        seen_x = (x >= reach) & (x <= self._grid.width - reach)
        visible = seen_x & (y >= reach) & (y <= self._grid.height - reach)
        unfound = visible & np.isinf(np.take(world.first_s, world.targets.identity))
        if not unfound.any():
            k = int(np.where(visible, world.ages_s(), 0.0).argmax())
            return self._sight.clamp(self._grid, float(x[k]), float(y[k]))
        x, y = x[unfound], y[unfound]
        together = (np.abs(x[:, None] - x) <= CLOSE) & (np.abs(y[:, None] - y) <= CLOSE)
        group = together[int(together.sum(axis=1).argmax())]
        x, y = x[group], y[group]
        middle = (float(x.min() + x.max()) / 2, float(y.min() + y.max()) / 2)
        off = np.maximum(np.abs(x - middle[0]), np.abs(y - middle[1]))
        if off.min() > self._sight.half:  # spread too wide: at least one must be seen
            middle = (float(x[0]), float(y[0]))
        return self._sight.clamp(self._grid, *middle)

    def snapshot(self, t_s: float) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Nothing to draw."""
        return np.zeros(self._grid.shape, np.float32), np.empty((0, 4))
