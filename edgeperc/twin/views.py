"""What the cameras of the search rig see of an avenue, and the truth about it.

Boxes are xyxy in px with the picture's corner at (0, 0): pixel k covers k to k + 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeperc.packet import Gaze
from edgeperc.twin.avenue import Avenue
from edgeperc.twin.backdrop import Backdrop, Lens, backdrop
from edgeperc.twin.cast import cast
from edgeperc.twin.plots import FIRST_MOVER
from edgeperc.twin.rig import SEARCH_FIELD_RAD, Mount, as_array, wide_lens
from edgeperc.twin.sprites import (
    LUMINANCE,
    Layer,
    empty_layer,
    expose,
    luminance,
    paint_sprites,
    warp,
)

NOISE_LEVELS = 1.5
"""Standard deviation of the noise in a picture, in grey levels of 255."""
REACH_RAD = (math.radians(34.0), math.radians(-23.5), math.radians(13.5))
"""The search camera sees at most so far to either side, down and up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """All movers and parked cars that lie in a picture, a row each, nearest first.

    boxes: (N, 4) float32 px, of the whole thing whatever hides it, cut at the picture's edges.
    class_ids: (N,) int64 into `avenue.KINDS`. identities: (N,) int64, the same while somebody is in
    the world. visible: (N,) share of the thing that this picture shows, 0 to 1. depth_m: (N,).
    gaze_rad: (N, 2) pan and tilt that point the search camera at the thing's middle.
    """

    boxes: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    identities: NDArray[np.int64]
    visible: NDArray[np.float64]
    depth_m: NDArray[np.float64]
    gaze_rad: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.boxes)


class UprightView:
    """A camera that looks straight ahead: the wide camera, and the event camera's eye."""

    def __init__(self, avenue: Avenue, lens: Lens | None = None, mount: Mount | None = None):
        """mount: only for `Truth.gaze_rad`."""
        self.avenue, self.lens = avenue, lens or wide_lens()
        self._mount = mount or Mount()
        self._backdrop = backdrop(avenue, self.lens)

    def luminance(self, time_s: float) -> NDArray[np.float32]:
        """(height, width) float32, about 0 to 1."""
        light, cover, _, _ = self._layer(self.avenue.movers(time_s))
        luminance(light, cover, self._backdrop.grey, LUMINANCE)
        return np.ascontiguousarray(light.T)

    def image(self, time_s: float, *, noise: int | None = None) -> NDArray[np.uint8]:
        """(height, width) uint8 grey. noise: number of the picture, None for one without noise."""
        return _exposed(self.luminance(time_s), (self.avenue.seed, 0, noise))

    def regions(self, time_s: float) -> NDArray[np.uint8]:
        """What each pixel shows, (height, width) uint8 index into `plots.REGIONS`."""
        sprites = self.avenue.movers(time_s)
        who = self._layer(sprites)[2].T
        kinds = np.append(sprites["kind"] + FIRST_MOVER, 0).astype(np.uint8)
        regions: NDArray[np.uint8] = np.where(who >= 0, kinds[who], self._backdrop.codes.T & 7)
        return regions

    def instances(self, time_s: float) -> NDArray[np.int64]:
        """Identity of the mover that a pixel shows, (height, width), -1 for none."""
        sprites = self.avenue.movers(time_s)
        return _identities(sprites, self._layer(sprites)[2].T)

    def truth(self, time_s: float) -> Truth:
        """All movers in the picture."""
        sprites = self.avenue.movers(time_s)
        corners = _outlines(sprites, self.lens) + 0.5
        seen = self._layer(sprites)[3]
        size_px = (self.lens.width_px, self.lens.height_px)
        return _truth(sprites, corners, seen, size_px, self._mount)

    def _layer(self, sprites: NDArray[Any]) -> Layer:
        layer = empty_layer(self.lens.width_px, self.lens.height_px, len(sprites))
        _paint(layer, sprites, self._backdrop, self.avenue, (0, 0))
        return layer


class SearchView:
    """The search camera behind the mirror: a picture that is linear in azimuth and elevation.

    A pinhole camera's differs from it by less than a pixel in so small a field.
    """

    def __init__(
        self,
        avenue: Avenue,
        mount: Mount | None = None,
        *,
        width_px: int = 224,
        height_px: int = 224,
        field_rad: float = SEARCH_FIELD_RAD,
    ) -> None:
        """Paints the whole panorama at the search camera's resolution, which takes a second."""
        self.avenue, self.mount = avenue, mount or Mount()
        self.width_px, self.height_px = width_px, height_px
        self.pixel_rad = field_rad / width_px
        lens = _panorama(self.mount, 1 / self.pixel_rad)
        self._backdrop = backdrop(avenue, lens)
        self._right_rad = (np.arange(width_px) - (width_px - 1) / 2) * self.pixel_rad
        self._down_rad = (np.arange(height_px) - (height_px - 1) / 2) * self.pixel_rad

    def image(
        self, time_s: float, gazes: Gaze | Sequence[Gaze], *, noise: int | None = None
    ) -> NDArray[np.uint8]:
        """(height, width) uint8 grey.

        gazes: where the mirror points, or where it passes while the shutter is open. noise: number
        of the picture, None for one without noise.
        """
        looks = self._looks(gazes)
        rectangle = _rectangle(looks, self._backdrop)
        sprites = self.avenue.movers(time_s)
        layer = self._layer(sprites, rectangle)
        left, top, right, bottom = rectangle
        light, cover = layer[:2]
        luminance(light, cover, self._backdrop.grey[left:right, top:bottom], LUMINANCE)
        picture = np.zeros((self.height_px, self.width_px), np.float32)
        horizon = self._backdrop.lens.horizon_px - top
        for columns, tangents, stretch in looks:
            warp(light, columns - left, tangents, stretch, horizon, picture, 1 / len(looks))
        return _exposed(picture, (self.avenue.seed, 1, noise))

    def instances(self, time_s: float, gaze: Gaze) -> NDArray[np.int64]:
        """Identity of the mover that a pixel shows, (height, width), -1 for none."""
        looks = self._looks(gaze)
        columns, tangents, stretch = looks[0]
        left, top, right, bottom = rectangle = _rectangle(looks, self._backdrop)
        sprites = self.avenue.movers(time_s)
        who = self._layer(sprites, rectangle)[2]
        rows = self._backdrop.lens.horizon_px + tangents[:, None] * stretch
        x = np.clip(np.round(columns).astype(int) - left, 0, right - left - 1)
        y = np.clip(np.round(rows).astype(int) - top, 0, bottom - top - 1)
        return _identities(sprites, who[x, y])

    def truth(self, time_s: float, gaze: Gaze) -> Truth:
        """All movers in the picture."""
        sprites = self.avenue.movers(time_s)
        rectangle = _rectangle(self._looks(gaze), self._backdrop)
        seen = self._layer(sprites, rectangle)[3]
        pixels = self._pixels(_outlines(sprites, self._backdrop.lens), gaze)
        return _truth(sprites, pixels + 0.5, seen, (self.width_px, self.height_px), self.mount)

    def _pixels(self, panorama_px: NDArray[np.float64], gaze: Gaze) -> NDArray[np.float64]:
        """Where points of the panorama, (..., 2), lie in the picture of a gaze."""
        lens = self._backdrop.lens
        x = (panorama_px[..., 0] - lens.centre_px) / lens.focal_px
        y = (lens.horizon_px - panorama_px[..., 1]) / lens.focal_px
        azimuth, elevation = self._direction(gaze)
        across = (np.arctan(x) - azimuth) / self.pixel_rad + (self.width_px - 1) / 2
        down = (elevation - np.arctan(y / np.hypot(1, x))) / self.pixel_rad
        return np.stack([across, down + (self.height_px - 1) / 2], axis=-1)

    def _direction(self, gaze: Gaze) -> tuple[float, float]:
        azimuth, elevation = self.mount.direction(as_array(gaze)).tolist()
        half_across, half_down = self._right_rad[-1], self._down_rad[-1]
        side, low, high = REACH_RAD
        return (
            min(max(azimuth, half_across - side), side - half_across),
            min(max(elevation, low + half_down), high - half_down),
        )

    def _looks(
        self, gazes: Gaze | Sequence[Gaze]
    ) -> list[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]]:
        """For each gaze: columns of the panorama, and what `warp` makes rows of."""
        lens, looks = self._backdrop.lens, []
        for gaze in [gazes] if isinstance(gazes, Gaze) else gazes:
            azimuth, elevation = self._direction(gaze)
            right = azimuth + self._right_rad
            columns = lens.centre_px + lens.focal_px * np.tan(right)
            tangents = lens.focal_px * np.tan(self._down_rad - elevation)
            looks.append((columns, tangents, 1 / np.cos(right)))
        return looks

    def _layer(self, sprites: NDArray[Any], rectangle: tuple[int, int, int, int]) -> Layer:
        left, top, right, bottom = rectangle
        layer = empty_layer(right - left, bottom - top, len(sprites))
        _paint(layer, sprites, self._backdrop, self.avenue, (left, top))
        return layer


def _panorama(mount: Mount, focal_px: float) -> Lens:
    """The lens that sees whatever the search camera may see."""
    side, low, high = REACH_RAD
    across, slant = math.ceil(focal_px * math.tan(side)), 1 / math.cos(side)
    above, below = (math.ceil(focal_px * math.tan(abs(e)) * slant) for e in (high, low))
    return Lens(
        x=mount.x_m,
        y=wide_lens().y + mount.y_m,
        z=0.0,
        width_px=2 * across + 3,
        height_px=above + below + 3,
        focal_px=focal_px,
        centre_px=across + 1.0,
        horizon_px=above + 1.0,
    )


def _rectangle(looks: list[Any], behind: Backdrop) -> tuple[int, int, int, int]:
    """The part of the panorama that is looked at: left, top, right, bottom."""
    lefts, rights, tops, bottoms = [], [], [], []
    for columns, tangents, stretch in looks:
        lefts.append(columns[0])
        rights.append(columns[-1])
        ends = (stretch.min(), stretch.max())
        tops.append(min(tangents[0] * end for end in ends))
        bottoms.append(max(tangents[-1] * end for end in ends))
    lens = behind.lens
    return (
        max(math.floor(min(lefts)) - 1, 0),
        max(math.floor(lens.horizon_px + min(tops)) - 1, 0),
        min(math.ceil(max(rights)) + 2, lens.width_px),
        min(math.ceil(lens.horizon_px + max(bottoms)) + 2, lens.height_px),
    )


def _paint(
    layer: Layer,
    sprites: NDArray[Any],
    behind: Backdrop,
    avenue: Avenue,
    corner: tuple[int, int],
) -> None:
    """Paint movers into a layer whose first pixel is at `corner` of the backdrop."""
    lens, (width, height) = behind.lens, layer[0].shape
    codes = behind.codes[corner[0] : corner[0] + width, corner[1] : corner[1] + height]
    texels, table = _pictures()
    paint_sprites(
        *(layer, sprites, codes, texels, table, (lens.x, lens.y, lens.z)),
        (lens.focal_px, lens.centre_px - corner[0], lens.horizon_px - corner[1]),
        (avenue.haze_m, avenue.sky),
    )


def _outlines(sprites: NDArray[Any], lens: Lens) -> NDArray[np.float64]:
    """Corners of the movers' outlines in a lens's pixels, (N, HULL_POINTS, 2)."""
    hulls = cast().hulls[sprites["texture"]]
    flipped = sprites["flipped"][:, None] == 1
    u, v = np.where(flipped, 1 - hulls[..., 0], hulls[..., 0]), hulls[..., 1]
    column = {name: sprites[name][:, None] for name in ("x0", "x1", "y0", "y1", "z")}
    x = column["x0"] + u * (column["x1"] - column["x0"])
    y = column["y0"] + v * (column["y1"] - column["y0"])
    scale = lens.focal_px / (column["z"] - lens.z)
    return np.stack(
        [lens.centre_px + scale * (x - lens.x), lens.horizon_px - scale * (y - lens.y)], axis=-1
    )


def _identities(sprites: NDArray[Any], who: NDArray[np.int16]) -> NDArray[np.int64]:
    identities: NDArray[np.int64] = np.append(sprites["identity"], -1)[who]
    return identities


def _truth(
    sprites: NDArray[Any],
    corners: NDArray[np.float64],
    seen: NDArray[np.float64],
    size_px: tuple[int, int],
    mount: Mount,
) -> Truth:
    whole = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    boxes = np.clip(whole, 0, (*size_px, *size_px))
    inside = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    inside /= np.prod(whole[:, 2:] - whole[:, :2], axis=1)
    unhidden = np.divide(seen[:, 0], seen[:, 1], out=np.zeros(len(seen)), where=seen[:, 1] > 0)
    there = np.flatnonzero(inside > 0)
    sprites = sprites[there]
    middle = np.stack(
        [
            (sprites["x0"] + sprites["x1"]) / 2,
            (sprites["y0"] + sprites["y1"]) / 2,
            sprites["z"],
        ],
        axis=-1,
    )
    return Truth(
        boxes=boxes[there].astype(np.float32),
        class_ids=sprites["kind"].astype(np.int64),
        identities=sprites["identity"].copy(),
        visible=(inside * unhidden)[there],
        depth_m=sprites["z"].copy(),
        gaze_rad=mount.gaze_at(middle),
    )


@lru_cache(maxsize=1)
def _pictures() -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Texels and table of the cast's atlas, put together once."""
    atlas = cast().atlas
    return atlas.texels, atlas.table


@lru_cache(maxsize=1)
def _grain() -> NDArray[np.float32]:
    noise = np.random.default_rng(24).normal(0, NOISE_LEVELS, (1024, 1024))
    return noise.astype(np.float32)


def _exposed(picture: NDArray[np.float32], key: tuple[int, int, int | None]) -> NDArray[np.uint8]:
    """Grey levels of a luminance; noise from another corner of the grain for each picture."""
    out = np.empty(picture.shape, np.uint8)
    seed, camera, number = key
    if number is None:
        expose(picture, np.zeros((1, 1), np.float32), (0, 0), out)
    else:
        mixed = (seed * 1_000_003 + camera * 7919 + number) * 0x9E3779B97F4A7C15 >> 20
        expose(picture, _grain(), (mixed & 1023, mixed >> 10 & 1023), out)
    return out
