"""What the cameras of the search rig see of an avenue, and the truth about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

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
from edgeperc.twin.truth import Truth, identities, outlines, truth_of

NOISE_LEVELS = 1.5
"""Standard deviation of the noise in a picture, in grey levels of 255."""
REACH_RAD = (math.radians(34.0), math.radians(-23.5), math.radians(13.5))
"""The search camera sees at most so far to either side, down and up."""


class Look(NamedTuple):
    """Where the search camera's columns and rows lie in the panorama; see `sprites.warp`."""

    columns: NDArray[np.float64]
    tangents: NDArray[np.float64]
    stretch: NDArray[np.float64]


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
        return identities(sprites, self._layer(sprites)[2].T)

    def truth(self, time_s: float) -> Truth:
        """All movers in the picture."""
        sprites = self.avenue.movers(time_s)
        corners_px = outlines(sprites, self.lens)
        seen = self._layer(sprites)[3]
        size_px = (self.lens.width_px, self.lens.height_px)
        return truth_of(sprites, corners_px, seen, size_px, self._mount)

    def _layer(self, sprites: NDArray[Any]) -> Layer:
        layer = empty_layer(self.lens.width_px, self.lens.height_px, len(sprites))
        _paint(layer, sprites, self._backdrop, self.avenue, (0, 0))
        return layer


class SearchView:
    """The search camera behind the mirror: a picture that is linear in azimuth and elevation.

    A pinhole camera pointed there would show azimuths narrower by the cosine of the elevation, 3 %
    in the middle of the roads and 6 % at the field's lower edge; it is the same at the middle.
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
        for look in looks:
            columns = look.columns - left
            warp(light, columns, look.tangents, look.stretch, horizon, picture, 1 / len(looks))
        return _exposed(picture, (self.avenue.seed, 1, noise))

    def instances(self, time_s: float, gaze: Gaze) -> NDArray[np.int64]:
        """Identity of the mover that a pixel shows, (height, width), -1 for none."""
        (look,) = looks = self._looks(gaze)
        left, top, right, bottom = rectangle = _rectangle(looks, self._backdrop)
        sprites = self.avenue.movers(time_s)
        who = self._layer(sprites, rectangle)[2]
        rows = self._backdrop.lens.horizon_px + look.tangents[:, None] * look.stretch
        x = np.clip(np.round(look.columns).astype(int) - left, 0, right - left - 1)
        y = np.clip(np.round(rows).astype(int) - top, 0, bottom - top - 1)
        return identities(sprites, who[x, y])

    def truth(self, time_s: float, gaze: Gaze) -> Truth:
        """All movers in the picture."""
        sprites = self.avenue.movers(time_s)
        rectangle = _rectangle(self._looks(gaze), self._backdrop)
        seen = self._layer(sprites, rectangle)[3]
        pixels = self._pixels(outlines(sprites, self._backdrop.lens), gaze)
        return truth_of(sprites, pixels, seen, (self.width_px, self.height_px), self.mount)

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

    def _looks(self, gazes: Gaze | Sequence[Gaze]) -> list[Look]:
        """A look for each gaze."""
        lens, looks = self._backdrop.lens, []
        for gaze in [gazes] if isinstance(gazes, Gaze) else gazes:
            azimuth, elevation = self._direction(gaze)
            right = azimuth + self._right_rad
            columns = lens.centre_px + lens.focal_px * np.tan(right)
            tangents = lens.focal_px * np.tan(self._down_rad - elevation)
            looks.append(Look(columns, tangents, 1 / np.cos(right)))
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


def _rectangle(looks: Sequence[Look], behind: Backdrop) -> tuple[int, int, int, int]:
    """The part of the panorama that is looked at: left, top, right, bottom."""
    lens = behind.lens
    left = min(look.columns[0] for look in looks)
    right = max(look.columns[-1] for look in looks)
    ends = [(look, end) for look in looks for end in (look.stretch.min(), look.stretch.max())]
    top = lens.horizon_px + min(look.tangents[0] * end for look, end in ends)
    bottom = lens.horizon_px + max(look.tangents[-1] * end for look, end in ends)
    return (
        max(math.floor(left) - 1, 0),
        max(math.floor(top) - 1, 0),
        min(math.ceil(right) + 2, lens.width_px),
        min(math.ceil(bottom) + 2, lens.height_px),
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
