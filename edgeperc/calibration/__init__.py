"""From a pixel of the wide picture to the gaze of the search camera, and back."""

from edgeperc.calibration.file import (
    Calibration,
    RigIdentity,
    calibration_of,
    identify,
    load_calibration,
    save_calibration,
    uncalibrated,
)
from edgeperc.calibration.fit import Errors, Fit, View, fit
from edgeperc.calibration.models import IdealLens
from edgeperc.calibration.points import Points, read_points, read_sizes, write_points
from edgeperc.calibration.refine import Refiner

__all__ = [
    "Calibration",
    "Errors",
    "Fit",
    "IdealLens",
    "Points",
    "Refiner",
    "RigIdentity",
    "View",
    "calibration_of",
    "fit",
    "identify",
    "load_calibration",
    "read_points",
    "read_sizes",
    "save_calibration",
    "uncalibrated",
    "write_points",
]
