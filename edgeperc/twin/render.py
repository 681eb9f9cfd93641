"""Paint a street as a pinhole camera sees it: luminance and class of every pixel.

Everything that stands is an upright textured rectangle (a "quad"), painted from near to far where
nothing nearer covers it; then the ground and the sky are looked up by ray where there is still a
gap. Edges and textures are box-filtered, because an aliased edge
that crawls through the picture would make events that a real sensor never sees.

Inside, pictures are (width, height): the work goes column by column, and so do the bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeperc.jit import kernel
from edgeperc.twin.textures import LEVELS, Atlas

CLASSES = ("flat", "background", "object", "vegetation", "human", "vehicle")
FLAT, BACKGROUND, OBJECT, VEGETATION, HUMAN, VEHICLE = range(len(CLASSES))

BLOCK_M = 24.0
"""Length of one block of the street; ground cover changes from block to block."""

QUAD = np.dtype(
    [(name, "f4") for name in ("x0", "z0", "x1", "z1", "y0", "y1", "u0", "u1", "v1", "gain")]
    + [("texture", "i4"), ("kind", "i4"), ("layer", "i4")]
)
"""An upright rectangle from (x0, z0) to (x1, z1) in metres on the ground plane, y0 to y1 high.

u0 to u1 and 0 to v1 (downwards) are texture repeats, gain scales luminance, kind is the class;
a higher layer hides a lower one, inside a layer the nearer quad hides the farther.
"""

Canvas = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]]
"""Luminance so far, share of the pixel that is covered, and class of what covers its half."""
View = tuple[float, float, float, float, float, float, float, float]
"""Camera x, y, z; cosine and sine of yaw; focal length, middle column and row of the horizon."""
FULL = 0.996
"""A pixel covered this far is finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """A pinhole camera. focal_px in pixels; the principal point is the middle of the picture."""

    width_px: int
    height_px: int
    focal_px: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """Where the camera is: x right, y up, z ahead in m; yaw right and pitch up in rad."""

    x: float
    y: float
    z: float
    yaw: float
    pitch: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What lies on the ground; |x| in metres grows from the road to the kerb, verge and façades.

    cover: (blocks, 2, 2) int8, for each block and side (left, right) whether the verge and whether
    the yard is grass. zebra: (blocks,) bool, a crossing at the start of the block.
    """

    road_m: float
    facade_m: float
    first_block: int
    cover: NDArray[np.int8]
    zebra: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One instant of the street.

    quads: (N,) QUAD. haze_m: at this distance 1/e of an object's own light is left. sky: luminance
    of the horizon.
    """

    pose: Pose
    ground: Ground
    quads: NDArray[Any]
    haze_m: float
    sky: float


class Painter:
    """Paints scenes for one camera with one set of textures; buffers are kept between pictures."""

    def __init__(self, camera: Camera, atlas: Atlas, noise: NDArray[np.float32]) -> None:
        """noise: (N, N) float32 tileable, N a power of two, mean 0: the grain of the ground."""
        self.camera = camera
        self._texels, self._table = atlas.texels, atlas.table
        self._noise = _pyramid(noise)
        shape = (camera.width_px, camera.height_px)
        self._canvas: Canvas = (
            np.empty(shape, np.float32),
            np.empty(shape, np.float32),
            np.empty(shape, np.uint8),
        )

    def paint(self, scene: Scene) -> NDArray[np.float32]:
        """Luminance of the scene, (height, width) float32, about 0.02 to 1; owned by the caller."""
        pose, ground = scene.pose, scene.ground
        horizon = (self.camera.height_px - 1) / 2 + self.camera.focal_px * math.tan(pose.pitch)
        view = (
            *(pose.x, pose.y, pose.z, math.cos(pose.yaw), math.sin(pose.yaw)),
            *(self.camera.focal_px, (self.camera.width_px - 1) / 2, horizon),
        )
        air = (scene.haze_m, scene.sky)
        luminance, cover, _ = self._canvas
        luminance.fill(0)
        cover.fill(0)
        _paint_quads(self._canvas, _near_to_far(scene), self._texels, self._table, view, air)
        _paint_ground(
            *(self._canvas, self._noise, view, air, ground.road_m, ground.facade_m),
            *(ground.first_block, ground.cover, ground.zebra),
        )
        return np.ascontiguousarray(luminance.T)

    def labels(self) -> NDArray[np.uint8]:
        """Classes of the picture painted last, (height, width) uint8 index into CLASSES."""
        return np.ascontiguousarray(self._canvas[2].T)


def _near_to_far(scene: Scene) -> NDArray[Any]:
    quads, pose = scene.quads, scene.pose
    x, z = (quads["x0"] + quads["x1"]) / 2 - pose.x, (quads["z0"] + quads["z1"]) / 2 - pose.z
    depth = z * math.cos(pose.yaw) + x * math.sin(pose.yaw)
    return quads[np.lexsort((depth, -quads["layer"]))]


def _pyramid(noise: NDArray[np.float32]) -> NDArray[np.float32]:
    """(LEVELS, N, N): the noise blurred to coarser and coarser texels, all at full size."""
    levels, size = [noise], noise.shape[0]
    for k in range(1, LEVELS):
        side = size >> k
        coarse = noise.reshape(side, size // side, side, size // side).mean((1, 3))
        levels.append(coarse.repeat(size // side, 0).repeat(size // side, 1))
    return np.stack(levels).astype(np.float32)


@kernel(fastmath=True)
def _overlap(low: float, high: float, start: float, stop: float) -> float:
    """Share of [low, high] inside [start, stop]."""
    if high <= start or low >= stop:
        return 0.0
    return max(0.0, min(high, stop) - max(low, start)) / (high - low)


@kernel(fastmath=True)
def _painted_up_to(position: float, period: float, mark: float) -> float:
    whole = math.floor(position / period)
    return whole * mark + min(position - whole * period, mark)


@kernel(fastmath=True)
def _marks(position: float, width: float, period: float, mark: float) -> float:
    """Share of paint in `width` around a position on a line with a `mark` in every `period`."""
    stop = _painted_up_to(position + width / 2, period, mark)
    return (stop - _painted_up_to(position - width / 2, period, mark)) / width


@kernel(fastmath=True)
def _noise_at(noise: NDArray[np.float32], level: int, x: float, z: float) -> float:
    """Noise at a point in units of its texels, linear in x only: z is blurred by the view."""
    mask = noise.shape[1] - 1
    column, row = math.floor(x), math.floor(z) & mask
    left, right = noise[level, column & mask, row], noise[level, (column + 1) & mask, row]
    return float(left + (x - column) * (right - left))


@kernel(fastmath=True)
def _road(x: float, z: float, fx: float, fz: float, road: float, zebra: bool) -> float:
    """Share of white paint in a footprint of fx × fz metres on the road."""
    lane = road - 2.3
    paint = _overlap(abs(x) - fx / 2, abs(x) + fx / 2, lane - 0.06, lane + 0.06)
    centre = _overlap(x - fx / 2, x + fx / 2, -0.08, 0.08)
    if centre > 0:
        paint += centre * _marks(z, fz, 12.0, 5.0)
    from_block = z - math.floor(z / BLOCK_M) * BLOCK_M
    if zebra and from_block < 6.0:
        across = _overlap(from_block - fz / 2, from_block + fz / 2, 1.0, 4.5)
        stop_line = _overlap(from_block - fz / 2, from_block + fz / 2, 0.0, 0.35) * (x > 0)
        paint = max(paint * (1 - across), across * _marks(x, fx, 1.0, 0.5), stop_line)
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
        joints = _marks(z, fz, 1.2, 0.05) + _marks(x, fx, 1.2, 0.05)
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
def _paint_ground(
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
            grain = _noise_at(noise, levels[row], x * 32, z * 32)
            band = _band(abs(x) - fx / 2, x > 0, road, facade, cover[block])
            light = _surface(band, x, z, fx, fz, road, zebra[block], grain)
            outer = _band(abs(x) + fx / 2, x > 0, road, facade, cover[block])
            if outer != band:
                light += _surface(outer, x, z, fx, fz, road, zebra[block], grain)
                light *= 0.5
            luminance[column, row] += gap * (light * clear[row] + sky * (1 - clear[row]))
            if gap > 0.5:
                labels[column, row] = VEGETATION if outer == 3 else FLAT


@kernel(fastmath=True)
def _cut(
    profile: NDArray[np.float32],
    texels: NDArray[np.float32],
    offset: int,
    width: int,
    height: int,
    u: float,
) -> None:
    """Cut a texture level vertically at u into `profile`: (height, 2) light and alpha."""
    position = u * width - 0.5
    column = math.floor(position)
    share = position - column
    left = offset + (column & (width - 1)) * height
    right = offset + ((column + 1) & (width - 1)) * height
    for k in range(height):
        for c in range(2):
            start = texels[left + k, c]
            profile[k, c] = start + share * (texels[right + k, c] - start)


@kernel(fastmath=True)
def _blend(
    fine: NDArray[np.float32], coarse: NDArray[np.float32], height: int, share: float
) -> None:
    """Mix `share` of the next coarser level into a profile of `height` texels."""
    mask = max(height // 2, 1) - 1
    for k in range(height):
        near, other = k // 2 & mask, (k // 2 + (1 if k & 1 else -1)) & mask
        for c in range(2):
            smooth = 0.75 * coarse[near, c] + 0.25 * coarse[other, c]
            fine[k, c] += share * (smooth - fine[k, c])


@kernel(fastmath=True)
def _paint_column(
    luminance: NDArray[np.float32],
    covered: NDArray[np.float32],
    labels: NDArray[np.uint8],
    profile: NDArray[np.float32],
    size: int,
    top: float,
    bottom: float,
    repeats: float,
    share_of_column: float,
    gain: float,
    air_light: float,
    kind: int,
) -> None:
    """Lay a profile of `size` texels, `repeats` times, over the rows from top to bottom."""
    texels_a_row = size * repeats / (bottom - top)
    for row in range(max(0, math.ceil(top - 0.5)), min(len(labels), math.ceil(bottom + 0.5))):
        before = covered[row]
        if before >= FULL:
            continue
        position = min(max((row - top) * texels_a_row - 0.5, 0.0), size * repeats - 1.0)
        above = int(position)
        share = position - above
        a, b = above & (size - 1), (above + 1) & (size - 1)
        seen = (1 - before) * share_of_column * _overlap(row - 0.5, row + 0.5, top, bottom)
        light = profile[a, 0] + share * (profile[b, 0] - profile[a, 0])
        alpha = profile[a, 1] + share * (profile[b, 1] - profile[a, 1])
        luminance[row] += seen * (light * gain + alpha * air_light)
        covered[row] = before + seen * alpha
        if before < 0.5 <= covered[row]:
            labels[row] = kind


@kernel(fastmath=True)
def _finished(covered: NDArray[np.float32], top: float, bottom: float) -> bool:
    for row in range(max(0, math.ceil(top - 0.5)), min(len(covered), math.ceil(bottom + 0.5))):
        if covered[row] < FULL:
            return False
    return True


@kernel(fastmath=True)
def _paint_quads(
    canvas: Canvas,
    quads: NDArray[Any],
    texels: NDArray[np.float32],
    table: NDArray[np.int32],
    view: View,
    air: tuple[float, float],
) -> None:
    camera_x, camera_y, camera_z, cos_yaw, sin_yaw, focal, centre, horizon = view
    haze_m, sky = air
    luminance, covered, labels = canvas
    width = len(luminance)
    fine, coarse = np.empty((128, 2), np.float32), np.empty((128, 2), np.float32)
    near = 0.5
    for quad in quads:
        x0, z0 = quad.x0 - camera_x, quad.z0 - camera_z
        x1, z1 = quad.x1 - camera_x, quad.z1 - camera_z
        x0, z0 = cos_yaw * x0 - sin_yaw * z0, sin_yaw * x0 + cos_yaw * z0
        x1, z1 = cos_yaw * x1 - sin_yaw * z1, sin_yaw * x1 + cos_yaw * z1
        if max(z0, z1) <= near:
            continue
        # Columns of the two ends; an end behind the camera is moved along the quad to `near`.
        cut = (near - z0) / (z1 - z0) if z0 != z1 else 0.0
        end0 = x0 / z0 if z0 > near else (x0 + cut * (x1 - x0)) / near
        end1 = x1 / z1 if z1 > near else (x0 + cut * (x1 - x0)) / near
        left = centre + focal * min(end0, end1)
        right = centre + focal * max(end0, end1)
        tex_width, tex_height = table[quad.texture, 0, 1], table[quad.texture, 0, 2]
        s_before = -1.0
        for column in range(max(0, math.ceil(left - 0.5)), min(width, math.ceil(right + 0.5))):
            tangent = (column - centre) / focal
            denominator = (x1 - x0) - tangent * (z1 - z0)
            s = (tangent * z0 - x0) / denominator if denominator != 0 else 0.5
            s = min(max(s, 0.0), 1.0)
            depth = max(z0 + s * (z1 - z0), near)
            top = horizon - focal * (quad.y1 - camera_y) / depth
            bottom = horizon - focal * (quad.y0 - camera_y) / depth
            if _finished(covered[column], top, bottom):
                s_before = s
                continue
            # Texels to a pixel decide the mip level; two levels are blended.
            if s_before < 0:
                s_before = s - abs(depth / focal / max(abs(x1 - x0), 1e-3))
            sideways = tex_width * abs(quad.u1 - quad.u0) * abs(s - s_before)
            s_before = s
            downwards = tex_height * quad.v1 / (bottom - top)
            exact = math.log2(max(downwards, 0.5 * sideways, 1.0))
            level = min(int(exact), LEVELS - 2)
            u = quad.u0 + s * (quad.u1 - quad.u0)
            offset, texels_across, size = table[quad.texture, level]
            _cut(fine, texels, offset, texels_across, size, u)
            if exact > level:
                offset, texels_across, half = table[quad.texture, level + 1]
                _cut(coarse, texels, offset, texels_across, half, u)
                _blend(fine, coarse, size, min(exact - level, 1.0))
            clear = math.exp(-depth / haze_m)
            seen = _overlap(column - 0.5, column + 0.5, left, right)
            _paint_column(
                *(luminance[column], covered[column], labels[column], fine, size),
                *(top, bottom, quad.v1, seen, quad.gain * clear, (1 - clear) * sky, quad.kind),
            )
