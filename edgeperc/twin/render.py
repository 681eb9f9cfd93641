"""Paint a street as a pinhole camera sees it: luminance and class of every pixel.

Everything that stands is an upright textured rectangle (a "quad"), painted from near to far where
nothing nearer covers it; then ground and sky fill what is left. Edges and textures are averaged
over a pixel, because an aliased edge that crawls through the picture would make events that no
sensor ever sees.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeperc.twin.canvas import Canvas
from edgeperc.twin.ground import paint_ground, pyramid
from edgeperc.twin.quads import paint_quads
from edgeperc.twin.scene import Camera, Scene
from edgeperc.twin.textures import Atlas


class Painter:
    """Paints scenes for one camera with one set of textures; buffers are kept between pictures."""

    def __init__(self, camera: Camera, atlas: Atlas, noise: NDArray[np.float32]) -> None:
        """noise: (N, N) float32 tileable, N a power of two, mean 0: the grain of the ground."""
        self.camera = camera
        self._texels, self._table = atlas.texels, atlas.table
        self._noise = pyramid(noise)
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
        paint_quads(self._canvas, _near_to_far(scene), self._texels, self._table, view, air)
        paint_ground(
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
