"""What a Finder's answer costs: class, box and variance.

Source: quality focal loss (arXiv 2006.04388) for the class, whose target is the overlap that the
cell's box achieves; generalised IoU (arXiv 1902.09630) for the box; the likelihood of the edges'
errors under the stated variances (KL-Loss, arXiv 1809.08545), which teaches the variances only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeperc.offline.nets.finder import STRIDE_PX
from edgeperc.offline.sight_batches import NOBODY_ASKS, BoxBatch

BOX_WEIGHT, EDGE_WEIGHT, VARIANCE_WEIGHT = 2.0, 0.5, 0.2
LEAST_QUALITY = 0.4
"""Asked of a cell whose box misses its thing, else small things are never learnt."""
LARGEST_ERROR = 4.0
"""Strides; an edge that is further off says nothing about how precise the others are."""


def box_loss(answer: Tensor, batch: BoxBatch) -> Tensor:
    """answer: what a Finder returns. The weighted mean over the cells that answer for a thing."""
    classes = answer.shape[1] - 8
    logits, reach = answer[:, :classes], answer[:, classes : classes + 4]
    log_variance = answer[:, classes + 4 :]
    asked = batch.class_ids >= 0
    image, row, column = asked.nonzero(as_tuple=True)
    weights = batch.weights[asked]
    total = weights.sum().clamp(min=1)
    truth, given = batch.boxes[asked], reach.movedim(1, -1)[asked]
    centres = _cell_centres(answer)[row, column]
    overlap, generalised = _overlaps(centres, given, truth)

    quality, say = torch.zeros_like(logits), torch.ones_like(logits)
    where = (image, batch.class_ids[asked], row, column)
    quality[where] = LEAST_QUALITY + (1 - LEAST_QUALITY) * overlap.detach()
    say[where] = weights
    known = (batch.class_ids != NOBODY_ASKS)[:, None]
    class_loss = (_focal(logits, quality) * say * known).sum() / total

    error = given - (truth - centres.repeat(1, 2)) / STRIDE_PX * _OUTWARD
    edge_loss = F.smooth_l1_loss(error, torch.zeros_like(error), beta=0.5, reduction="none")
    spread = log_variance.movedim(1, -1)[asked]
    squared = error.detach().clamp(-LARGEST_ERROR, LARGEST_ERROR) ** 2
    variance_loss = 0.5 * (squared * torch.exp(-spread) + spread)
    each = (
        BOX_WEIGHT * (1 - generalised)
        + EDGE_WEIGHT * edge_loss.mean(dim=1)
        + VARIANCE_WEIGHT * variance_loss.mean(dim=1)
    )
    loss: Tensor = class_loss + (each * weights).sum() / total
    return loss


_OUTWARD = torch.tensor([-1.0, -1.0, 1.0, 1.0])


def _cell_centres(answer: Tensor) -> Tensor:
    """(h, w, 2) px, x and y."""
    rows, columns = (
        (torch.arange(length, dtype=torch.float32) + 0.5) * STRIDE_PX for length in answer.shape[2:]
    )
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y], dim=-1)


def _overlaps(centres: Tensor, reach: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU of the answered boxes with the true ones, all (P,)."""
    boxes = centres.repeat(1, 2) + reach * STRIDE_PX * _OUTWARD
    common = _area(
        torch.maximum(boxes[:, :2], truth[:, :2]), torch.minimum(boxes[:, 2:], truth[:, 2:])
    )
    around = _area(
        torch.minimum(boxes[:, :2], truth[:, :2]), torch.maximum(boxes[:, 2:], truth[:, 2:])
    )
    union = _area(boxes[:, :2], boxes[:, 2:]) + _area(truth[:, :2], truth[:, 2:]) - common
    iou = common / union.clamp(min=1e-3)
    return iou, iou - (around - union) / around.clamp(min=1e-3)


def _area(low: Tensor, high: Tensor) -> Tensor:
    return (high - low).clamp(min=0).prod(dim=1)


def _focal(logits: Tensor, quality: Tensor) -> Tensor:
    """Cross-entropy towards `quality`, weighted by the square of the distance to it."""
    entropy = F.binary_cross_entropy_with_logits(logits, quality, reduction="none")
    return entropy * (logits.sigmoid() - quality).abs() ** 2
