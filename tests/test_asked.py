"""Points, boxes and masks come from the command line and from files as they were meant."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeperc.cli.asked import FIRST, Asked, Script, When, from_options
from edgeperc.errors import ConfigError, DataError


def test_points_without_a_number_are_object_one_and_add_up() -> None:
    (asked,) = from_options(["412,230", "10.5,20,0", "1:3,4,1"])
    assert asked == Asked(object_id=1, points=((412, 230, 1), (10.5, 20, 0), (3, 4, 1)))
    prompt = asked.prompt()
    np.testing.assert_array_equal(prompt.points, [[412, 230], [10.5, 20], [3, 4]])
    np.testing.assert_array_equal(prompt.labels, [1, 0, 1])
    assert prompt.box is None


def test_boxes_without_a_number_are_objects_of_their_own() -> None:
    asked = from_options(boxes=["0,0,5,5", "1:9,9,20,20", "1,1,8,8@45"], points=["3,3"])
    found = {each.object_id: each for each in asked}
    assert sorted(found) == [1, 2, 3]
    assert found[1].box == (9, 9, 20, 20)
    assert found[1].points == ((3, 3, 1),)
    assert found[2].box == (0, 0, 5, 5)
    assert found[3] == Asked(object_id=3, box=(1, 1, 8, 8), when=When(frame=45))


def test_a_point_goes_with_the_only_box() -> None:
    (asked,) = from_options(["3,3,0"], ["0,0,5,5"])
    assert asked == Asked(object_id=1, box=(0, 0, 5, 5), points=((3, 3, 0),))


def test_what_is_asked_waits_for_its_frame_or_time() -> None:
    script = Script(
        from_options(["3,3"], ["2:0,0,5,5@2", "3:0,0,5,5@0.1s"], removes=["2@4", "1@4"])
    )
    came = []
    for frame in range(6):
        prompts, removed = script.take(frame, frame * 0.04)
        came.append((sorted(prompts), sorted(removed)))
    assert came == [([1], []), ([], []), ([2], []), ([3], []), ([], [1, 2]), ([], [])]
    assert not script.waiting


def test_a_mask_is_where_a_picture_is_bright(tmp_path: Path) -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[5:9, 4:20] = 255
    cv2.imwrite(str(tmp_path / "a@2.png"), mask)
    (asked,) = from_options(masks=[f"7:{tmp_path}/a@2.png"])
    assert (asked.object_id, asked.when) == (7, FIRST)
    np.testing.assert_array_equal(asked.prompt().mask, mask > 0)
    with pytest.raises(DataError, match="No such file"):
        from_options(masks=["gone.png"])[0].prompt()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"points": ["412"]}, "--point 412"),
        ({"points": ["1,2,3"]}, "--point 1,2,3"),
        ({"points": ["a,b"]}, "--point a,b"),
        ({"points": [""]}, "--point"),
        ({"boxes": ["1,2,3"]}, "--box 1,2,3"),
        ({"boxes": ["-1:1,2,3,4"]}, "--box"),
        ({"boxes": ["1,2,3,4@1.5"]}, "whole numbers"),
        ({"removes": ["2,3@4"]}, "--remove"),
        ({"removes": ["1:2@4"]}, "--remove"),
        ({"boxes": ["1:1,2,3,4", "1:1,2,3,5"]}, "object 1 has two of --box @0"),
        ({"points": ["1,2@3"], "removes": ["1@3"]}, "pointed at and removed @3"),
    ],
)
def test_mistakes_say_how_it_is_written(options: dict[str, list[str]], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        from_options(**options)


FILE = """
[[prompts]]
box = [1, 2, 30, 40]
points = [[5, 6], [7, 8, 0]]

[[prompts]]
object = 3
time_s = 1.5
mask = "m.png"

[[prompts]]
object = 3
frame = 90
remove = true
"""


def test_a_file_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(FILE)
    asked = from_options(file=tmp_path / "p.toml", boxes=["9,9,12,12"])
    assert asked == [
        Asked(object_id=1, box=(1, 2, 30, 40), points=((5, 6, 1), (7, 8, 0))),
        Asked(object_id=3, when=When(time_s=1.5), mask=str(tmp_path / "m.png")),
        Asked(object_id=3, when=When(frame=90), remove=True),
        Asked(object_id=2, box=(9, 9, 12, 12)),
    ]
    (tmp_path / "p.json").write_text('{"prompts": [{"object": 2, "points": [[1, 2]]}]}')
    assert from_options(file=tmp_path / "p.json") == [Asked(object_id=2, points=((1, 2, 1),))]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[prompts]]\nobject = 1", "asks for nothing"),
        ("[[prompts]]\npoint = [1, 2]", "point"),
        ("[[prompts]]\nbox = [1, 2, 3]", "box"),
        ("[[prompts]]\npoints = [[1, 2, 5]]", "third"),
        ("[[prompts]]\npoints = [[1]]", "third"),
        ("[[prompts]]\nbox = [1, 2, 3, 4]\nframe = 1\ntime_s = 2.0", "one of them"),
        ("[[prompts]]\nbox = [1, 2, 3, 4]\nobject = 0", "count from 1"),
        ("[[prompts]\n", "p.toml"),
        ("", "prompts"),
    ],
)
def test_mistakes_in_a_file_name_the_place(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(ConfigError, match=complaint) as caught:
        from_options(file=tmp_path / "p.toml")
    assert "p.toml" in str(caught.value)


@pytest.mark.parametrize(("name", "text"), [("p.json", "{"), ("gone.json", ""), ("gone.toml", "")])
def test_a_file_that_cannot_be_read_is_named(name: str, text: str, tmp_path: Path) -> None:
    if text:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=name):
        from_options(file=tmp_path / name)
