"""What a promptable network answers in torch, for the golden file of its folder."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeperc.config import ModelCard
from edgeperc.offline.nets.sam import Sam
from edgeperc.offline.nets.sam2 import Sam2
from edgeperc.offline.nets.sam2_video import Clicks, TorchVideo
from edgeperc.picture import Picture
from edgeperc.prompting.enlarge import to_picture

WIDTH_PX, HEIGHT_PX = 160, 120
_LARGEST = 64  # logits are thinned out to so many a side


def pictures() -> NDArray[np.uint8]:
    """A disc before a shaded wall, and again 8 px further: (2, H, W, 3)."""
    row, column = np.mgrid[:HEIGHT_PX, :WIDTH_PX]
    drawn = np.empty((2, HEIGHT_PX, WIDTH_PX, 3), np.uint8)
    for index, x in enumerate((60, 68)):
        drawn[index, ..., 0] = 60 + column / 2
        drawn[index, ..., 1] = 140 - row / 2
        drawn[index, ..., 2] = 90 + 20 * np.sin(column / 7)
        drawn[index, (column - x) ** 2 + (row - 55) ** 2 < 25**2] = (220, 60, 40)
    return drawn


@torch.no_grad()
def golden(card: ModelCard, net: Sam | Sam2) -> dict[str, NDArray[Any]]:
    """The arrays of `edgeperc.prompting.golden`, by name."""
    drawn, point = pictures(), np.array([60.5, 55.5], np.float32)
    make = Picture(card.input, smooth=True)
    tensors = [torch.from_numpy(make(picture).copy()) for picture in drawn]
    at = torch.from_numpy((point * make.zoom - 0.5).astype(np.float32))[None]
    video = card.prompt is not None and card.prompt.kind == "video"
    if isinstance(net, Sam2) and video:
        found = _followed(net, tensors, at)
    else:
        found = [_asked(net, tensors[0], at)]
    logits = np.stack([each.numpy() for each, _ in found])
    stride = -(-logits.shape[-1] // _LARGEST)
    return {
        "pictures": drawn,
        "point": point,
        "masks": np.stack([to_picture(each, WIDTH_PX, HEIGHT_PX, make.zoom) for each in logits]),
        "scores": np.array([score for _, score in found], np.float32),
        "logits": logits[:, ::stride, ::stride].astype(np.float16),
        "stride": np.array(stride),
    }


def _asked(net: Sam | Sam2, picture: Tensor, at: Tensor) -> tuple[Tensor, float]:
    """The best of the three masks of a click."""
    points = torch.cat([at, torch.zeros(1, 2)])[None]
    labels = torch.tensor([[1.0, -1.0]])
    if isinstance(net, Sam):
        masks, ious = net.decode(net.encode(picture[None]), points, labels)[:2]
    else:
        features = net.encode(picture[None])
        embedding = net.without_memory(features.embedding)
        masks, ious = net.decode(embedding, features.high, points, labels)[:2]
    best = 1 + int(ious[0, 1:].argmax())
    return masks[0, best], float(ious[0, best])


def _followed(net: Sam2, pictures: list[Tensor], at: Tensor) -> list[tuple[Tensor, float]]:
    reference = TorchVideo(net)
    first = reference.step(pictures[0], {1: Clicks(at, torch.ones(1))})[1]
    second = reference.step(pictures[1])[1]
    return [(each.logits, each.iou) for each in (first, second)]
