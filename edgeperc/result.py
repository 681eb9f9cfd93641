"""What we say about packets: label maps, detections, masks of objects, a search's beliefs, and who
computed them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeperc.packet import Gaze, ModelInput, Stamp

if TYPE_CHECKING:
    from edgeperc.masks import Rle

UNKNOWN = 255
"""Label of a pixel that the network did not look at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRef:
    """What really ran: the artifact's sha256, the engine and the provider that took the session."""

    name: str
    sha256: str = ""
    engine: str = ""
    provider: str = ""
    precision: str = "fp32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Stage times of one result in ns; for diagnosis only, the time of a result is its Stamp.

    wait: from the packet's arrival to the start of work. represent: packet to tensor. infer:
    tensor to labels. total: from the packet's arrival until the result is handed to the sinks.
    """

    wait_ns: int = 0
    represent_ns: int = 0
    infer_ns: int = 0
    total_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelMap:
    """A class for each pixel. labels: (H, W) uint8 class index in sensor pixels, 255 = unknown."""

    stamp: Stamp
    labels: NDArray[np.uint8]
    classes: tuple[str, ...]
    model: ModelRef
    timings: Timings = Timings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections:
    """Boxes. boxes: (N, 4) float32 xyxy px; scores (N,) float32; class_ids (N,) int64.

    picture_px: width and height of the frame that the boxes lie in; (0, 0) is not known. variance:
    (N, 4) float32 px², or None where the detector states none. gaze: where a steered camera looked.
    """

    stamp: Stamp
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    classes: tuple[str, ...]
    model: ModelRef
    picture_px: tuple[int, int] = (0, 0)
    variance: NDArray[np.float32] | None = None
    gaze: Gaze | None = None
    timings: Timings = Timings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Instances:
    """Objects that somebody pointed at, each with its mask in this frame and an id that stays.

    ids: (N,) int64. masks: one of the picture's size each, empty where the object is not seen.
    boxes: (N, 4) float32 xyxy px around the masks, 0 around an empty one. scores: (N,) float32, the
    overlap with the true mask that the network expects of itself. visible: (N,) float32 probability
    that the object is in the picture at all. picture_px: width and height. classes: the objects'
    names, or () where nobody named them.
    """

    stamp: Stamp
    ids: NDArray[np.int64]
    masks: tuple[Rle, ...]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    visible: NDArray[np.float32]
    picture_px: tuple[int, int]
    model: ModelRef
    classes: tuple[str, ...] = ()
    timings: Timings = Timings()


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchMap:
    """What a search believes: where targets that it has not seen may be, and whom it follows.

    intensity: (H, W) float32 expected undetected targets a cell; cell (0, 0) is the upper left of
    the field, whose middle is gaze (0, 0). cell_rad: height and width of a cell. tracks: (N, 4)
    float32 pan and tilt in rad, confidence, seconds since the last sight. trail: (K, 2) float32 pan
    and tilt in rad of the gazes since the last map. model: the scheduler.
    """

    stamp: Stamp
    intensity: NDArray[np.float32]
    cell_rad: float
    tracks: NDArray[np.float32]
    trail: NDArray[np.float32]
    model: ModelRef
    timings: Timings = Timings()


Result: TypeAlias = LabelMap | Detections | Instances | SearchMap


class Model(Protocol):
    """Anything that turns a packet into a result; a plain function is a model."""

    def __call__(self, packet: ModelInput, /) -> Result:
        """Answer for a packet or a pair. Raises ModelError if it does not fit the network."""


def encode_rle(labels: NDArray[np.uint8]) -> bytes:
    """Run-length code of a label map: (uint8 value, uint32 length) little-endian a run, row major.

    labels: (H, W) uint8. Five bytes a run; `decode_rle` is the inverse.
    """
    flat = labels.ravel()
    if flat.size == 0:
        return b""
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    runs = np.empty(starts.size, dtype=[("value", "u1"), ("length", "<u4")])
    runs["value"] = flat[starts]
    runs["length"] = np.diff(np.concatenate((starts, [flat.size])))
    return runs.tobytes()


def decode_rle(code: bytes, *, height_px: int, width_px: int) -> NDArray[np.uint8]:
    """Inverse of `encode_rle`. Raises ValueError if the runs do not fill the map exactly."""
    if len(code) % 5:
        raise ValueError(f"run-length code of {len(code)} bytes is not a multiple of 5")
    runs = np.frombuffer(code, dtype=[("value", "u1"), ("length", "<u4")])
    if int(runs["length"].sum(dtype=np.int64)) != height_px * width_px:
        raise ValueError(f"run-length code does not fill {height_px} × {width_px} pixels")
    return np.repeat(runs["value"], runs["length"]).reshape(height_px, width_px)
