"""What a result says in JSON types, for files and for programs that read lines."""

from __future__ import annotations

import math
from typing import Any

from edgeperc.packet import Gaze
from edgeperc.result import Detections, Instances, LabelMap, Result


def about(result: Result) -> dict[str, Any]:
    """When and where it was seen, and by which model; the same for every kind of result."""
    stamp = result.stamp
    return {
        "source": stamp.source,
        "seq": stamp.seq,
        "start_us": stamp.start_ns // 1000,
        "end_us": stamp.end_ns // 1000,
        "model": result.model.name,
    }


def content(result: Result) -> dict[str, Any]:
    """What was found, but for a label map, which is a picture. Angles in degrees, boxes in px.

    Masks are in COCO's compressed run lengths.
    """
    if isinstance(result, LabelMap):
        return {}
    if isinstance(result, Detections):
        found: dict[str, Any] = {} if result.gaze is None else {"gaze": _degrees(result.gaze)}
        found["detections"] = [
            {"class": result.classes[index], "score": score, "box": box}
            for index, score, box in zip(
                result.class_ids, result.scores.tolist(), result.boxes.tolist(), strict=True
            )
        ]
        return found
    if isinstance(result, Instances):
        return {"instances": instances(result)}
    return {
        "expected_undetected": round(float(result.intensity.sum()), 4),
        "tracks": [
            {
                "pan_deg": round(math.degrees(pan_rad), 4),
                "tilt_deg": round(math.degrees(tilt_rad), 4),
                "confidence": round(confidence, 4),
                "age_s": round(age_s, 4),
            }
            for pan_rad, tilt_rad, confidence, age_s in result.tracks.tolist()
        ],
    }


def instances(result: Instances) -> list[dict[str, Any]]:
    """The objects, each with id, score, visible, box and mask, and its name if it has one."""
    from edgeperc.masks import to_coco

    columns = (result.ids, result.scores, result.visible, result.boxes)
    rows = zip(*(column.tolist() for column in columns), result.masks, strict=True)
    objects = [
        {"id": id_, "score": score, "visible": visible, "box": box, "mask": to_coco(mask)}
        for id_, score, visible, box, mask in rows
    ]
    for found, name in zip(objects, result.classes, strict=False):
        found["class"] = name
    return objects


def _degrees(gaze: Gaze) -> dict[str, float]:
    return {
        "pan_deg": round(math.degrees(gaze.pan_rad), 4),
        "tilt_deg": round(math.degrees(gaze.tilt_rad), 4),
    }
