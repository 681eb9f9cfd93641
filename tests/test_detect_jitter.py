from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeperc.detection.jitter import JitterVariance, box_iou
from edgeperc.errors import ModelError
from edgeperc.packet import Frame, Packet, Stamp
from edgeperc.result import Detections, LabelMap, ModelRef

STAMP = Stamp(source="cam", seq=0, start_ns=0, end_ns=1)
RIGHT_EDGE = 3.0


class Brightest:
    """Finds the box around the pixels above 200; `noise_px` moves its right edge each time."""

    def __init__(self, noise_px: float = 0.0, misses: int = 0, class_id: int = 0) -> None:
        self._rng = np.random.default_rng(1)
        self._noise_px, self._misses, self._class_id = noise_px, misses, class_id

    def __call__(self, packet: Packet, /) -> Detections:
        assert isinstance(packet, Frame)
        y, x = np.nonzero(packet.image > 200)
        boxes = np.array([[x.min(), y.min(), x.max() + 1, y.max() + 1]], np.float32)
        boxes[:, 2] += self._rng.normal(0, self._noise_px) if self._noise_px else 0
        if self._misses:
            self._misses -= 1
            boxes = boxes[:0]
        return detections(boxes, self._class_id)


def detections(boxes: NDArray[np.float32], class_id: int = 0) -> Detections:
    return Detections(
        stamp=STAMP,
        boxes=boxes,
        scores=np.ones(len(boxes), np.float32),
        class_ids=np.full(len(boxes), class_id, np.int64),
        classes=("bright", "loud"),
        model=ModelRef(name="brightest"),
    )


@pytest.fixture
def frame() -> Frame:
    image = np.zeros((60, 80), np.uint8)
    image[20:40, 10:50] = 255
    return Frame(stamp=STAMP, image=image)


BOX = np.array([[10, 20, 50, 40]], np.float32)


def test_a_detector_that_sees_the_same_everywhere_has_no_spread(frame: Frame) -> None:
    answer = JitterVariance(Brightest())(frame, detections(BOX))
    assert answer.variance is not None
    np.testing.assert_allclose(answer.variance, 0, atol=1e-9)
    np.testing.assert_array_equal(answer.boxes, BOX)
    assert not answer.variance.flags.writeable


def test_the_edge_that_moves_has_its_variance(frame: Frame) -> None:
    estimate = JitterVariance(Brightest(noise_px=RIGHT_EDGE))
    found = [estimate(frame, detections(BOX)).variance for _ in range(300)]
    mean = np.mean([v for v in found if v is not None], axis=0)[0]
    np.testing.assert_allclose(mean[[0, 1, 3]], 0, atol=1e-9)
    # Of five values one, the box itself, is exact.
    assert mean[2] == pytest.approx(0.8 * RIGHT_EDGE**2, rel=0.15)


def test_a_box_that_is_not_seen_again_is_known_to_half_its_size(frame: Frame) -> None:
    answer = JitterVariance(Brightest(misses=3))(frame, detections(BOX))
    assert answer.variance is not None
    np.testing.assert_allclose(answer.variance, [[400, 100, 400, 100]])
    other = JitterVariance(Brightest(class_id=1))(frame, detections(BOX)).variance
    assert other is not None
    np.testing.assert_allclose(other, [[400, 100, 400, 100]])
    twice = JitterVariance(Brightest(misses=2))(frame, detections(BOX)).variance
    assert twice is not None
    np.testing.assert_allclose(twice, 0, atol=1e-9)


def test_no_boxes_have_no_variances(frame: Frame) -> None:
    variance = JitterVariance(Brightest())(frame, detections(BOX[:0])).variance
    assert variance is not None
    assert variance.shape == (0, 4)


def test_what_cannot_be_jittered_is_refused(frame: Frame) -> None:
    tiny = Frame(stamp=STAMP, image=np.zeros((6, 80), np.uint8))
    with pytest.raises(ModelError, match="80 × 6 px is too small"):
        JitterVariance(Brightest())(tiny, detections(BOX))

    def labels(_packet: Packet, /) -> LabelMap:
        nothing = np.zeros((1, 1), np.uint8)
        return LabelMap(stamp=STAMP, labels=nothing, classes=(), model=ModelRef(name="map"))

    with pytest.raises(ModelError, match="only a detector"):
        JitterVariance(labels)(frame, detections(BOX))
    with pytest.raises(ValueError, match="margin_px is 0"):
        JitterVariance(Brightest(), margin_px=0)


def test_intersection_over_union() -> None:
    a = np.array([[0, 0, 2, 2], [5, 5, 5, 5]], np.float32)
    b = np.array([[1, 0, 3, 2], [0, 0, 2, 2], [9, 9, 10, 10]], np.float32)
    np.testing.assert_allclose(box_iou(a, b), [[1 / 3, 1, 0], [0, 0, 0]])
