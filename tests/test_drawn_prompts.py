"""Prompts drawn for training lie where they say they lie."""

import torch

from edgeperc.offline.drawn_prompts import (
    box_prompt,
    boxes,
    click_prompt,
    correction,
    drawn,
    first_prompt,
    no_prompt,
)


def squares():
    """Masks of known place: columns 10 to 19 and rows 20 to 39, and everything."""
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 20:40, 10:20] = True
    masks[1] = True
    return masks


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_boxes_are_tight():
    assert boxes(squares()).tolist() == [[10, 20, 20, 40], [0, 0, 64, 64]]


def test_a_drawn_point_is_inside_and_on_a_pixels_centre():
    for seed in range(30):
        x, y = drawn(squares(), generator(seed))[0].tolist()
        assert 10 < x < 20
        assert 20 < y < 40
        assert x % 1 == y % 1 == 0.5


def test_first_prompts_are_clicks_and_boxes():
    kinds = set()
    for seed in range(30):
        points, labels, is_click = first_prompt(squares(), generator(seed))
        for point, label, click in zip(points, labels, is_click, strict=True):
            kinds.add(bool(click))
            assert label.tolist() == ([1, -1, -2] if click else [2, 3, -1])
            assert point.min() >= -0.5
            assert point.max() <= 63.5
    assert kinds == {True, False}


def test_a_correction_is_a_click_where_the_answer_is_wrong():
    truth = squares()
    answer = truth.clone()
    answer[0, 50:60, 50:60] = True  # too much
    answer[1, :10, :10] = False  # too little
    points, labels, _ = first_prompt(truth, generator())
    for seed in range(20):
        more, marked = correction(points, labels, answer, truth, 128, generator(seed))
        assert more.shape == (2, 4, 2)
        assert marked[:, 2].tolist() == [0, 1]
        assert (more[0, 2] > 100).all(), "in pixels of the picture, twice those of the mask"
        assert (more[0, 2] < 120).all()
        assert (more[1, 2] < 20).all()
        assert torch.equal(marked[:, -1], labels[:, -1]), "padding stays behind"


def test_a_right_answer_is_confirmed():
    truth = squares()
    points, labels, _ = first_prompt(truth, generator())
    _, marked = correction(points, labels, truth, truth, 64, generator())
    assert marked[:, 2].tolist() == [1, 1]


def test_tracked_objects_have_padding_alone():
    points, labels = no_prompt(3)
    assert points.shape == (3, 2, 2)
    assert (labels == -1).all()


def test_exact_prompts_lie_half_a_pixel_to_the_upper_left():
    points, labels = box_prompt(squares())
    assert points[0].tolist() == [[9.5, 19.5], [19.5, 39.5], [0, 0]]
    assert labels.tolist() == [[2, 3, -1]] * 2
    points, labels = click_prompt(squares(), generator())
    assert 10 <= points[0, 0, 0] < 20
    assert points[0, 0, 0] % 1 == 0
    assert labels.tolist() == [[1, -1]] * 2
