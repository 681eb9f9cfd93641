"""Where the middle of a search picture lies in the wide picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeperc.calibration.models import Array

LEAST_LIKENESS = 0.75
LEAST_LEAD = 0.02
_APART_PX = 3
_LEAST_CONTRAST = 2.0
_LEAST_SIDE_PX = 9
_STEP_RAD = 1e-3


@dataclass(frozen=True)
class Match:
    """Where the search picture's middle is, and how sure that is.

    wide_px: (2,). likeness: correlation there, at most 1. lead: by how much the correlation is less
    wherever else it was looked for.
    """

    wide_px: Array
    likeness: float
    lead: float


def locate(
    search: NDArray[np.uint8],
    wide: NDArray[np.uint8],
    *,
    near_px: Array,
    slope: Array,
    window_px: float,
) -> Match | str:
    """Find the search picture in the wide picture; or say in a word why not.

    The search picture is warped to the wide camera's scale, correlated around `near_px`, (2,) px,
    and the best place refined by an affine fit of grey levels (Evangelidis and Psarakis 2008).
    slope: (2, 2), wide px by search px. window_px: how far from near_px it may be. Pictures of
    which too little is inside, without contrast, or alike in several places are refused.
    """
    import cv2

    template = shrunk(grey(search), slope)
    if template is None:
        return "too small"
    if template.std() < _LEAST_CONTRAST:
        return "no contrast"
    half = template.shape[0] // 2
    part, corner = _around(grey(wide), near_px - 0.5, half + int(np.ceil(window_px)))
    if min(part.shape) < template.shape[0] + 2 * _APART_PX:
        return "outside"
    place, best, lead = _best_place(cv2.matchTemplate(part, template, cv2.TM_CCOEFF_NORMED))
    if best < LEAST_LIKENESS or lead < LEAST_LEAD:
        return "not alike" if best < LEAST_LIKENESS else "ambiguous"
    at, likeness = _refined(template, part, place)
    if likeness < LEAST_LIKENESS or np.abs(at - place).max() > _APART_PX:
        return "not alike"
    return Match(at + half + corner + 0.5, likeness, lead)  # from a pixel's middle to its corner


def shrunk(search: NDArray[np.float32], slope: Array) -> NDArray[np.float32] | None:
    """A square of odd side at the wide camera's scale, around the search picture's middle.

    None if less than a few wide pixels fit.
    """
    import cv2

    per_wide = np.linalg.inv(slope)  # search px by wide px
    middle = (np.array(search.shape[::-1]) - 1) / 2
    half = int((middle / np.abs(per_wide).sum(axis=1)).min())
    if 2 * half + 1 < _LEAST_SIDE_PX:
        return None
    scale = float(np.sqrt(abs(np.linalg.det(per_wide))))
    soft = cv2.GaussianBlur(search, (0, 0), max(0.5 * scale, 0.1))
    warp = np.concatenate([per_wide, (middle - per_wide @ (half, half))[:, None]], axis=1)
    side = (2 * half + 1, 2 * half + 1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(soft, warp, side, flags=flags), np.float32)


def slope_of(wide_px: Callable[[Array], Array], gaze: Array, px_per_rad: float) -> Array:
    """Wide px by search px at a gaze, (2, 2), from a map of gazes to wide px."""
    right, up = np.array([_STEP_RAD, 0.0]), np.array([0.0, _STEP_RAD])
    at = wide_px(np.stack([gaze + right, gaze - right, gaze + up, gaze - up]))
    by_pan, by_tilt = (at[0] - at[1]), (at[2] - at[3])
    return np.stack([by_pan, -by_tilt], axis=1) / (2 * _STEP_RAD * px_per_rad)


def grey(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(H, W) float32 of a grey or RGB picture."""
    return (image if image.ndim == 2 else image.mean(axis=2)).astype(np.float32)


def _around(
    picture: NDArray[np.float32], middle_px: Array, reach: int
) -> tuple[NDArray[np.float32], Array]:
    """What lies within `reach` px, cut at the edges, and where its corner is."""
    middle = np.round(middle_px).astype(int)
    left, top = np.maximum(middle - reach, 0)
    right, bottom = np.clip(middle + reach + 1, (left, top), picture.shape[::-1])
    part = np.ascontiguousarray(picture[top:bottom, left:right])
    return part, np.array([left, top], np.float64)


def _best_place(likeness: Any) -> tuple[tuple[int, int], float, float]:
    """Column and row of the highest value, that, and how much lower all away from it are."""
    row, column = (int(k) for k in np.unravel_index(np.argmax(likeness), likeness.shape))
    rows, columns = np.ogrid[: likeness.shape[0], : likeness.shape[1]]
    elsewhere = np.maximum(abs(rows - row), abs(columns - column)) > _APART_PX
    second = float(likeness[elsewhere].max(initial=-1.0))
    best = float(likeness[row, column])
    return (column, row), best, best - second


def _refined(
    template: NDArray[np.float32], part: NDArray[np.float32], corner: tuple[int, int]
) -> tuple[Array, float]:
    """Where the template's corner would be by where its middle is, to a fraction of a px.

    And the likeness there, 0 where the fit does not converge.
    """
    import cv2

    half = template.shape[0] // 2
    start = np.array([[1, 0, corner[0]], [0, 1, corner[1]]], np.float32)
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 1e-5)
    everywhere = np.full(part.shape, 255, np.uint8)
    try:
        likeness, warp = cv2.findTransformECC(
            template, part, start, cv2.MOTION_AFFINE, stop, everywhere, 3
        )
    except cv2.error:  # there is nothing to hold on to
        return np.array(corner, np.float64), 0.0
    return np.asarray(warp, np.float64) @ (half, half, 1.0) - half, float(likeness)
