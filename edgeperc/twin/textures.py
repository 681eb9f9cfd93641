"""The pictures that hang in the twin's street: façades, cars, people, trees, poles.

Every texture is drawn here from numbers, with luminance and opacity, and kept as a mip pyramid so
that it neither flickers nor aliases at a distance (flicker would be events that no street makes).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

LEVELS = 8
"""Mip levels kept; level k has half the texels of level k - 1 on each side, at least one."""

Floats = NDArray[np.float32]
Points = Sequence[tuple[float, float]]


class Drawing:
    """A texture being drawn. Coordinates run from 0 to 1, x to the right and y up.

    luminance and alpha: (height, width) float32 in 0..1, four times finer than the texture.
    """

    SUPERSAMPLING = 4

    def __init__(self, width: int, height: int, luminance: float | None = None) -> None:
        self.shape = (height * self.SUPERSAMPLING, width * self.SUPERSAMPLING)
        self.luminance: Floats = np.full(self.shape, luminance or 0.0, np.float32)
        self.alpha: Floats = np.full(self.shape, luminance is not None, np.float32)

    def polygon(self, points: Points | NDArray[np.float64], luminance: float) -> None:
        """Fill a polygon; points: (N, 2)."""
        corners = self._pixels(np.asarray(points))
        cv2.fillPoly(self.luminance, [corners], luminance)
        cv2.fillPoly(self.alpha, [corners], 1.0)

    def box(self, x0: float, y0: float, x1: float, y1: float, luminance: float) -> None:
        """Fill an upright rectangle."""
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], luminance)

    def ellipse(self, x: float, y: float, rx: float, ry: float, luminance: float) -> None:
        """Fill an ellipse with radii in units of the drawing."""
        angles = np.linspace(0, 2 * np.pi, 32, endpoint=False)
        self.polygon(np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], 1), luminance)

    def limb(self, points: Points, width: float, luminance: float) -> None:
        """Draw a jointed line; `width` in units of the drawing height."""
        thickness = max(1, round(width * self.shape[0]))
        corners = self._pixels(np.asarray(points))
        cv2.polylines(self.luminance, [corners], False, luminance, thickness)
        cv2.polylines(self.alpha, [corners], False, 1.0, thickness)

    def finished(self) -> tuple[Floats, Floats]:
        """Luminance times alpha, and alpha, at the texture's own size."""
        height, width = self.shape[0] // self.SUPERSAMPLING, self.shape[1] // self.SUPERSAMPLING
        return (
            _shrink(self.luminance * self.alpha, width, height),
            _shrink(self.alpha, width, height),
        )

    def _pixels(self, points: NDArray[np.float64]) -> NDArray[np.int32]:
        height, width = self.shape
        return np.round(points * (width, -height) + (0, height)).astype(np.int32)


class Atlas:
    """All textures in one array, as the painter reads them.

    texels: (N, 2) float32 luminance times alpha, and alpha. table: (textures, LEVELS, 3) int32
    offset, width and height of each level. Texels are stored column by column, the topmost first.
    Sides are powers of two.
    """

    def __init__(self) -> None:
        self._chunks: list[Floats] = []
        self._rows: list[list[tuple[int, int, int]]] = []
        self._size = 0

    def add(self, drawing: Drawing) -> int:
        """Store a drawing with its pyramid; returns the texture's index."""
        picture = np.stack(drawing.finished(), axis=-1)
        levels = []
        for _ in range(LEVELS):
            height, width = picture.shape[:2]
            levels.append((self._size, width, height))
            self._chunks.append(picture.transpose(1, 0, 2).reshape(-1, 2))
            self._size += width * height
            picture = _shrink(picture, max(1, width // 2), max(1, height // 2))
        self._rows.append(levels)
        return len(self._rows) - 1

    @property
    def texels(self) -> Floats:
        """See the class."""
        return np.concatenate(self._chunks).astype(np.float32)

    @property
    def table(self) -> NDArray[np.int32]:
        """See the class."""
        return np.array(self._rows, np.int32)


def tileable_noise(rng: np.random.Generator, size: int, roughness: float) -> Floats:
    """Cloud-like noise that repeats without a seam: (size, size) float32, mean 0, deviation 1.

    roughness: 0 keeps only large blots, 1 is white noise.
    """
    frequency = np.hypot(*np.meshgrid(np.fft.rfftfreq(size), np.fft.fftfreq(size)))
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) / frequency ** (2 * (1 - roughness))
    noise = np.fft.irfft2(spectrum, (size, size))
    normal: Floats = ((noise - noise.mean()) / noise.std()).astype(np.float32)
    return normal


def _shrink(picture: Floats, width: int, height: int) -> Floats:
    shrunk: Any = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    kept: Floats = shrunk.reshape(height, width, *picture.shape[2:])  # OpenCV drops axes of one
    return kept
