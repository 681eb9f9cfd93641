"""sensor_msgs/CameraInfo of each picture: what is known of its lens, or that nothing is.

    cameras = Cameras(intrinsics_of(rig, rig_path))
    cameras.message(header, "wide", (960, 448))     # header: of the picture that it goes with

Conventions are ROS's. K, R, P are those of the pictures that the camera was calibrated with; where
it sends a window of these, or bins them, `roi` and `binning` say so. K = 0 is a camera that is not
calibrated, or whose pictures are not those that it was calibrated with.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeperc.calibration.intrinsics import Intrinsics
from edgeperc.ros.codec import make

log = logging.getLogger("edgeperc")

CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
_ROI = "sensor_msgs/msg/RegionOfInterest"


class Cameras:
    """What is known of a rig's cameras. May be used from any thread."""

    def __init__(self, known: Mapping[str, Intrinsics] | None = None) -> None:
        self._known = dict(known or {})
        self._fields: dict[tuple[str, int, int], dict[str, Any]] = {}

    def message(self, header: Any, source: str, picture_px: tuple[int, int]) -> Any:
        """The CameraInfo of a picture. picture_px: its width and height."""
        key = (source, *picture_px)
        if key not in self._fields:
            self._fields[key] = self._of(source, picture_px)
        return make(CAMERA_INFO, header=header, **self._fields[key])

    def _of(self, source: str, picture_px: tuple[int, int]) -> dict[str, Any]:
        lens = self._known.get(source)
        if lens is None:
            return _unknown(picture_px)
        fields = _fields(lens, picture_px)
        if fields is None:
            log.warning(
                "camera_info of '%s': its intrinsics are for pictures of %d x %d px, it sends"
                " %d x %d; it counts as not calibrated",
                *(source, lens.width_px, lens.height_px, *picture_px),
            )
        return fields or _unknown(picture_px)


def _fields(lens: Intrinsics, picture_px: tuple[int, int]) -> dict[str, Any] | None:
    """All but the header; None if the pictures are not a part of those it was calibrated with."""
    whole_px = (lens.width_px, lens.height_px)
    window = (0, 0, 0, 0)
    if tuple(size // lens.binning for size in whole_px) != picture_px:
        if lens.window_px is None:
            return None
        (x, y), (width, height) = lens.window_px, (size * lens.binning for size in picture_px)
        if x + width > lens.width_px or y + height > lens.height_px:
            return None
        window = (x, y, width, height)
    return _all(
        picture_px=whole_px,
        model=lens.model,
        d=lens.distortion,
        k=lens.matrix,
        r=lens.rectification,
        p=lens.projection,
        binning=0 if lens.binning == 1 else lens.binning,
        window=window,
    )


def _unknown(picture_px: tuple[int, int]) -> dict[str, Any]:
    return _all(picture_px=picture_px, model="", d=(), k=[0.0] * 9, r=[0.0] * 9, p=[0.0] * 12)


def _all(
    *,
    picture_px: tuple[int, int],
    model: str,
    d: Any,
    k: Any,
    r: Any,
    p: Any,
    binning: int = 0,
    window: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> dict[str, Any]:
    x, y, width, height = window
    roi = make(
        _ROI, x_offset=x, y_offset=y, height=height, width=width, do_rectify=bool(width or height)
    )
    matrices = {
        name: np.array(values, np.float64)
        for name, values in zip("dkrp", (d, k, r, p), strict=True)
    }
    return {
        "height": picture_px[1],
        "width": picture_px[0],
        "distortion_model": model,
        **matrices,
        "binning_x": binning,
        "binning_y": binning,
        "roi": roi,
    }
