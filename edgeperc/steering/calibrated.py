"""A rig's calibration, for whoever turns pixels of the wide camera into angles of the mirror.

    gaze = calibrations(plan)((960, 448)).gaze(wide_px)

Apart from the search, so that a page which draws its beliefs needs nothing that runs networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

from edgeperc.calibration.file import Calibration, identify, load_calibration, uncalibrated
from edgeperc.errors import ConfigError
from edgeperc.plan import Plan


def calibrated_size(plan: Plan) -> tuple[int, int] | None:
    """Width and height of the wide pictures that a rig was calibrated for."""
    if not plan.rig.calibration:
        return None
    stored = load_calibration(plan.rig_path.parent / plan.rig.calibration).rig
    return stored.width_px, stored.height_px


def calibrations(plan: Plan) -> Callable[[tuple[int, int]], Calibration]:
    """The rig's calibration for a size of wide picture; without a file a linear guess.

    Raises ConfigError if the file cannot be read or is of another rig, and the answer if it is
    of another size of picture.
    """
    rig, field = plan.rig, plan.rig.field
    stored = None
    if rig.calibration:
        identity = identify(rig, field.wide, field.search, calibrated_size(plan) or (0, 0))
        stored = load_calibration(plan.rig_path.parent / rig.calibration, identity)

    @lru_cache(maxsize=8)
    def of_size(picture_px: tuple[int, int]) -> Calibration:
        if stored is None:
            identity = identify(rig, field.wide, field.search, picture_px)
            return uncalibrated(identity, math.radians(field.wide_deg))
        if picture_px != (stored.rig.width_px, stored.rig.height_px):
            raise ConfigError(
                f"{rig.calibration}: is for wide pictures of {stored.rig.width_px} ×"
                f" {stored.rig.height_px} px, these are {picture_px[0]} × {picture_px[1]}",
                hint="run edgeperc calibrate with the camera's present size",
            )
        return stored

    return of_size
