"""Prompts drawn into a picture: where they are, what they ignore, what looks like them."""

import pytest
import torch

from edgeperc.offline.nets.prompt_maps import KEYS, PromptMaps, draw

SIDE = 16  # cells of 4 px


def test_a_click_is_closest_to_its_own_cell() -> None:
    drawn = draw(torch.tensor([[[21.5, 9.5]]]), torch.tensor([[1.0]]), SIDE)
    near = drawn.maps[0, 0]
    row, column = divmod(int(near.argmax()), SIDE)
    assert (row, column) == (2, 5)
    assert near[2, 5] == pytest.approx(1)
    assert drawn.maps[0, 2:].abs().max() == 0, "no click off the object, and no box"


def test_the_nearest_of_several_clicks_counts_and_their_order_does_not() -> None:
    points = torch.tensor([[[5.0, 5.0], [50.0, 40.0], [20.0, 60.0]]])
    labels = torch.tensor([[1.0, 1.0, 0.0]])
    together = draw(points, labels, SIDE).maps
    turned = draw(points.flip(1), labels.flip(1), SIDE).maps
    torch.testing.assert_close(together, turned)
    alone = [draw(points[:, i : i + 1], labels[:, :1], SIDE).maps[:, 0] for i in (0, 1)]
    torch.testing.assert_close(together[:, 0], torch.maximum(*alone))


def test_a_box_is_inside_itself_and_deepest_in_its_middle() -> None:
    corners = torch.tensor([[[12.0, 20.0], [43.0, 51.0]]])
    maps = draw(corners, torch.tensor([[2.0, 3.0]]), SIDE).maps[0, 4:]
    inside, deep, across, along = maps
    middle = (torch.arange(SIDE) + 0.5) * 4 - 0.5
    x, y = middle[None, :], middle[:, None]
    within = (x > 12) & (x < 43) & (y > 20) & (y < 51)
    assert torch.equal(inside > 0.5, within)
    assert within.flatten()[deep.argmax()]
    assert across[8, 6] == pytest.approx((25.5 - 27.5) / 15.5)
    assert along[8, 6] == pytest.approx((33.5 - 35.5) / 15.5)


@pytest.mark.parametrize("label", [-1.0, -2.0])
def test_padding_and_absent_points_leave_no_trace(label: float) -> None:
    points = torch.tensor([[[8.0, 8.0], [30.0, 30.0]]])
    drawn = draw(points, torch.tensor([[1.0, label]]), SIDE)
    alone = draw(points[:, :1], torch.tensor([[1.0]]), SIDE)
    for mine, other in zip(drawn, alone, strict=True):
        assert torch.equal(mine, other)


def test_what_looks_like_the_clicked_place_is_marked_wherever_it_is() -> None:
    torch.manual_seed(0)
    maps = PromptMaps(32)
    embedding = torch.zeros(1, 32, 4, 4)
    fine = torch.zeros(1, 4, 16, 16)
    fine[:, 0, :, :8], fine[:, 1, :, 8:] = 3.0, 3.0  # two halves of two colours
    seen: list[torch.Tensor] = []
    maps.alike[0].register_forward_hook(lambda _m, given, _o: seen.append(given[0]))
    maps(
        embedding,
        (fine, torch.zeros(1, 8, 8, 8)),
        torch.tensor([[[10.0, 30.0]]]),
        torch.tensor([[1.0]]),
    )
    on = seen[0][0, 0]
    torch.testing.assert_close(on[:, :8], torch.ones(16, 8))
    assert on[:, 8:].max() < 0.99
    assert maps.keys[0].out_channels == KEYS


def test_a_tracked_frame_without_prompts_is_finite() -> None:
    maps = PromptMaps(32)
    high = (torch.randn(1, 4, 16, 16), torch.randn(1, 8, 8, 8))
    embedding, (fine, middle) = maps(
        torch.randn(1, 32, 4, 4), high, torch.zeros(1, 2, 2), torch.full((1, 2), -1.0)
    )
    assert all(torch.isfinite(x).all() for x in (embedding, fine, middle))
