"""Short clips with masks to learn prompting and tracking from, drawn from stills and videos.

    still = Stills(pictures, maps)             # segments of photographs
    video = Videos(sequences)                  # one object a sequence
    clip = still.draw(rng, frames=4, side_px=256, objects=3)
    clip = paste(clip, cutout, rng)            # something else moves through the picture

A still becomes a clip by a camera that moves over it. All randomness comes from `rng`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Rng: TypeAlias = np.random.Generator
Image: TypeAlias = NDArray[np.uint8]

SMALLEST_SHARE, LARGEST_SHARE = 0.003, 0.8
"""Of a picture's area: segments beyond are nothing that one would point at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """pictures: (T, S, S, 3) uint8 RGB. masks: (M, T, S, S) bool, one object a row."""

    pictures: Image
    masks: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutout:
    """Something to paste. picture: (H, W, 3) uint8. mask: (H, W) bool."""

    picture: Image
    mask: NDArray[np.bool_]


class Stills:
    """Photographs, each with one or more segment maps; 0 in a map is nothing.

    pictures: (H, W, 3) uint8 each. maps: for each picture, (H, W) integer maps.
    """

    def __init__(
        self, pictures: Sequence[Image], maps: Sequence[Sequence[NDArray[np.integer[Any]]]]
    ) -> None:
        self._pictures, self._maps = pictures, maps

    def draw(self, rng: Rng, *, frames: int, side_px: int, objects: int) -> Clip | None:
        """At most `objects` segments of a photograph; None where none is of a good size."""
        index = int(rng.integers(len(self._pictures)))
        picture = self._pictures[index]
        segments = self._maps[index][int(rng.integers(len(self._maps[index])))]
        views = _views(rng, picture.shape[:2], side_px, frames)
        segments = segments.astype(np.int16)
        seen = np.stack([_warp(segments, view, side_px, nearest=True) for view in views])
        ids = _of_good_size(seen[0])
        if not len(ids):
            return None
        chosen = rng.choice(ids, size=min(objects, len(ids)), replace=False)
        return Clip(
            pictures=np.stack([_warp(picture, view, side_px) for view in views]),
            masks=np.stack([seen == each for each in chosen]),
        )

    def cutout(self, rng: Rng) -> Cutout | None:
        """A segment to paste elsewhere."""
        index = int(rng.integers(len(self._pictures)))
        segments = self._maps[index][int(rng.integers(len(self._maps[index])))]
        ids = _of_good_size(segments, largest=0.25)
        if not len(ids):
            return None
        return _cut(self._pictures[index], segments == rng.choice(ids))


class Videos:
    """Sequences of pictures (T, H, W, 3) uint8, each with masks (T, H, W) bool of one object."""

    def __init__(self, sequences: Sequence[tuple[Image, NDArray[np.bool_]]]) -> None:
        self._sequences = sequences

    def draw(self, rng: Rng, *, frames: int, side_px: int, objects: int) -> Clip | None:
        """`frames` pictures some steps apart, now and then backwards; None if nothing is seen."""
        pictures, masks = self._sequences[int(rng.integers(len(self._sequences)))]
        stride = min(int(rng.integers(1, 6)), (len(pictures) - 1) // max(frames - 1, 1))
        first = int(rng.integers(len(pictures) - stride * (frames - 1)))
        order = first + stride * np.arange(frames)
        order = order[::-1] if rng.random() < 0.5 else order
        views = _views(rng, pictures.shape[1:3], side_px, frames, around=masks[order[0]])
        seen = [
            _warp(masks[i].astype(np.float32), view, side_px) > 0.5
            for i, view in zip(order, views, strict=True)
        ]
        if seen[0].mean() < SMALLEST_SHARE:
            return None
        return Clip(
            pictures=np.stack(
                [_warp(pictures[i], view, side_px) for i, view in zip(order, views, strict=True)]
            ),
            masks=np.stack(seen)[None],
        )

    def cutout(self, rng: Rng) -> Cutout | None:
        """The object of one picture."""
        pictures, masks = self._sequences[int(rng.integers(len(self._sequences)))]
        index = int(rng.integers(len(pictures)))
        return _cut(pictures[index], masks[index]) if masks[index].any() else None


def paste(clip: Clip, cutout: Cutout, rng: Rng, *, follow: bool = True) -> Clip:
    """Let a cutout move through a clip, before everything else.

    follow: its mask becomes the first object; otherwise it only hides what it passes.
    """
    frames, side_px = clip.pictures.shape[:2]
    height_px, width_px = cutout.mask.shape
    wanted_px = side_px * rng.uniform(0.15, 0.6)
    zoom = wanted_px / max(height_px, width_px)
    place = rng.uniform(0.15, 0.85, 2) * side_px
    drift = rng.normal(0, 0.06 * side_px, 2)
    turn, spin = rng.normal(0, 0.2), rng.normal(0, 0.08)
    swell = float(np.exp(rng.normal(0, 0.04)))
    flip = rng.random() < 0.5
    pictures, masks = clip.pictures.copy(), clip.masks.copy()
    own = np.zeros((frames, side_px, side_px), np.bool_)
    for t in range(frames):
        view = _placed((width_px / 2, height_px / 2), place, zoom * swell**t, turn + spin * t, flip)
        share = _warp(cutout.mask.astype(np.float32), view, side_px)[..., None]
        thing = _warp(cutout.picture, view, side_px)
        pictures[t] = (pictures[t] * (1 - share) + thing * share).astype(np.uint8)
        own[t] = share[..., 0] > 0.5
        masks[:, t] &= ~own[t]
        drift = drift + rng.normal(0, 0.015 * side_px, 2)
        place = place + drift
    if follow and own[0].mean() > SMALLEST_SHARE:
        masks = np.concatenate([own[None], masks])
    return Clip(pictures=pictures, masks=masks)


def recolour(clip: Clip, rng: Rng) -> Clip:
    """Another light: gain, contrast, saturation, tint, now and then grey, blurred or noisy."""
    pictures: NDArray[Any] = clip.pictures.astype(np.float32)
    grey = pictures.mean(axis=-1, keepdims=True)
    saturation = 0.0 if rng.random() < 0.1 else rng.uniform(0.5, 1.5)
    pictures = grey + (pictures - grey) * saturation
    gain = rng.uniform(0.65, 1.35) * rng.uniform(0.9, 1.1, 3) ** (saturation > 0)
    pictures = (pictures - 128) * rng.uniform(0.75, 1.25) + 128 * gain
    pictures = pictures * rng.normal(1, 0.03, (len(pictures), 1, 1, 1))
    if rng.random() < 0.15:
        pictures = np.stack([cv2.GaussianBlur(p, (0, 0), 1.0) for p in pictures])
    if rng.random() < 0.15:
        pictures += rng.normal(0, rng.uniform(2, 12), pictures.shape)
    return Clip(pictures=pictures.clip(0, 255).astype(np.uint8), masks=clip.masks)


def _views(
    rng: Rng,
    size: tuple[int, ...],
    side_px: int,
    frames: int,
    around: NDArray[np.bool_] | None = None,
) -> list[NDArray[np.float64]]:
    """A camera's affine views of a picture, frame after frame: (2, 3) each.

    The whole picture is stretched to the square as at run time, then zoomed into; around: what the
    zoom should keep in sight.
    """
    height_px, width_px = size[:2]
    zoom = float(np.exp(rng.uniform(-0.1, 0.8)))
    scale = zoom * side_px / np.array([width_px, height_px], np.float64)
    scale *= np.exp(rng.normal(0, 0.12) * np.array([1, -1]))
    centre = np.array([width_px, height_px]) * rng.uniform(0.3, 0.7, 2)
    if around is not None and around.any() and rng.random() < 0.8:
        rows, columns = np.nonzero(around[::8, ::8])
        if len(rows):
            centre = 8.0 * np.array([columns.mean(), rows.mean()])
            centre += rng.normal(0, 0.1, 2) * size[1::-1]
    slack = np.maximum(0, np.array([width_px, height_px]) - side_px / scale) / 2
    middle = np.array([width_px, height_px]) / 2
    centre = np.clip(centre, middle - slack, middle + slack)
    turn, flip = rng.normal(0, 0.08), rng.random() < 0.5
    drift, spin = rng.normal(0, 0.02 * side_px, 2), rng.normal(0, 0.02)
    swell = float(np.exp(rng.normal(0, 0.02)))
    place = np.full(2, side_px / 2.0)
    views = []
    for t in range(frames):
        views.append(_placed(centre, place, scale * swell**t, turn + spin * t, flip))
        drift = drift + rng.normal(0, 0.005 * side_px, 2)
        place = place + drift
    return views


def _placed(
    centre: Any, place: NDArray[np.float64], scale: Any, turn: float, flip: bool
) -> NDArray[np.float64]:
    """The affine map that brings `centre` to `place`, scaled, turned and perhaps mirrored."""
    cos, sin = np.cos(turn), np.sin(turn)
    mirror = np.diag([-1.0 if flip else 1.0, 1.0])
    linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag(np.broadcast_to(scale, 2)) @ mirror
    return np.column_stack([linear, place - linear @ np.asarray(centre, np.float64)])


def _warp(
    values: NDArray[Any], view: NDArray[np.float64], side_px: int, *, nearest: bool = False
) -> NDArray[Any]:
    how = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    if values.ndim == 3 and abs(np.linalg.det(view[:, :2])) < 0.25:
        # Halve first, or a strong reduction would alias.
        values = cv2.resize(values, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        view = view @ np.diag([2.0, 2.0, 1.0])
    return cv2.warpAffine(values, view, (side_px, side_px), flags=how)


def _of_good_size(
    segments: NDArray[Any], *, largest: float = LARGEST_SHARE
) -> NDArray[np.integer[Any]]:
    """The numbers of the segments that are neither too small nor nearly everything."""
    ids, counts = np.unique(segments, return_counts=True)
    shares = counts / segments.size
    good: NDArray[np.integer[Any]] = ids[(ids > 0) & (shares > SMALLEST_SHARE) & (shares < largest)]
    return good


def _cut(picture: Image, mask: NDArray[np.bool_]) -> Cutout:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return Cutout(picture=picture[box], mask=mask[box])
