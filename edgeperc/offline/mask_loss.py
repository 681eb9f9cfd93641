"""What an answer to a prompt costs: masks, their predicted IoU, and whether the object is there.

As in SAM 2 (arXiv 2408.00714, appendix), of several masks only the best is asked to improve, the
predicted IoU of all of them is. Otherwise than there, pixels cost plain cross entropy and dice
counts three times: focal loss, made for millions of masks, pushed all logits below zero here and
kept them there. The predicted IoU costs cross entropy too, whose slope does not vanish where a
sigmoid has settled on 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeperc.offline.nets.sam2 import Decoded

CROSS, DICE, IOU, OBJECT = 2.0, 3.0, 1.0, 1.0


def answer_loss(decoded: Decoded, truth: Tensor, many: Tensor) -> Tensor:
    """Mean loss over the objects, a scalar.

    truth: (B, S, S) bool. many: (B,) bool, whether the object is answered with the best of the
    three masks or by the single one.
    """
    logits, ious = decoded.masks.float(), decoded.ious.float()
    target = covered(truth, logits.shape[-1])[:, None]
    there = truth.flatten(1).any(1)
    cost = CROSS * _cross(logits, target) + DICE * _dice(logits, target)
    reached = _iou(logits.detach(), (target > 0.5).float())
    error = F.binary_cross_entropy(ious, reached, reduction="none")
    mask_cost = torch.where(many, cost[:, 1:].min(1).values, cost[:, 0])
    iou_cost = torch.where(many, error[:, 1:].mean(1), error[:, 0])
    object_cost = F.binary_cross_entropy_with_logits(
        decoded.object_logits.float()[:, 0], there.float()
    )
    share = there.float() / there.sum().clamp(min=1)
    return ((mask_cost + IOU * iou_cost) * share).sum() + OBJECT * object_cost


def answered(decoded: Decoded, many: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, h, h) and pointer (B, width) of the mask that an object is answered with.

    many: as above; the best of the three is the one with the best predicted IoU.
    """
    row = torch.arange(len(many))
    best = torch.where(many, 1 + decoded.ious[:, 1:].argmax(1), torch.zeros_like(row))
    return decoded.masks[row, best].float(), decoded.pointers[row, best]


def covered(truth: Tensor, side: int) -> Tensor:
    """Share of each cell of a (B, side, side) grid that a mask (B, S, S) bool covers.

    Learnt as it is, so that the edge of an answer, interpolated, lies within the cell.
    """
    return F.interpolate(truth[:, None].float(), (side, side), mode="area")[:, 0]


def _cross(logits: Tensor, target: Tensor) -> Tensor:
    cost = F.binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction="none")
    return cost.mean((2, 3))


def _dice(logits: Tensor, target: Tensor) -> Tensor:
    share = torch.sigmoid(logits)
    both = (share * target).sum((2, 3))
    return 1 - (2 * both + 1) / (share.sum((2, 3)) + target.sum((2, 3)) + 1)


def _iou(logits: Tensor, target: Tensor) -> Tensor:
    answer = (logits > 0).float()
    both = (answer * target).sum((2, 3))
    either = (answer + target - answer * target).sum((2, 3))
    return both / either.clamp(min=1)
