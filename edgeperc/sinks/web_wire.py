"""What the page gets: one binary message is a header's length, the header as JSON, and a payload.

    message = frame_message(frame, max_width_px=1280)
    header, payload = unpack(message)

A picture is a JPEG. A label map is run lengths, as over gRPC. What events have done to a window's
pixels, and the heat of a search, are deflated bytes, one a pixel. Masks are COCO's run lengths, in
the header. The functions are pure: they run in the encoder's thread, once for all clients.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeperc.packet import Events, Frame, Stamp
from edgeperc.render.preview import class_colour, object_colour
from edgeperc.result import Detections, Instances, LabelMap, Result, encode_rle
from edgeperc.sinks.drawn import event_steps, jpeg

OBJECT_COLOURS = 64
_LENGTH = struct.Struct("<I")


def pack(header: dict[str, Any], payload: bytes = b"") -> bytes:
    """A message. header: JSON types."""
    text = msgspec.json.encode(header)
    return _LENGTH.pack(len(text)) + text + payload


def unpack(message: bytes) -> tuple[dict[str, Any], bytes]:
    """The inverse of `pack`."""
    (length,) = _LENGTH.unpack_from(message)
    start = _LENGTH.size
    return msgspec.json.decode(message[start : start + length]), message[start + length :]


def frame_message(frame: Frame, *, max_width_px: int) -> bytes:
    """A picture as a JPEG, made smaller if it is wider; width and height stay the sensor's."""
    height_px, width_px = frame.image.shape[:2]
    return pack(
        {"kind": "frame", **_about(frame.stamp), "width": width_px, "height": height_px},
        jpeg(frame.image, max_width_px=max_width_px),
    )


def events_message(parts: Sequence[Events], *, window_ns: int) -> bytes:
    """The events of the last `window_ns` of parts as a picture: 3 where nothing or as much of both
    happened, up to 6 where it became brighter, down to 0 where it became darker.
    """
    newest = parts[-1]
    width_px, height_px = newest.width_px, newest.height_px
    steps, count = event_steps(parts, since_us=(newest.stamp.end_ns - window_ns) // 1000)
    header = {
        "kind": "events",
        **_about(newest.stamp),
        "width": width_px,
        "height": height_px,
        "count": count,
        "window_ms": window_ns * 1e-6,
    }
    return pack(header, _deflated(steps))


def result_message(result: Result) -> bytes:
    """A label map, boxes or instances."""
    header: dict[str, Any] = {
        **_about(result.stamp),
        "model": result.model.name,
        "total_ms": result.timings.total_ns * 1e-6,
    }
    if isinstance(result, LabelMap):
        height_px, width_px = result.labels.shape
        header |= {
            "kind": "labels",
            "width": width_px,
            "height": height_px,
            "classes": result.classes,
        }
        return pack(header, encode_rle(result.labels))
    if isinstance(result, Detections):
        return pack(header | _boxes(result))
    if isinstance(result, Instances):
        return pack(header | _instances(result))
    raise TypeError(f"no message for {type(result).__name__}")


def heat_message(
    heat: NDArray[np.uint8], *, about: dict[str, Any], picture_px: tuple[int, int]
) -> bytes:
    """A search's beliefs in the wide picture. heat: (h, w) uint8. about: tracks, trail, look."""
    height, width = heat.shape
    header = {
        "kind": "search",
        **about,
        "width": picture_px[0],
        "height": picture_px[1],
        "columns": width,
        "rows": height,
    }
    return pack(header, _deflated(heat))


def colours() -> dict[str, Any]:
    """Colours of classes and objects, as the terminal and videos have them."""
    return {
        "classes": [class_colour(label) for label in range(256)],
        "objects": [object_colour(number) for number in range(OBJECT_COLOURS)],
    }


def _about(stamp: Stamp) -> dict[str, Any]:
    return {"source": stamp.source, "seq": stamp.seq, "end_us": stamp.end_ns // 1000}


def _boxes(result: Detections) -> dict[str, Any]:
    rows = zip(
        np.round(result.boxes.astype(np.float64), 1).tolist(),
        np.round(result.scores.astype(np.float64), 3).tolist(),
        result.class_ids.tolist(),
        strict=True,
    )
    found: dict[str, Any] = {
        "kind": "boxes",
        "width": result.picture_px[0],
        "height": result.picture_px[1],
        "boxes": [[*box, score, index] for box, score, index in rows],
        "classes": result.classes,
    }
    if result.gaze:
        gaze = (result.gaze.pan_rad, result.gaze.tilt_rad)
        found["gaze_deg"] = [round(math.degrees(angle), 3) for angle in gaze]
    return found


def _instances(result: Instances) -> dict[str, Any]:
    columns = (result.ids, result.scores, result.visible, result.boxes)
    rows = zip(*(column.tolist() for column in columns), result.masks, strict=True)
    objects: list[dict[str, Any]] = [
        {"id": id_, "score": score, "visible": visible, "box": box, "rle": mask.counts.decode()}
        for id_, score, visible, box, mask in rows
    ]
    for found, name in zip(objects, result.classes, strict=False):
        found["name"] = name
    return {
        "kind": "instances",
        "width": result.picture_px[0],
        "height": result.picture_px[1],
        "objects": objects,
    }


def _deflated(pixels: NDArray[np.uint8]) -> bytes:
    return zlib.compress(pixels.tobytes(), 1)
