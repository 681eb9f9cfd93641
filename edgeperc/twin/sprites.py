"""Paint movers over a backdrop: pictures that face the viewer, hidden by what stands nearer.

Pictures are (width, height) here, as in `twin.canvas`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeperc.jit import kernel
from edgeperc.twin.canvas import FULL, overlap
from edgeperc.twin.quads import blend_column, cut_column
from edgeperc.twin.textures import LEVELS

Layer = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int16], NDArray[np.float64]]
"""What movers add to a window of a picture.

Their luminance and the share of the pixel they cover, (width, height) each; index of the sprite
that covers the pixel's half, or -1; and for each sprite, (N, 2), how many pixels of it are seen
and how many would be if nothing hid it.
"""
LUMINANCE = ((np.arange(256) / 255) ** 2).astype(np.float32)
"""What a grey level of a backdrop means."""


def empty_layer(width: int, height: int, sprites: int) -> Layer:
    """A layer without movers."""
    return (
        np.zeros((width, height), np.float32),
        np.zeros((width, height), np.float32),
        np.full((width, height), -1, np.int16),
        np.zeros((sprites, 2)),
    )


@kernel(fastmath=True)
def paint_sprites(
    layer: Layer,
    sprites: NDArray[Any],
    codes: NDArray[np.uint8],
    texels: NDArray[np.float32],
    table: NDArray[np.int32],
    eye: tuple[float, float, float],
    lens: tuple[float, float, float],
    air: tuple[float, float],
) -> None:
    """Paint sprites, nearest first, into a layer that is empty.

    sprites: (N,) avenue.SPRITE. codes: (width, height) of the window, see `plots.Plots`. texels,
    table: see `textures.Atlas`. eye: x, y, z of the camera. lens: focal length, and column and row
    of the horizon's middle, in pixels of the window. air: haze_m and luminance of the sky.
    """
    light, cover, who, seen = layer
    focal, centre, horizon = lens
    width, height = light.shape
    fine, coarse = np.empty((128, 2), np.float32), np.empty((128, 2), np.float32)
    for k in range(len(sprites)):
        sprite = sprites[k]
        scale = focal / (sprite.z - eye[2])
        left, right = centre + scale * (sprite.x0 - eye[0]), centre + scale * (sprite.x1 - eye[0])
        top, bottom = horizon - scale * (sprite.y1 - eye[1]), horizon - scale * (sprite.y0 - eye[1])
        texture, track = sprite.texture, sprite.track
        clear = math.exp(-(sprite.z - eye[2]) / air[0])
        gain, air_light = sprite.gain * clear, (1 - clear) * air[1]
        # Texels to a pixel decide the mip level; two levels are blended.
        across, down = table[texture, 0, 1] / (right - left), table[texture, 0, 2] / (bottom - top)
        exact = math.log2(max(down, 0.5 * across, 1.0))
        level = min(int(exact), LEVELS - 2)
        offset, texels_across, size = table[texture, level]
        next_offset, next_across, half = table[texture, level + 1]
        first, last = max(0, math.ceil(top - 0.5)), min(height, math.ceil(bottom + 0.5))
        for column in range(max(0, math.ceil(left - 0.5)), min(width, math.ceil(right + 0.5))):
            u = min(max((column - left) / (right - left), 0.0), 1.0)
            if sprite.flipped:
                u = 1 - u
            cut_column(fine, texels, offset, texels_across, size, u)
            if exact > level:
                cut_column(coarse, texels, next_offset, next_across, half, u)
                blend_column(fine, coarse, size, min(exact - level, 1.0))
            share_of_column = overlap(column - 0.5, column + 0.5, left, right)
            for row in range(first, last):
                position = min(max((row - top) * size / (bottom - top) - 0.5, 0.0), size - 1.0)
                above = int(position)
                share = position - above
                below = min(above + 1, size - 1)
                alpha = fine[above, 1] + share * (fine[below, 1] - fine[above, 1])
                part = share_of_column * overlap(row - 0.5, row + 0.5, top, bottom)
                seen[k, 1] += part * alpha
                before = cover[column, row]
                if before >= FULL or codes[column, row] >> 3 <= track:
                    continue
                part *= 1 - before
                seen[k, 0] += part * alpha
                lit = fine[above, 0] + share * (fine[below, 0] - fine[above, 0])
                light[column, row] += part * (lit * gain + alpha * air_light)
                cover[column, row] = before + part * alpha
                if before < 0.5 <= cover[column, row]:
                    who[column, row] = k


@kernel(fastmath=True)
def luminance(
    light: NDArray[np.float32],
    cover: NDArray[np.float32],
    grey: NDArray[np.uint8],
    levels: NDArray[np.float32],
) -> None:
    """Put the backdrop behind a layer: `light` becomes the luminance of the picture, in place."""
    for column in range(light.shape[0]):
        for row in range(light.shape[1]):
            light[column, row] += (1 - cover[column, row]) * levels[grey[column, row]]


@kernel(fastmath=True)
def warp(
    light: NDArray[np.float32],
    columns: NDArray[np.float64],
    tangents: NDArray[np.float64],
    stretch: NDArray[np.float64],
    horizon: float,
    picture: NDArray[np.float32],
    share: float,
) -> None:
    """Add `share` of a view through the mirror to `picture`, (height, width).

    light: (width, height) of a pinhole picture. columns: (width,) where a column looks in it.
    Row r of column c looks at row horizon + tangents[r] · stretch[c].
    """
    wide, high = light.shape
    for c in range(picture.shape[1]):
        x = min(max(columns[c], 0.0), wide - 1.001)
        left = int(x)
        right_share = x - left
        for r in range(picture.shape[0]):
            y = min(max(horizon + tangents[r] * stretch[c], 0.0), high - 1.001)
            top = int(y)
            low_share = y - top
            a = light[left, top] + low_share * (light[left, top + 1] - light[left, top])
            b = light[left + 1, top] + low_share * (light[left + 1, top + 1] - light[left + 1, top])
            picture[r, c] += share * (a + right_share * (b - a))


@kernel(fastmath=True)
def expose(
    picture: NDArray[np.float32],
    grain: NDArray[np.float32],
    corner: tuple[int, int],
    out: NDArray[np.uint8],
) -> None:
    """Grey levels of a luminance picture, (height, width), with noise.

    grain: (N, N) float32 in grey levels, N a power of two, read from `corner`, a row and a column.
    """
    mask = len(grain) - 1
    for r in range(picture.shape[0]):
        for c in range(picture.shape[1]):
            noise = grain[(r + corner[0]) & mask, (c + corner[1]) & mask]
            level = 255 * math.sqrt(max(picture[r, c], 0.0)) + noise
            out[r, c] = np.uint8(min(max(level + 0.5, 0.0), 255.0))
