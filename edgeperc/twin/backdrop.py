"""Paint all of an avenue that stands still, once, as one upright pinhole camera sees it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgeperc.jit import kernel
from edgeperc.twin.avenue import Avenue
from edgeperc.twin.canvas import FULL, Canvas, View, overlap
from edgeperc.twin.cast import cast
from edgeperc.twin.ground import marks, noise_at, pyramid
from edgeperc.twin.plots import BEHIND_ALL, GRASS, ROADWAY, SIDEWALK, SKY
from edgeperc.twin.quads import paint_quads
from edgeperc.twin.roads import CELL_M, CELLS, KERB, PAVING, ROAD, YARD
from edgeperc.twin.textures import LEVELS

STRIP_PX = 512
"""Columns painted at a time, so that no big picture of floats is ever held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lens:
    """An upright pinhole camera at x, y, z in m; pixel centres are at whole numbers.

    centre_px, horizon_px: column straight ahead and row of the horizon.
    """

    x: float
    y: float
    z: float
    width_px: int
    height_px: int
    focal_px: float
    centre_px: float
    horizon_px: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Backdrop:
    """What stands still. grey: (width, height) uint8, 255 · √luminance, column by column.

    codes: (width, height) uint8, 8 · rank + region, see `plots.Plots`.
    """

    lens: Lens
    grey: NDArray[np.uint8]
    codes: NDArray[np.uint8]


def backdrop(avenue: Avenue, lens: Lens) -> Backdrop:
    """Paint it, which takes about 40 ns a pixel; the last few are kept."""
    return _painted(avenue.seed, lens)


@lru_cache(maxsize=3)
def _painted(seed: int, lens: Lens) -> Backdrop:
    avenue = Avenue(seed)
    grey = np.empty((lens.width_px, lens.height_px), np.uint8)
    codes = np.empty_like(grey)
    pictures, plots = cast(), avenue.plots
    texels, table, noise = pictures.atlas.texels, pictures.atlas.table, pyramid(pictures.noise)
    bands, air = plots.bands, (avenue.haze_m, avenue.sky)
    for start in range(0, lens.width_px, STRIP_PX):
        part = slice(start, min(start + STRIP_PX, lens.width_px))
        shape = (part.stop - start, lens.height_px)
        canvas = (np.zeros(shape, np.float32), np.zeros(shape, np.float32), codes[part])
        view = (
            *(lens.x, lens.y, lens.z, 1.0, 0.0),
            *(lens.focal_px, lens.centre_px - start, lens.horizon_px),
        )
        paint_quads(canvas, plots.quads, texels, table, view, air)
        _paint_bands(
            *(canvas, noise, pictures.clouds, view, air, bands.edges_m, bands.kinds, bands.lawn),
            *(bands.lines, bands.zebras),
        )
        _encode(canvas[0], grey[part])
    return Backdrop(lens=lens, grey=grey, codes=codes)


@kernel(fastmath=True)
def _encode(light: NDArray[np.float32], grey: NDArray[np.uint8]) -> None:
    for column in range(light.shape[0]):
        for row in range(light.shape[1]):
            level = 255 * math.sqrt(min(max(light[column, row], 0.0), 1.0))
            grey[column, row] = np.uint8(level + 0.5)


@kernel(fastmath=True)
def _smooth(noise: NDArray[np.float32], x: float, y: float) -> float:
    """Noise at a point in units of its texels, linear in both."""
    mask = noise.shape[0] - 1
    column, row = math.floor(x), math.floor(y)
    right, down = x - column, y - row
    column, row, after, below = column & mask, row & mask, column + 1 & mask, row + 1 & mask
    near = noise[row, column] + right * (noise[row, after] - noise[row, column])
    far = noise[below, column] + right * (noise[below, after] - noise[below, column])
    return float(near + down * (far - near))


@kernel(fastmath=True)
def _light(kind: int, x: float, z: float, fx: float, fz: float, lawn: bool, grain: float) -> float:
    """Luminance of the ground without its marks."""
    if kind == ROAD:
        return 0.15 * (1 + 0.05 * grain)
    if kind == KERB:
        return 0.42
    if kind == YARD and lawn:
        return 0.13 * max(0.3, 1 + 0.35 * grain)
    joints = marks(z, fz, 1.2, 0.05) + marks(x, fx, 1.2, 0.05)
    return (0.3 if kind == PAVING else 0.25) * (1 + 0.05 * grain) * (1 - 0.45 * min(joints, 1.0))


@kernel(fastmath=True)
def _paint_share(
    x: float,
    fx: float,
    low: float,
    high: float,
    lines: NDArray[np.float64],
    zebras: NDArray[np.float64],
) -> float:
    """Share of white paint in a footprint from z = low to high."""
    paint = 0.0
    for line in lines:
        share = overlap(low, high, line[0] - line[1] / 2, line[0] + line[1] / 2)
        if share > 0:
            paint += share * (marks(x, fx, line[2], line[3]) if line[2] > 0 else 1.0)
    for zebra in zebras:
        across = overlap(x - fx / 2, x + fx / 2, zebra[0], zebra[1])
        if across > 0:
            across *= overlap(low, high, zebra[2], zebra[3])
            paint = paint * (1 - across) + across * marks((low + high) / 2, high - low, 1.0, 0.5)
    return paint


@kernel(fastmath=True)
def _paint_bands(
    canvas: Canvas,
    noise: NDArray[np.float32],
    clouds: NDArray[np.float32],
    view: View,
    air: tuple[float, float],
    edges: NDArray[np.float64],
    kinds: NDArray[np.int8],
    lawn: NDArray[np.bool_],
    lines: NDArray[np.float64],
    zebras: NDArray[np.float64],
) -> None:
    """Fill the open pixels of a canvas with ground and sky; see `roads.Bands`."""
    camera_x, camera_y, camera_z, _, _, focal, centre, horizon = view
    haze_m, sky = air
    luminance, covered, codes = canvas
    width, height = luminance.shape
    ground_row = min(max(math.ceil(horizon + 1.0), 0), height)
    for row in range(ground_row):
        above = (horizon - row) / focal
        for column in range(width):
            gap = 1 - covered[column, row]
            if gap <= 1 - FULL:
                continue
            ceiling = 6 / (above + 0.15)  # clouds are flat, and denser towards the horizon
            cloud = _smooth(clouds, ceiling * (column - centre) / focal, ceiling)
            light = sky * (1 - 0.9 * above) * (1 + 0.07 * min(max(cloud, -1.5), 1.5))
            luminance[column, row] += gap * light
            if gap > 0.5:
                codes[column, row] = 8 * BEHIND_ALL + SKY
    for row in range(ground_row, height):
        below = row - horizon
        low, high = focal * camera_y / (below + 0.5), focal * camera_y / (below - 0.5)
        depth = focal * camera_y / below
        clear = math.exp(-depth / haze_m)
        z, low, high = camera_z + depth, camera_z + low, camera_z + high
        fx, fz = depth / focal, high - low
        level = min(math.ceil(math.log2(max(32 * 0.5 * (fx + fz), 1.0))), LEVELS - 1)
        first = np.searchsorted(edges, low) - 1
        last = np.searchsorted(edges, high) - 1
        for column in range(width):
            gap = 1 - covered[column, row]
            if gap <= 1 - FULL:
                continue
            x = camera_x + depth * (column - centre) / focal
            grain = noise_at(noise, level, x * 32, z * 32)
            cell = min(max(math.floor(x / CELL_M) + CELLS // 2, 0), CELLS - 1)
            light, most, region = 0.0, 0.0, SIDEWALK
            for band in range(max(first, 0), min(last, len(kinds) - 1) + 1):
                share = overlap(low, high, edges[band], edges[band + 1])
                kind, green = kinds[band], lawn[band, cell]
                light += share * _light(kind, x, z, fx, fz, green, grain)
                if share > most:
                    most = share
                    region = SIDEWALK
                    if kind == ROAD:
                        region = ROADWAY
                    elif kind == YARD and green:
                        region = GRASS
            paint = _paint_share(x, fx, low, high, lines, zebras)
            light += paint * (0.68 - light)
            luminance[column, row] += gap * (light * clear + sky * (1 - clear))
            if gap > 0.5:
                codes[column, row] = 8 * BEHIND_ALL + region
