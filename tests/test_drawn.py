"""Pictures for those who look: JPEGs, and what events have done."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edgeperc.packet import Events, Stamp
from edgeperc.sinks.drawn import COLOURS, MOST_STEPS, event_picture, event_steps, jpeg


def events(t: list[int], x: list[int], p: list[bool]) -> Events:
    return Events(
        stamp=Stamp(source="dvs", seq=0, start_ns=0, end_ns=100_000),
        t=np.array(t, np.int64),
        x=np.array(x, np.uint16),
        y=np.zeros(len(t), np.uint16),
        p=np.array(p, np.bool_),
        width_px=4,
        height_px=2,
    )


@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 3)])
def test_a_picture_keeps_its_colours(shape: tuple[int, ...]) -> None:
    image = np.zeros(shape, np.uint8)
    image[..., 0] = 200  # red, where there are colours
    found = cv2.imdecode(np.frombuffer(jpeg(image), np.uint8), cv2.IMREAD_UNCHANGED)
    wanted = image[..., ::-1] if image.ndim == 3 else image
    assert np.abs(found.astype(int) - wanted).max() < 12


def test_a_picture_that_is_too_wide_is_made_smaller() -> None:
    found = cv2.imdecode(
        np.frombuffer(jpeg(np.zeros((40, 100), np.uint8), max_width_px=50), np.uint8), -1
    )
    assert found.shape == (20, 50)


def test_steps_are_those_of_the_half_open_window() -> None:
    steps, count = event_steps(
        [
            events([0, 10, 19], [0, 1, 1], [True, True, False]),
            events([20, 20], [2, 2], [False] * 2),
        ],
        since_us=10,
        until_us=20,
    )
    assert count == 2
    assert steps.tolist() == [[3] * 4] * 2  # one more, one less
    steps, count = event_steps([events([20, 20, 21], [2, 2, 3], [False, False, True])], since_us=0)
    assert (count, steps[0].tolist()) == (3, [3, 3, 1, 4])


def test_many_events_are_the_strongest_colour_and_none_the_middle_one() -> None:
    steps, _ = event_steps([events([1] * 9, [0] * 9, [True] * 9)], since_us=0)
    picture = event_picture(steps)
    assert picture.shape == (2, 4, 3)
    assert (picture[0, 0] == COLOURS[2 * MOST_STEPS]).all()
    assert (picture[1] == COLOURS[MOST_STEPS]).all()
