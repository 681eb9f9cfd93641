"""Pictures that a promptable network sees together, and what it is asked about each."""

from __future__ import annotations

import pytest
import torch

from edgeperc.offline.compress.adapters.prompts import grid_clicks
from edgeperc.offline.compress.calibrate.seen import Seen, selected
from edgeperc.offline.nets.sam2 import Decoded

from .tiny_promptable import tiny_sam, tiny_sam2


@pytest.mark.parametrize("make", [tiny_sam2, tiny_sam])
def test_each_prompt_is_about_its_own_picture(make):
    net = make()
    pictures = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    points, labels = grid_clicks(64)
    with torch.no_grad():
        together = Seen(net, pictures).answer(torch.tensor([1, 0, 1, 0]), points, labels)
        for index, rows in ((0, [1, 3]), (1, [0, 2])):
            alone = Seen(net, pictures[index : index + 1])
            answered = alone.answer(torch.zeros(2, dtype=torch.long), points[rows], labels[rows])
            assert torch.allclose(together.masks[rows], answered.masks, atol=1e-3)
            assert torch.allclose(together.ious[rows], answered.ious, atol=1e-3)
    assert (together.masks[0] - together.masks[1]).abs().max() > 1e-2
    assert ((together.ious >= 0) & (together.ious <= 1)).all()


def test_a_click_gets_the_best_of_three_and_a_box_the_first():
    masks = torch.arange(4.0)[None, :, None, None].expand(2, 4, 2, 2)
    ious = torch.tensor([[0.9, 0.1, 0.8, 0.2]]).expand(2, 4)
    answered = Decoded(masks, ious, torch.ones(2, 1), torch.zeros(2, 4, 1))
    logits, rated = selected(answered, torch.tensor([[1, -1, -2], [2, 3, -1]]))
    assert logits[:, 0, 0].tolist() == [2, 0]
    assert rated.tolist() == pytest.approx([0.8, 0.9])
