"""The cells that a search counts in, and the gazes that they stand for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeperc.packet import Gaze, GazeRange


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A panorama of width x height cells in gaze angle; its middle is gaze (0, 0).

    Cell (x, y) covers [x, x + 1) by [y, y + 1); x grows to the right as pan does, y grows down,
    against tilt. cell_rad: angle that a cell spans, the same both ways.
    """

    width: int = 256
    height: int = 128
    cell_rad: float = math.radians(60) / 256

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a map of the grid."""
        return self.height, self.width

    @property
    def range(self) -> GazeRange:
        """The gazes that the grid spans, corner to corner."""
        return GazeRange(lowest=self.gaze(0, self.height), highest=self.gaze(self.width, 0))

    def gaze(self, x: float, y: float) -> Gaze:
        """The gaze at a place in cells."""
        return Gaze(
            pan_rad=(x - self.width / 2) * self.cell_rad,
            tilt_rad=(self.height / 2 - y) * self.cell_rad,
        )

    def cell(self, gaze: Gaze) -> tuple[float, float]:
        """The place of a gaze in cells, which may lie outside the grid."""
        return (
            gaze.pan_rad / self.cell_rad + self.width / 2,
            self.height / 2 - gaze.tilt_rad / self.cell_rad,
        )

    def cells(self, gazes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Places (N, 2) in cells of gazes (N, 2), pan and tilt in rad."""
        pan_rad, tilt_rad = gazes.T
        x = pan_rad / self.cell_rad + self.width / 2
        return np.stack([x, self.height / 2 - tilt_rad / self.cell_rad], axis=1)

    def gazes(self) -> NDArray[np.float64]:
        """Gazes (height * width, 2) of the middles of all cells, row by row, in rad."""
        x, y = np.meshgrid(np.arange(self.width) + 0.5, np.arange(self.height) + 0.5)
        pan_rad = (x - self.width / 2) * self.cell_rad
        tilt_rad = (self.height / 2 - y) * self.cell_rad
        return np.stack([pan_rad.ravel(), tilt_rad.ravel()], axis=1)
