"""Paint upright textured rectangles, column by column, from near to far."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeperc.jit import kernel
from edgeperc.twin.canvas import FULL, Canvas, View, overlap
from edgeperc.twin.textures import LEVELS


@kernel(fastmath=True)
def cut_column(
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
def blend_column(
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
        seen = (1 - before) * share_of_column * overlap(row - 0.5, row + 0.5, top, bottom)
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
def paint_quads(
    canvas: Canvas,
    quads: NDArray[Any],
    texels: NDArray[np.float32],
    table: NDArray[np.int32],
    view: View,
    air: tuple[float, float],
) -> None:
    """Paint quads, nearest first, where the canvas is still open.

    quads: (N,) scene.QUAD. texels, table: see `textures.Atlas`. air: haze_m and sky of the scene.
    """
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
            cut_column(fine, texels, offset, texels_across, size, u)
            if exact > level:
                offset, texels_across, half = table[quad.texture, level + 1]
                cut_column(coarse, texels, offset, texels_across, half, u)
                blend_column(fine, coarse, size, min(exact - level, 1.0))
            clear = math.exp(-depth / haze_m)
            seen = overlap(column - 0.5, column + 0.5, left, right)
            _paint_column(
                *(luminance[column], covered[column], labels[column], fine, size),
                *(top, bottom, quad.v1, seen, quad.gain * clear, (1 - clear) * sky, quad.kind),
            )
