"""What an answer costs: less the better it is."""

import pytest
import torch

from edgeperc.offline.mask_loss import answer_loss, answered, covered
from edgeperc.offline.nets.sam2 import Decoded


def decoded(masks, ious=None, there=5.0):
    count = len(masks)
    return Decoded(
        masks,
        torch.ones(count, 4) if ious is None else ious,
        torch.full((count, 1), there),
        torch.arange(count * 4.0).view(count, 4, 1),
    )


@pytest.fixture
def truth():
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[:, 16:48, 16:48] = True
    return masks


def perfect(truth):
    return torch.where(covered(truth, 16) > 0.5, 20.0, -20.0)[:, None].repeat(1, 4, 1, 1)


def test_a_perfect_answer_costs_next_to_nothing(truth):
    many = torch.tensor([True, False])
    good = answer_loss(decoded(perfect(truth)), truth, many)
    bad = answer_loss(decoded(-perfect(truth)), truth, many)
    assert good < 0.15
    assert bad > 5


def test_of_three_masks_the_best_counts(truth):
    masks = -perfect(truth)
    masks[:, 2] = perfect(truth)[:, 0]
    ious = torch.zeros(2, 4)
    ious[:, 2] = 1
    many = torch.tensor([True, True])
    assert answer_loss(decoded(masks, ious), truth, many) < 0.15
    assert answer_loss(decoded(masks, ious), truth, ~many) > 5
    logits, pointer = answered(decoded(masks, ious), many)
    assert torch.equal(logits, masks[:, 2])
    assert pointer[:, 0].tolist() == [2, 6]
    assert torch.equal(answered(decoded(masks, ious), ~many)[0], masks[:, 0])


def test_an_absent_object_costs_only_its_object_score(truth):
    gone = torch.zeros_like(truth)
    many = torch.tensor([True, True])
    masks = perfect(truth).requires_grad_()
    loss = answer_loss(decoded(masks, there=-8.0), gone, many)
    loss.backward()
    assert loss < 0.01
    assert not masks.grad.any()
    assert answer_loss(decoded(perfect(truth), there=8.0), gone, many) > 5
