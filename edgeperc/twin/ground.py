"""Paint the ground and the sky: for each pixel that is still open, look up where its ray lands.

Marks and edges are averaged over a pixel's footprint exactly, by the share of it that they cover.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edgeperc.jit import kernel
from edgeperc.twin.canvas import FULL, Canvas, View, overlap
from edgeperc.twin.scene import BACKGROUND, BLOCK_M, FLAT, VEGETATION
from edgeperc.twin.textures import LEVELS


def pyramid(noise: NDArray[np.float32]) -> NDArray[np.float32]:
    """(LEVELS, N, N): the noise blurred to coarser and coarser texels, all at full size."""
    levels, size = [noise], noise.shape[0]
    for k in range(1, LEVELS):
        side = size >> k
        coarse = noise.reshape(side, size // side, side, size // side).mean((1, 3))
        levels.append(coarse.repeat(size // side, 0).repeat(size // side, 1))
    return np.stack(levels).astype(np.float32)


@kernel(fastmath=True)
def _painted_up_to(position: float, period: float, mark: float) -> float:
    whole = math.floor(position / period)
    return whole * mark + min(position - whole * period, mark)


@kernel(fastmath=True)
def marks(position: float, width: float, period: float, mark: float) -> float:
    """Share of paint in `width` around a position on a line with a `mark` in every `period`."""
    stop = _painted_up_to(position + width / 2, period, mark)
    return (stop - _painted_up_to(position - width / 2, period, mark)) / width


@kernel(fastmath=True)
def noise_at(noise: NDArray[np.float32], level: int, x: float, z: float) -> float:
    """Noise at a point in units of its texels, linear in x only: z is blurred by the view."""
    mask = noise.shape[1] - 1
    column, row = math.floor(x), math.floor(z) & mask
    left, right = noise[level, column & mask, row], noise[level, (column + 1) & mask, row]
    return float(left + (x - column) * (right - left))


@kernel(fastmath=True)
def _road(x: float, z: float, fx: float, fz: float, road: float, zebra: bool) -> float:
    """Share of white paint in a footprint of fx × fz metres on the road."""
    lane = road - 2.3
    paint = overlap(abs(x) - fx / 2, abs(x) + fx / 2, lane - 0.06, lane + 0.06)
    centre = overlap(x - fx / 2, x + fx / 2, -0.08, 0.08)
    if centre > 0:
        paint += centre * marks(z, fz, 12.0, 5.0)
    from_block = z - math.floor(z / BLOCK_M) * BLOCK_M
    if zebra and from_block < 6.0:
        across = overlap(from_block - fz / 2, from_block + fz / 2, 1.0, 4.5)
        stop_line = overlap(from_block - fz / 2, from_block + fz / 2, 0.0, 0.35) * (x > 0)
        paint = max(paint * (1 - across), across * marks(x, fx, 1.0, 0.5), stop_line)
    return paint


@kernel(fastmath=True)
def _surface(
    band: int, x: float, z: float, fx: float, fz: float, road: float, zebra: bool, grain: float
) -> float:
    """Luminance of one band of ground: 0 road, 1 kerb, 2 paving, 3 grass."""
    if band == 0:
        asphalt = 0.15 * (1 + 0.04 * grain)
        return asphalt + _road(x, z, fx, fz, road, zebra) * (0.68 - asphalt)
    if band == 1:
        return 0.42
    if band == 2:
        joints = marks(z, fz, 1.2, 0.05) + marks(x, fx, 1.2, 0.05)
        return 0.3 * (1 + 0.04 * grain) * (1 - 0.45 * min(joints, 1.0))
    return 0.13 * max(0.3, 1 + 0.4 * grain)


@kernel(fastmath=True)
def _band(across: float, right: bool, road: float, facade: float, cover: NDArray[np.int8]) -> int:
    """Which ground lies at a distance from the road's middle; see `_surface`."""
    side = int(right)
    if across < road:
        return 0
    if across < road + 0.2:
        return 1
    if across < road + 1.5 and cover[side, 0]:
        return 3
    if across < facade:
        return 2
    return 3 if cover[side, 1] else 2


@kernel(fastmath=True)
def paint_ground(
    canvas: Canvas,
    noise: NDArray[np.float32],
    view: View,
    air: tuple[float, float],
    road: float,
    facade: float,
    first_block: int,
    cover: NDArray[np.int8],
    zebra: NDArray[np.bool_],
) -> None:
    """Fill the open pixels of a canvas; the other arguments are those of `scene.Ground`.

    noise: from `pyramid`. air: haze_m and sky of the scene.
    """
    camera_x, camera_y, camera_z, cos_yaw, sin_yaw, focal, centre, horizon = view
    haze_m, sky = air
    luminance, covered, labels = canvas
    width, height = luminance.shape
    # All that depends on the row alone: distance, clearness of the air, mip level of the noise.
    depths, clear = np.empty(height, np.float32), np.empty(height, np.float32)
    levels = np.zeros(height, np.int32)
    ground_row = min(max(math.ceil(horizon + 1.5), 0), height)
    for row in range(ground_row, height):
        below = row - horizon
        depths[row] = focal * camera_y / below
        clear[row] = math.exp(-depths[row] / haze_m)
        texels_a_pixel = max(32 * depths[row] / below, 1.0)
        levels[row] = min(math.ceil(math.log2(texels_a_pixel)), LEVELS - 1)
    for column in range(width):
        across = (column - centre) / focal
        ray_x, ray_z = cos_yaw * across + sin_yaw, cos_yaw - sin_yaw * across
        for row in range(ground_row):
            gap = 1 - covered[column, row]
            luminance[column, row] += gap * sky * (1 - 0.3 * max(horizon - row, 0.0) / height)
            if gap > 0.5:
                labels[column, row] = BACKGROUND
        for row in range(ground_row, height):
            gap = 1 - covered[column, row]
            if gap <= 1 - FULL:
                continue
            depth = depths[row]
            x, z = camera_x + depth * ray_x, camera_z + depth * ray_z
            fx, fz = depth / focal, depth * depth / (focal * camera_y)
            block = min(max(math.floor(z / BLOCK_M) - first_block, 0), len(zebra) - 1)
            grain = noise_at(noise, levels[row], x * 32, z * 32)
            band = _band(abs(x) - fx / 2, x > 0, road, facade, cover[block])
            light = _surface(band, x, z, fx, fz, road, zebra[block], grain)
            outer = _band(abs(x) + fx / 2, x > 0, road, facade, cover[block])
            if outer != band:
                light += _surface(outer, x, z, fx, fz, road, zebra[block], grain)
                light *= 0.5
            luminance[column, row] += gap * (light * clear[row] + sky * (1 - clear[row]))
            if gap > 0.5:
                labels[column, row] = VEGETATION if outer == 3 else FLAT
