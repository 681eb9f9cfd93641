"""Label maps in the terminal keep their proportions, their colours and their shares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeperc import masks
from edgeperc.packet import Stamp
from edgeperc.render.preview import (
    class_colour,
    class_shares,
    half_blocks,
    object_colour,
    picture,
    summary,
)
from edgeperc.result import UNKNOWN, Detections, Instances, LabelMap, ModelRef, SearchMap

STAMP = Stamp(source="dvs", seq=0, start_ns=0, end_ns=1)
sizes = st.integers(1, 300)


def label_map(labels: object) -> LabelMap:
    return LabelMap(
        stamp=STAMP,
        labels=np.array(labels, np.uint8),
        classes=("road", "car", "sky"),
        model=ModelRef(name="m"),
    )


@given(height=sizes, width=sizes, columns=st.integers(1, 90), rows=st.integers(1, 40))
def test_picture_fits(height: int, width: int, columns: int, rows: int) -> None:
    lines = half_blocks(np.zeros((height, width), np.uint8), columns=columns, rows=rows)
    drawn = lines.plain.split("\n")
    assert 1 <= len(drawn) <= rows
    assert all(set(line) == {"▀"} and len(line) == len(drawn[0]) <= columns for line in drawn)


@pytest.mark.parametrize(("columns", "rows"), [(80, 100), (500, 30)])
def test_picture_keeps_its_proportions(columns: int, rows: int) -> None:
    lines = half_blocks(np.zeros((260, 346), np.uint8), columns=columns, rows=rows).plain.split(
        "\n"
    )
    assert 2 * len(lines) / len(lines[0]) == pytest.approx(260 / 346, rel=0.04)


def test_character_is_two_pixels_in_their_classes_colours() -> None:
    picture = half_blocks(np.array([[0, 1], [2, UNKNOWN]], np.uint8), columns=2, rows=1)
    styles = [str(span.style) for span in picture.spans]
    assert styles == [
        f"{class_colour(0)} on {class_colour(2)}",
        f"{class_colour(1)} on {class_colour(UNKNOWN)}",
    ]


@pytest.mark.parametrize(
    ("shape", "columns", "rows"),
    [((0, 5), 9, 9), ((5, 0), 9, 9), ((5, 5), 9, 0), ((5, 5), 0, 9), ((5, 5), 9, -3)],
)
def test_nothing_to_draw_or_no_room_is_an_empty_picture(
    shape: tuple[int, int], columns: int, rows: int
) -> None:
    assert half_blocks(np.zeros(shape, np.uint8), columns=columns, rows=rows).plain == ""


def test_no_two_of_the_usual_classes_look_alike() -> None:
    colours = [class_colour(label) for label in range(19)] + [class_colour(UNKNOWN)]
    rgb = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in colours])
    apart = np.abs(rgb[:, None] - rgb[None]).sum(axis=2) + 1000 * np.eye(len(rgb))
    assert apart.min() > 70


def test_shares_are_of_what_the_network_looked_at() -> None:
    result = label_map([[0, 0, 0, 1], [UNKNOWN] * 4])
    assert class_shares(result) == {"road": 0.75, "car": 0.25}
    assert summary(result).plain == "■ road 75%  ■ car 25%"


def test_network_that_looked_nowhere_has_no_shares() -> None:
    assert class_shares(label_map([[UNKNOWN]])) == {}
    assert summary(label_map([[UNKNOWN]])).plain == ""


def test_detections_are_counted() -> None:
    result = Detections(
        stamp=STAMP,
        boxes=np.zeros((3, 4), np.float32),
        scores=np.ones(3, np.float32),
        class_ids=np.array([1, 0, 1]),
        classes=("car", "person"),
        model=ModelRef(name="m"),
    )
    assert summary(result).plain == "■ car 1  ■ person 2"


def search_map(intensity: list[list[float]]) -> SearchMap:
    return SearchMap(
        stamp=STAMP,
        intensity=np.array(intensity, np.float32),
        cell_rad=0.1,
        tracks=np.zeros((2, 4), np.float32),
        trail=np.radians(np.array([[0, 0], [3, -1.5]], np.float32)),
        model=ModelRef(name="bayes"),
    )


def test_a_search_says_whom_it_follows_and_where_it_looks() -> None:
    said = summary(search_map([[0.5, 1.0]])).plain
    assert said == "2 tracks, 1.5 more expected, gaze +3.00° -1.50°"


def test_a_search_map_glows_where_targets_may_be() -> None:
    drawn = picture(search_map([[1.0, 0.01], [1e-9, 0.0]]), columns=2, rows=1)
    hot, cool = (str(span.style) for span in drawn.spans)
    assert hot.startswith("#ffff00")
    assert hot.endswith("#000000")
    assert "#000000" not in cool[:8]


def test_a_search_map_of_nothing_is_dark() -> None:
    drawn = picture(search_map([[0.0], [0.0]]), columns=1, rows=1)
    assert [str(span.style) for span in drawn.spans] == ["#000000 on #000000"]


def instances(*found: np.ndarray, ids: list[int], visible: list[float]) -> Instances:
    packed = tuple(masks.encode(mask) for mask in found)
    return Instances(
        stamp=STAMP,
        ids=np.array(ids, np.int64),
        masks=packed,
        boxes=np.array([masks.box(rle) for rle in packed], np.float32).reshape(-1, 4),
        scores=np.array([0.91] * len(ids), np.float32),
        visible=np.array(visible, np.float32),
        picture_px=(4, 2),
        model=ModelRef(name="m"),
        classes=("", "dog")[: len(ids)],
    )


def test_objects_are_drawn_in_the_colours_of_their_ids() -> None:
    upper, right = np.zeros((2, 2, 4), np.bool_)
    upper[0], right[:, 3] = True, True
    found = instances(upper, right, ids=[300, 7], visible=[1, 1])
    drawn = picture(found, columns=4, rows=1)
    a, b, black = object_colour(300), object_colour(7), class_colour(UNKNOWN)
    styles = [str(span.style) for span in drawn.spans]
    assert styles == [*[f"{a} on {black}"] * 3, f"{b} on {b}"]


def test_objects_are_listed_with_what_is_known_of_them() -> None:
    upper = np.ones((2, 4), np.bool_)
    said = summary(instances(upper, ~upper, ids=[1, 7], visible=[0.9, 0.1]))
    assert said.plain == "■ 1 0.91  □ 7 dog out of sight"
    nothing = instances(ids=[], visible=[])
    assert summary(nothing).plain == "no objects yet"
    assert set(picture(nothing, columns=4, rows=1).plain) == {"▀"}
