"""Who is in a picture of the avenue, and where.

Boxes are xyxy in px with the picture's corner at (0, 0): pixel k covers k to k + 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeperc.twin.backdrop import Lens
from edgeperc.twin.cast import cast
from edgeperc.twin.rig import Mount


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


def outlines(sprites: NDArray[Any], lens: Lens) -> NDArray[np.float64]:
    """Corners of the movers' outlines in a lens's pixels, (N, HULL_POINTS, 2)."""
    hulls = cast().hulls[sprites["texture"]]
    flipped = sprites["flipped"][:, None] == 1
    u, v = np.where(flipped, 1 - hulls[..., 0], hulls[..., 0]), hulls[..., 1]
    x0, x1, y0, y1, z = (sprites[name][:, None] for name in ("x0", "x1", "y0", "y1", "z"))
    scale = lens.focal_px / (z - lens.z)
    columns = lens.centre_px + scale * (x0 + u * (x1 - x0) - lens.x)
    return np.stack(
        [columns, lens.horizon_px - scale * (y0 + v * (y1 - y0) - lens.y)],
        axis=-1,
    )


def truth_of(
    sprites: NDArray[Any],
    corners_px: NDArray[np.float64],
    seen: NDArray[np.float64],
    size_px: tuple[int, int],
    mount: Mount,
) -> Truth:
    """Gather the truth about a picture of `size_px`, width and height.

    corners_px: (N, K, 2) outlines in the picture, pixel centres at whole numbers. seen: see
    `sprites.Layer`.
    """
    whole = np.concatenate([corners_px.min(1), corners_px.max(1)], axis=1) + 0.5
    boxes = np.clip(whole, 0, (*size_px, *size_px))
    inside = _area(boxes) / _area(whole)
    unhidden = np.divide(seen[:, 0], seen[:, 1], out=np.zeros(len(seen)), where=seen[:, 1] > 0)
    there = np.flatnonzero(inside > 0)
    sprites = sprites[there]
    x, y = (sprites[f"{axis}0"] / 2 + sprites[f"{axis}1"] / 2 for axis in "xy")
    return Truth(
        boxes=boxes[there].astype(np.float32),
        class_ids=sprites["kind"].astype(np.int64),
        identities=sprites["identity"].copy(),
        visible=(inside * unhidden)[there],
        depth_m=sprites["z"].copy(),
        gaze_rad=mount.gaze_at(np.stack([x, y, sprites["z"]], axis=-1)),
    )


def identities(sprites: NDArray[Any], who: NDArray[np.int16]) -> NDArray[np.int64]:
    """Identities of the sprites whose index `who` gives; -1 for -1."""
    found: NDArray[np.int64] = np.append(sprites["identity"], -1)[who]
    return found


def _area(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
