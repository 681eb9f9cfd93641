"""Overlays show each object in its own colour where it is, and leave the rest of the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeperc import masks
from edgeperc.packet import Stamp
from edgeperc.render.drawing import draw, rgb
from edgeperc.render.preview import class_colour, object_colour
from edgeperc.result import Detections, Instances, LabelMap, ModelRef

STAMP = Stamp(source="cam", seq=0, start_ns=0, end_ns=0)
GREY = np.full((240, 320), 100, np.uint8)


def square(left: int, top: int, side: int = 60) -> NDArray[np.bool_]:
    mask = np.zeros(GREY.shape, np.bool_)
    mask[top : top + side, left : left + side] = True
    return mask


def instances(
    *found: NDArray[np.bool_], ids: Sequence[int] = (), visible: Sequence[float] = ()
) -> Instances:
    packed = tuple(masks.encode(mask) for mask in found)
    count = len(packed)
    return Instances(
        stamp=STAMP,
        ids=np.array(ids or range(1, count + 1), np.int64),
        masks=packed,
        boxes=np.array([masks.box(rle) for rle in packed], np.float32).reshape(-1, 4),
        scores=np.full(count, 0.9, np.float32),
        visible=np.array(visible or [1.0] * count, np.float32),
        picture_px=(320, 240),
        model=ModelRef(name="m"),
    )


def moved(drawn: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.asarray((drawn != 100).any(axis=2))


def test_the_inside_takes_the_objects_colour_and_the_rest_stays() -> None:
    drawn = draw(GREY, [instances(square(100, 100), ids=[4])])
    inside = drawn[115:145, 115:145].reshape(-1, 3)
    expected = 100 * 0.55 + 0.45 * np.array(rgb(object_colour(4)))
    np.testing.assert_allclose(inside, np.broadcast_to(expected, inside.shape), atol=1)
    assert not moved(drawn)[170:].any()
    assert not moved(drawn)[:, 170:].any()
    assert (GREY == 100).all()


def test_an_object_keeps_its_colour_whatever_else_there_is() -> None:
    alone = draw(GREY, [instances(square(100, 100), ids=[9])])
    among = draw(GREY, [instances(square(200, 20), square(100, 100), ids=[3, 9])])
    np.testing.assert_array_equal(alone[115:145, 115:145], among[115:145, 115:145])
    assert (among[35:60, 215:245] != among[115:140, 115:145]).any(axis=2).all()


def test_what_is_out_of_sight_is_faint_and_what_is_nowhere_is_named() -> None:
    bright = draw(GREY, [instances(square(100, 100))])
    faint = draw(GREY, [instances(square(100, 100), visible=[0.2])])
    away = [np.abs(each[130, 130].astype(int) - 100).sum() for each in (bright, faint)]
    assert 0 < away[1] < away[0] / 2
    nowhere = draw(GREY, [instances(np.zeros_like(square(0, 0)), visible=[0.0])])
    assert moved(nowhere)[225:, :100].any()
    assert not moved(nowhere)[:200].any()


def test_names_stay_within_the_picture() -> None:
    for left, top in ((0, 0), (260, 0), (0, 180), (260, 180)):
        drawn = moved(draw(GREY, [instances(square(left, top))]))
        rest = drawn & ~np.pad(square(left, top), 2)[2:-2, 2:-2]
        assert drawn[top + 30, left + 30]
        assert rest.sum() > 0 or top == 0


def test_pictures_in_colour_none_and_no_object_are_fine() -> None:
    colour = np.dstack([GREY] * 3)
    np.testing.assert_array_equal(draw(colour, []), colour)
    np.testing.assert_array_equal(draw(GREY, [instances()]), colour)
    assert draw(colour, [instances(square(5, 5))]) is not colour


def test_a_mask_of_another_size_is_not_drawn() -> None:
    found = instances(square(100, 100))
    other = replace(found, masks=(masks.encode(np.ones((10, 10), np.bool_)),))
    assert not moved(draw(GREY, [other]))[:200].any()


def test_boxes_and_label_maps_are_drawn_too() -> None:
    boxes = Detections(
        stamp=STAMP,
        boxes=np.array([[100, 100, 160, 160]], np.float32),
        scores=np.ones(1, np.float32),
        class_ids=np.zeros(1, np.int64),
        classes=("person",),
        model=ModelRef(name="m"),
    )
    labels = np.full(GREY.shape, 255, np.uint8)
    labels[200:] = 1
    seen = LabelMap(stamp=STAMP, labels=labels, classes=("a", "b"), model=ModelRef(name="n"))
    drawn = draw(GREY, [boxes, seen])
    assert moved(drawn)[130, 100]
    assert not moved(drawn)[130, 130]
    expected = 50 + 0.5 * np.array(rgb(class_colour(1)))
    np.testing.assert_allclose(drawn[220, 300], expected, atol=1)
    assert not moved(drawn)[170:198].any()


@pytest.mark.parametrize("object_id", [0, 1, 254, 255, 10**12, -3])
def test_every_id_has_a_bright_colour(object_id: int) -> None:
    assert max(rgb(object_colour(object_id))) == 255
