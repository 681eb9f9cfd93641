"""What a data set is made of: windows of events with the class of each pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgeperc.packet import Events, Frame

IGNORE = 255
"""Label of a pixel that nobody labelled; it counts neither for nor against a network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One window of events and its answer.

    labels: (H, W) uint8 in sensor pixels, IGNORE = not labelled. rectify_map: (H, W, 2) float32,
    the undistorted x, y of each sensor pixel; where there is one, labels are in undistorted pixels.
    """

    events: Events
    labels: NDArray[np.uint8]
    frame: Frame | None = None
    rectify_map: NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Samples that are read when they are asked for."""

    name: str
    classes: tuple[str, ...]
    size: int
    read: Callable[[int], Sample]

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Sample]:
        return map(self.read, range(self.size))

    def thinned(self, limit: int | None) -> Dataset:
        """At most `limit` of the samples, spread evenly."""
        if limit is None or limit >= self.size:
            return self
        chosen = np.linspace(0, self.size - 1, limit).round().astype(int)
        return replace(self, size=limit, read=lambda index: self.read(int(chosen[index])))
