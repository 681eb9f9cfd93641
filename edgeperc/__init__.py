"""Edge perception for vision, segmentation and event cameras."""

from __future__ import annotations

import os
from importlib.metadata import version

from edgeperc.errors import ConfigError, DataError, DeviceError, EdgepercError, ModelError
from edgeperc.packet import Events, Frame, Gaze, Packet, Pair, Sensor, Stamp
from edgeperc.result import Detections, Instances, LabelMap, Model, ModelRef, Result, Timings
from edgeperc.sink import Sink

__version__ = version("edgeperc")

# onnxruntime 1.29 and newer report their use to Microsoft, unless told so before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "ConfigError",
    "DataError",
    "Detections",
    "DeviceError",
    "EdgepercError",
    "Events",
    "Frame",
    "Gaze",
    "Instances",
    "LabelMap",
    "Model",
    "ModelError",
    "ModelRef",
    "Packet",
    "Pair",
    "Result",
    "Sensor",
    "Sink",
    "Stamp",
    "Timings",
    "__version__",
]
