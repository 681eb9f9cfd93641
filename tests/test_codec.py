"""Results survive the wire in every encoding; damaged messages are DataErrors."""

from __future__ import annotations

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from edgeperc import masks
from edgeperc.errors import DataError
from edgeperc.packet import Gaze, Stamp
from edgeperc.proto.codec import from_message, to_message
from edgeperc.proto.edgeperc.v1 import perception_pb2 as pb
from edgeperc.result import (
    Detections,
    Instances,
    LabelMap,
    ModelRef,
    Result,
    SearchMap,
    Timings,
)

STAMP = Stamp(source="dvs", seq=2**40, start_ns=-5, end_ns=2**62)
MODEL = ModelRef(name="m", sha256="ab", engine="onnxruntime", provider="cpu", precision="int8")
TIMINGS = Timings(wait_ns=1, represent_ns=2, infer_ns=3, total_ns=4)
ENCODINGS = (
    *(pb.MASK_ENCODING_RAW, pb.MASK_ENCODING_ZSTD),
    *(pb.MASK_ENCODING_RLE, pb.MASK_ENCODING_PNG),
)

any_labels = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=40))
few_labels = arrays(
    np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.sampled_from([0, 255])
)


def over_the_wire(result: Result, encoding: pb.MaskEncoding = pb.MASK_ENCODING_RAW) -> Result:
    data = to_message(result, encoding).SerializeToString()
    return from_message(pb.Result.FromString(data))


def label_map(labels: NDArray[np.uint8]) -> LabelMap:
    return LabelMap(
        stamp=STAMP, labels=labels, classes=("road", "Straße"), model=MODEL, timings=TIMINGS
    )


@given(labels=any_labels | few_labels, encoding=st.sampled_from(ENCODINGS))
def test_label_map_survives(labels: NDArray[np.uint8], encoding: pb.MaskEncoding) -> None:
    before = labels.copy()
    received = over_the_wire(label_map(labels), encoding)
    assert isinstance(received, LabelMap)
    np.testing.assert_array_equal(received.labels, before)
    np.testing.assert_array_equal(labels, before)
    assert received.labels.shape == labels.shape
    assert not received.labels.flags.writeable
    assert (received.stamp, received.model, received.timings, received.classes) == (
        STAMP,
        MODEL,
        TIMINGS,
        ("road", "Straße"),
    )


def test_label_map_that_is_a_view_survives() -> None:
    labels = np.arange(48, dtype=np.uint8).reshape(6, 8)[::2, 1::3]
    for encoding in ENCODINGS:
        received = over_the_wire(label_map(labels), encoding)
        assert isinstance(received, LabelMap)
        np.testing.assert_array_equal(received.labels, labels)


@given(
    boxes=arrays(
        np.float32, st.tuples(st.integers(0, 5), st.just(4)), elements=st.floats(width=32)
    ),
    with_variance=st.booleans(),
)
def test_detections_survive(boxes: NDArray[np.float32], with_variance: bool) -> None:
    count = len(boxes)
    sent = Detections(
        stamp=STAMP,
        boxes=boxes,
        scores=np.linspace(0, 1, count, dtype=np.float32),
        class_ids=np.arange(count, dtype=np.int64),
        classes=("car",),
        model=MODEL,
        picture_px=(640, 480),
        variance=boxes + 1 if with_variance else None,
        timings=TIMINGS,
    )
    received = over_the_wire(sent)
    assert isinstance(received, Detections)
    for name in ("boxes", "scores", "class_ids"):
        np.testing.assert_array_equal(getattr(received, name), getattr(sent, name))
        assert getattr(received, name).dtype == getattr(sent, name).dtype
    assert (received.stamp, received.model, received.timings) == (STAMP, MODEL, TIMINGS)
    assert received.picture_px == (640, 480)
    if with_variance and count:
        np.testing.assert_array_equal(received.variance, boxes + 1)
    else:
        assert received.variance is None


def test_encoding_must_be_one_of_four() -> None:
    with pytest.raises(ValueError, match="RAW, ZSTD, RLE or PNG"):
        to_message(label_map(np.zeros((2, 2), np.uint8)), pb.MASK_ENCODING_UNSPECIFIED)


@pytest.mark.parametrize(
    "body",
    [
        pb.LabelMap(width=2, height=2, encoding=pb.MASK_ENCODING_RAW, data=b"123"),
        pb.LabelMap(width=2, height=2, encoding=pb.MASK_ENCODING_UNSPECIFIED, data=b"1234"),
        pb.LabelMap(width=2, height=2, encoding=99, data=b"1234"),  # type: ignore[arg-type]
        pb.LabelMap(width=2, height=2, encoding=pb.MASK_ENCODING_ZSTD, data=b"1234"),
        pb.LabelMap(width=2, height=2, encoding=pb.MASK_ENCODING_ZSTD, data=b""),
        pb.LabelMap(
            width=2,
            height=2,
            encoding=pb.MASK_ENCODING_ZSTD,
            data=zstandard.ZstdCompressor().compress(bytes(1 << 20)),
        ),
        pb.LabelMap(width=2, height=2, encoding=pb.MASK_ENCODING_RLE, data=b"12345"),
        pb.LabelMap(width=1 << 31, height=1 << 31, encoding=pb.MASK_ENCODING_RAW),
    ],
)
def test_damaged_label_map_is_a_data_error(body: pb.LabelMap) -> None:
    with pytest.raises(DataError, match="is damaged"):
        from_message(pb.Result(label_map=body))


def test_unknown_kind_of_result_is_a_data_error() -> None:
    with pytest.raises(DataError, match="kind of result"):
        from_message(pb.Result())


def test_a_gaze_rides_with_detections_and_is_absent_without_a_mirror() -> None:
    for gaze in (None, Gaze(pan_rad=0.25, tilt_rad=-0.125)):
        sent = Detections(
            stamp=STAMP,
            boxes=np.zeros((0, 4), np.float32),
            scores=np.zeros(0, np.float32),
            class_ids=np.zeros(0, np.int64),
            classes=(),
            model=MODEL,
            gaze=gaze,
        )
        received = over_the_wire(sent)
        assert isinstance(received, Detections)
        assert received.gaze == gaze


@given(
    intensity=arrays(
        np.float32,
        array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=20),
        elements=st.floats(0, 1, width=32),
    ),
    tracks=arrays(
        np.float32,
        st.tuples(st.integers(0, 5), st.just(4)),
        elements=st.floats(-1, 1, width=32),
    ),
)
def test_a_search_map_survives(intensity: NDArray[np.float32], tracks: NDArray[np.float32]) -> None:
    sent = SearchMap(
        stamp=STAMP,
        intensity=intensity,
        cell_rad=0.5,
        tracks=tracks,
        trail=tracks[:, :2],
        model=MODEL,
    )
    received = over_the_wire(sent)
    assert isinstance(received, SearchMap)
    for name in ("intensity", "tracks", "trail"):
        np.testing.assert_array_equal(getattr(received, name), getattr(sent, name))
        assert not getattr(received, name).flags.writeable
    assert received.cell_rad == 0.5


def test_a_damaged_search_map_is_a_data_error() -> None:
    for body in (pb.SearchMap(width=2, height=2, intensity=b"x"), pb.SearchMap(width=1 << 31)):
        with pytest.raises(DataError, match="is damaged"):
            from_message(pb.Result(search_map=body))


@given(
    pictures=arrays(np.bool_, st.tuples(st.integers(0, 3), st.just(7), st.just(5))),
    named=st.booleans(),
)
def test_instances_survive(pictures: NDArray[np.bool_], named: bool) -> None:
    count = len(pictures)
    sent = Instances(
        stamp=STAMP,
        ids=np.arange(count, dtype=np.int64) + 2**40,
        masks=tuple(masks.encode(picture) for picture in pictures),
        boxes=np.arange(4 * count, dtype=np.float32).reshape(-1, 4) / 3,
        scores=np.linspace(0, 1, count, dtype=np.float32),
        visible=np.linspace(1, 0, count, dtype=np.float32),
        picture_px=(5, 7),
        classes=("a", "b", "ß")[:count] if named else (),
        model=MODEL,
        timings=TIMINGS,
    )
    received = over_the_wire(sent)
    assert isinstance(received, Instances)
    for name in ("ids", "boxes", "scores", "visible"):
        np.testing.assert_array_equal(getattr(received, name), getattr(sent, name))
        assert getattr(received, name).dtype == getattr(sent, name).dtype
        assert not getattr(received, name).flags.writeable
    assert received.masks == sent.masks
    for mask, picture in zip(received.masks, pictures, strict=True):
        np.testing.assert_array_equal(masks.decode(mask), picture)
    assert (received.picture_px, received.classes) == ((5, 7), sent.classes)
    assert (received.stamp, received.model, received.timings) == (STAMP, MODEL, TIMINGS)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"mask": pb.Mask(width=4, height=4, counts=b"0")}, "do not fill"),
        ({"mask": pb.Mask(width=4, height=4, counts=b"")}, "empty"),
        ({"mask": pb.Mask(width=4, height=4, counts=bytes(range(200)))}, "character"),
        ({"mask": pb.Mask(width=5, height=4, counts=b"d0")}, "5 × 4 px in a picture of 4 × 4"),
        ({"mask": pb.Mask(width=4, height=4, counts=b"`0"), "id": 1 << 63}, "63 bits"),
    ],
)
def test_a_damaged_instance_is_a_data_error(body: dict[str, object], said: str) -> None:
    message = pb.Instances(width=4, height=4, instances=[body])
    with pytest.raises(DataError, match=said):
        from_message(pb.Result(instances=message))


def test_instances_larger_than_any_picture_are_a_data_error() -> None:
    side = 1 << 31
    mask = pb.Mask(width=side, height=side, counts=b"0")
    with pytest.raises(DataError, match="not a size"):
        from_message(
            pb.Result(instances=pb.Instances(width=side, height=side, instances=[{"mask": mask}]))
        )


def test_every_instance_has_a_name_or_none_has() -> None:
    with pytest.raises(DataError, match="0 instances with 1 names"):
        from_message(pb.Result(instances=pb.Instances(classes=["a"])))
