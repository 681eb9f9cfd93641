"""Prompts as a person might give them, drawn at random for training; tensors of equal length.

Points are in network pixels as the prompt encoder takes them: it adds half a pixel itself. A row
has three or more: (click, Meta's padding, absent) or (box corner, corner, padding), then
corrections before the last one.
"""

from __future__ import annotations

import torch
from torch import Tensor

HALF_PX = 0.5
FOREGROUND, CORNERS, PADDING, ABSENT = 1.0, (2.0, 3.0), -1.0, -2.0


def first_prompt(truth: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A click somewhere in each object or a loose box around it, a click in six cases of ten.

    truth: (B, S, S) bool, none of them empty. Returns points (B, 3, 2) px, labels (B, 3), and
    whether it was a click (B,) bool.
    """
    count = len(truth)
    is_click = torch.rand(count, generator=generator) < 0.6
    click = drawn(truth, generator) - HALF_PX
    nothing = torch.zeros_like(click)
    corners = _loose(boxes(truth), generator, truth.shape[-1]) - HALF_PX
    clicked = torch.stack([click, nothing, nothing], 1)
    boxed = torch.stack([corners[:, :2], corners[:, 2:], nothing], 1)
    labels = torch.where(
        is_click[:, None],
        torch.tensor([FOREGROUND, PADDING, ABSENT]),
        torch.tensor([*CORNERS, PADDING]),
    )
    return torch.where(is_click[:, None, None], clicked, boxed), labels, is_click


def click_prompt(truth: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One click somewhere on each object (B, S, S) bool: points (B, 2, 2), labels (B, 2)."""
    where = drawn(truth, generator)[:, None] - HALF_PX
    return _padded(where), torch.tensor([FOREGROUND, PADDING]).repeat(len(truth), 1)


def box_prompt(truth: Tensor) -> tuple[Tensor, Tensor]:
    """The tight box of each object (B, S, S) bool: points (B, 3, 2), labels (B, 3)."""
    corners = boxes(truth).view(-1, 2, 2) - HALF_PX
    return _padded(corners), torch.tensor([*CORNERS, PADDING]).repeat(len(truth), 1)


def no_prompt(count: int) -> tuple[Tensor, Tensor]:
    """What a tracked object is decoded with: padding alone."""
    return torch.zeros(count, 2, 2), torch.full((count, 2), PADDING)


def correction(
    points: Tensor,
    labels: Tensor,
    answer: Tensor,
    truth: Tensor,
    side_px: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """One more click on each object where its answer is wrong, or anywhere on it if none is.

    answer, truth: (B, h, h) bool, of pictures with sides of side_px. Returns points and labels with
    a click more.
    """
    wrong = answer != truth
    wrong = torch.where(wrong.flatten(1).any(1)[:, None, None], wrong, truth)
    side = truth.shape[-1]
    where = drawn(wrong, generator)
    column, row = where.long().unbind(1)
    label = truth[torch.arange(len(truth)), row, column].float()
    where = where[:, None] * (side_px / side) - HALF_PX
    return (
        torch.cat([points[:, :-1], where, points[:, -1:]], 1),
        torch.cat([labels[:, :-1], label[:, None], labels[:, -1:]], 1),
    )


def drawn(masks: Tensor, generator: torch.Generator) -> Tensor:
    """A point (B, 2) xy px in each mask (B, H, W) bool, anywhere with equal chance."""
    inside = masks.flatten(1)
    inside = inside | ~inside.any(1, keepdim=True)
    passed = inside.cumsum(1, dtype=torch.int32)
    wanted = torch.rand(len(masks), 1, generator=generator) * passed[:, -1:]
    index = torch.searchsorted(passed, wanted.int(), right=True)[:, 0]
    width = masks.shape[-1]
    return torch.stack([index % width, index // width], 1).float() + 0.5


def boxes(masks: Tensor) -> Tensor:
    """Tight boxes (B, 4) xyxy px of masks (B, H, W) bool, none of them empty."""
    columns, rows = masks.any(1).float(), masks.any(2).float()
    first_x, first_y = columns.argmax(1), rows.argmax(1)
    last_x = columns.shape[1] - columns.flip(1).argmax(1)
    last_y = rows.shape[1] - rows.flip(1).argmax(1)
    return torch.stack([first_x, first_y, last_x, last_y], 1).float()


def _padded(points: Tensor) -> Tensor:
    return torch.cat([points, torch.zeros(len(points), 1, 2)], 1)


def _loose(tight: Tensor, generator: torch.Generator, side_px: int) -> Tensor:
    """Boxes as drawn by hand: each edge off by a tenth of the box's side, at most 10 px."""
    size = (tight[:, 2:] - tight[:, :2]).repeat(1, 2)
    noise = torch.randn(tight.shape, generator=generator) * size * 0.1
    return (tight + noise.clamp(-10, 10)).clamp(0, side_px)
