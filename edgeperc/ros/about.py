"""What a ROS message cannot hold of a packet or result, as one line of JSON beside it.

    text = about(result)                      # in a std_msgs/String on `<topic>/about`
    rebuild(read(text), {"labels": labels})   # the very same result

With it a recording gives back what was recorded bit for bit: the stamp's two times and number, who
computed it, stage times, scores as float32, masks that overlap. Arrays of the size of a picture are
not in it: they are in the Image or EventPacket that follows.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeperc.errors import DataError
from edgeperc.masks import Rle
from edgeperc.packet import Events, Frame, Gaze, Packet, Stamp
from edgeperc.result import Detections, Instances, LabelMap, ModelRef, Result, SearchMap, Timings

Kind = Literal["Frame", "Events", "LabelMap", "Detections", "Instances", "SearchMap"]
KINDS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (Frame, Events, LabelMap, Detections, Instances, SearchMap)
}
LARGE = {
    "Frame": ("image",),
    "Events": ("t", "x", "y", "p"),
    "LabelMap": ("labels",),
    "SearchMap": ("intensity",),
}
"""Fields that are in another message."""


class Packed(msgspec.Struct, frozen=True):
    """An array: dtype as numpy writes it, and little-endian bytes, row major."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


class About(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All of a packet or result but its large arrays. parts: messages that hold those."""

    kind: Kind
    stamp: Stamp
    parts: int = 0
    model: ModelRef | None = None
    timings: Timings | None = None
    classes: tuple[str, ...] = ()
    picture_px: tuple[int, int] = (0, 0)
    masks: tuple[Rle, ...] = ()
    arrays: dict[str, Packed] = {}
    times_us: tuple[int, ...] = ()
    """Of the first event in each part."""


def about(item: Packet | Result, *, parts: int = 0, times_us: tuple[int, ...] = ()) -> bytes:
    """Describe an item in JSON. parts, times_us: see `About`."""
    known: dict[str, Any] = {}
    arrays: dict[str, Packed] = {}
    kind = type(item).__name__
    for each in fields(item):
        value = getattr(item, each.name)
        if each.name in LARGE.get(kind, ()) or value is None:
            continue
        if isinstance(value, np.ndarray):
            arrays[each.name] = _packed(value)
        elif isinstance(value, Gaze):
            arrays[each.name] = _packed(np.array([value.pan_rad, value.tilt_rad]))
        elif isinstance(value, float):
            arrays[each.name] = _packed(np.array([value]))
        elif each.name in About.__struct_fields__:
            known[each.name] = value
    if isinstance(item, Events):
        known["picture_px"] = (item.width_px, item.height_px)
    line = About(kind=kind, parts=parts, arrays=arrays, times_us=times_us, **known)  # type: ignore[arg-type]
    return msgspec.json.encode(line)


def read(text: bytes | str) -> About:
    """Inverse of `about`. Raises DataError."""
    try:
        return _DECODER.decode(text)
    except (msgspec.DecodeError, ValueError) as error:
        raise DataError(f"a message says wrongly what it is about: {error}") from error


def rebuild(line: About, large: dict[str, NDArray[Any]]) -> Packet | Result:
    """The item, with its large arrays. Raises DataError if they do not fit together."""
    kind = KINDS[line.kind]
    values: dict[str, Any] = {"stamp": line.stamp, **large}
    if line.kind == "Events":
        values["width_px"], values["height_px"] = line.picture_px
    else:
        for name in ("classes", "picture_px", "masks"):
            values[name] = getattr(line, name)
    for name in ("model", "timings"):
        if getattr(line, name) is not None:
            values[name] = getattr(line, name)
    try:
        for name, packed in line.arrays.items():
            array = _unpacked(packed)
            if name == "gaze":
                values[name] = Gaze(pan_rad=float(array[0]), tilt_rad=float(array[1]))
            else:
                values[name] = float(array[0]) if name == "cell_rad" else array
        names = {each.name for each in fields(kind)}
        item: Packet | Result = kind(**{k: v for k, v in values.items() if k in names})
    except (TypeError, ValueError, IndexError) as error:
        raise DataError(f"a recorded {line.kind} does not fit together: {error}") from error
    return item


_DECODER = msgspec.json.Decoder(About)


def _packed(array: NDArray[Any]) -> Packed:
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return Packed(little.dtype.str, array.shape, little.tobytes())


def _unpacked(packed: Packed) -> NDArray[Any]:
    dtype = np.dtype(packed.dtype)
    if dtype.hasobject:
        raise ValueError("an array of objects")
    array = np.frombuffer(packed.data, dtype).reshape(packed.shape)
    return array.astype(dtype.newbyteorder("="), copy=False)
