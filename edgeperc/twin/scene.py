"""What can be painted: upright pictures on a street, and a camera that looks at them.

x is to the right, y up and z along the street, all in metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
