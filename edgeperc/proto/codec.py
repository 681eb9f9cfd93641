"""Results to messages and back: the only place where both vocabularies meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
import zstandard
from numpy.typing import NDArray

from edgeperc import masks
from edgeperc.errors import DataError
from edgeperc.masks import Rle
from edgeperc.packet import Gaze, Stamp
from edgeperc.png import read_png, write_png
from edgeperc.proto.edgeperc.v1 import perception_pb2 as pb
from edgeperc.result import (
    Detections,
    Instances,
    LabelMap,
    ModelRef,
    Result,
    SearchMap,
    Timings,
    decode_rle,
    encode_rle,
)

ZSTD_LEVEL = 1  # on label maps the higher levels cost time and save nothing
MAX_PIXELS = 1 << 28
"""A message that claims a larger label map is damaged; nothing is allocated for it."""

T = TypeVar("T")


def to_message(result: Result, encoding: pb.MaskEncoding, *, published_ns: int = 0) -> pb.Result:
    """Say `result` on the wire. `encoding`: for the labels of a label map, not UNSPECIFIED."""
    message = pb.Result(
        stamp=as_message(pb.Stamp, result.stamp),
        model=as_message(pb.ModelRef, result.model),
        timings=as_message(pb.Timings, result.timings),
    )
    message.timings.published_ns = published_ns
    if isinstance(result, LabelMap):
        message.label_map.CopyFrom(_label_map_message(result, encoding))
    elif isinstance(result, Detections):
        message.detections.CopyFrom(_detections_message(result))
    elif isinstance(result, Instances):
        message.instances.CopyFrom(_instances_message(result))
    else:
        message.search_map.CopyFrom(_search_map_message(result))
    return message


def from_message(message: pb.Result) -> Result:
    """Inverse of `to_message`; arrays are read-only. Raises DataError on a damaged message."""
    about: dict[str, Any] = {
        "stamp": as_dataclass(Stamp, message.stamp),
        "model": as_dataclass(ModelRef, message.model),
        "timings": as_dataclass(Timings, message.timings),
    }
    kind = message.WhichOneof("body")
    if kind == "label_map":
        labels = _read_only(_decode_labels(message.label_map))
        return LabelMap(labels=labels, classes=tuple(message.label_map.classes), **about)
    if kind == "detections":
        found = message.detections
        gaze = as_dataclass(Gaze, found.gaze) if found.HasField("gaze") else None
        return Detections(**_detection_arrays(found), gaze=gaze, **about)
    if kind == "instances":
        return Instances(**_instance_arrays(message.instances), **about)
    if kind == "search_map":
        return SearchMap(**_search_map_arrays(message.search_map), **about)
    raise DataError(
        "the daemon sent a kind of result that this version does not know",
        hint="install the daemon's version of edgeperc here, too",
    )


def as_message(kind: type[T], value: Any) -> T:
    """Message of `kind` from a dataclass with fields of the same names."""
    return kind(**{field.name: getattr(value, field.name) for field in fields(value)})


def as_dataclass(kind: type[T], message: Any) -> T:
    """Dataclass of `kind` from a message with fields of the same names."""
    return kind(**{field.name: getattr(message, field.name) for field in fields(kind)})  # type: ignore[arg-type]


def _label_map_message(result: LabelMap, encoding: pb.MaskEncoding) -> pb.LabelMap:
    height, width = result.labels.shape
    return pb.LabelMap(
        width=width,
        height=height,
        encoding=encoding,
        data=_encode_labels(result.labels, encoding),
        classes=result.classes,
    )


def _encode_labels(labels: NDArray[np.uint8], encoding: pb.MaskEncoding) -> bytes:
    if encoding == pb.MASK_ENCODING_RAW:
        return labels.tobytes()
    if encoding == pb.MASK_ENCODING_ZSTD:
        return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(labels.tobytes())
    if encoding == pb.MASK_ENCODING_RLE:
        return encode_rle(labels)
    if encoding == pb.MASK_ENCODING_PNG:
        return write_png(labels)
    raise ValueError(f"mask encoding {encoding} is not RAW, ZSTD, RLE or PNG")


def _search_map_message(result: SearchMap) -> pb.SearchMap:
    height, width = result.intensity.shape
    intensity = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(
        result.intensity.astype("<f4").tobytes()
    )
    message = pb.SearchMap(
        width=width, height=height, intensity=intensity, cell_rad=result.cell_rad
    )
    for pan_rad, tilt_rad, confidence, age_s in result.tracks.tolist():
        gaze = pb.Gaze(pan_rad=pan_rad, tilt_rad=tilt_rad)
        message.tracks.add(gaze=gaze, confidence=confidence, age_s=age_s)
    for pan_rad, tilt_rad in result.trail.tolist():
        message.trail.add(pan_rad=pan_rad, tilt_rad=tilt_rad)
    return message


def _search_map_arrays(message: pb.SearchMap) -> dict[str, Any]:
    height, width = message.height, message.width
    try:
        if height * width > MAX_PIXELS:
            raise ValueError("too large")
        data = _decompress(message.intensity, 4 * height * width)
        intensity = np.frombuffer(data, "<f4").reshape(height, width)
    except (ValueError, zstandard.ZstdError) as error:
        raise DataError(f"search map of {width} × {height} cells is damaged: {error}") from error
    tracks = [(t.gaze.pan_rad, t.gaze.tilt_rad, t.confidence, t.age_s) for t in message.tracks]
    trail = [(gaze.pan_rad, gaze.tilt_rad) for gaze in message.trail]
    return {
        "intensity": intensity,
        "cell_rad": message.cell_rad,
        "tracks": _read_only(np.array(tracks, np.float32).reshape(-1, 4)),
        "trail": _read_only(np.array(trail, np.float32).reshape(-1, 2)),
    }


def _decode_labels(message: pb.LabelMap) -> NDArray[np.uint8]:
    height, width, size = message.height, message.width, message.height * message.width
    try:
        if size > MAX_PIXELS:
            raise ValueError("too large")
        if message.encoding == pb.MASK_ENCODING_RLE:
            return decode_rle(message.data, height_px=height, width_px=width)
        if message.encoding == pb.MASK_ENCODING_PNG:
            return read_png(message.data, height_px=height, width_px=width)
        data = message.data
        if message.encoding == pb.MASK_ENCODING_ZSTD:
            data = _decompress(data, size)
        elif message.encoding != pb.MASK_ENCODING_RAW:
            raise ValueError(f"unknown encoding {message.encoding}")
        return np.frombuffer(data, np.uint8).reshape(height, width)
    except (ValueError, zstandard.ZstdError) as error:
        raise DataError(f"label map of {width} × {height} pixels is damaged: {error}") from error


def _decompress(data: bytes, size: int) -> bytes:
    # A frame that states its own size is believed by zstandard, whatever max_output_size says.
    if zstandard.frame_content_size(data) not in (size, -1):
        raise ValueError(f"does not hold {size} bytes")
    return zstandard.ZstdDecompressor().decompress(data, max_output_size=size)


def _detections_message(result: Detections) -> pb.Detections:
    gaze = None if result.gaze is None else as_message(pb.Gaze, result.gaze)
    width, height = result.picture_px
    message = pb.Detections(classes=result.classes, gaze=gaze, width=width, height=height)
    for index, box in enumerate(result.boxes.tolist()):
        message.detections.add(
            box=_box_message(box),
            score=float(result.scores[index]),
            class_id=int(result.class_ids[index]),
            variance=None
            if result.variance is None
            else _box_message(result.variance[index].tolist()),
        )
    return message


def _box_message(edges: Sequence[float]) -> pb.Box:
    return pb.Box(x_min=edges[0], y_min=edges[1], x_max=edges[2], y_max=edges[3])


def _detection_arrays(message: pb.Detections) -> dict[str, Any]:
    found = message.detections
    has_variance = bool(found) and all(each.HasField("variance") for each in found)
    return {
        "boxes": _edges([each.box for each in found]),
        "scores": _read_only(np.array([each.score for each in found], np.float32)),
        "class_ids": _read_only(np.array([each.class_id for each in found], np.int64)),
        "classes": tuple(message.classes),
        "picture_px": (message.width, message.height),
        "variance": _edges([each.variance for each in found]) if has_variance else None,
    }


def mask_message(mask: Rle) -> pb.Mask:
    """Say a mask on the wire."""
    return pb.Mask(width=mask.width_px, height=mask.height_px, counts=mask.counts)


def mask_of(message: pb.Mask) -> Rle:
    """Inverse of `mask_message`. Raises DataError if its runs do not fill it."""
    mask = Rle(message.counts, height_px=message.height, width_px=message.width)
    masks.runs(mask)
    return mask


def _instances_message(result: Instances) -> pb.Instances:
    width, height = result.picture_px
    message = pb.Instances(width=width, height=height, classes=result.classes)
    for index, (instance, box) in enumerate(
        zip(result.ids.tolist(), result.boxes.tolist(), strict=True)
    ):
        message.instances.add(
            id=instance,
            mask=mask_message(result.masks[index]),
            box=_box_message(box),
            score=float(result.scores[index]),
            visible=float(result.visible[index]),
        )
    return message


def _instance_arrays(message: pb.Instances) -> dict[str, Any]:
    found, classes = message.instances, tuple(message.classes)
    picture_px = (message.width, message.height)
    for each in found:
        if (each.mask.width, each.mask.height) != picture_px:
            raise DataError(
                f"mask of {each.mask.width} × {each.mask.height} px in a picture of"
                f" {picture_px[0]} × {picture_px[1]} px"
            )
    if len(classes) not in (0, len(found)):
        raise DataError(f"{len(found)} instances with {len(classes)} names")
    try:
        ids = np.array([each.id for each in found], np.int64)
    except OverflowError:
        raise DataError("an instance's id has more than 63 bits") from None
    return {
        "ids": _read_only(ids),
        "masks": tuple(mask_of(each.mask) for each in found),
        "boxes": _edges([each.box for each in found]),
        "scores": _read_only(np.array([each.score for each in found], np.float32)),
        "visible": _read_only(np.array([each.visible for each in found], np.float32)),
        "picture_px": picture_px,
        "classes": classes,
    }


def _edges(boxes: Sequence[pb.Box]) -> NDArray[np.float32]:
    rows = [(box.x_min, box.y_min, box.x_max, box.y_max) for box in boxes]
    return _read_only(np.array(rows, np.float32).reshape(-1, 4))


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array
