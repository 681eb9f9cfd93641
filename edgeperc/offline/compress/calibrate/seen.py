"""Pictures as a promptable network sees them once, then asked about: SAM and SAM 2 alike."""

from __future__ import annotations

import torch
from torch import Tensor

from edgeperc.offline.drawn_prompts import FOREGROUND
from edgeperc.offline.nets.sam import Sam
from edgeperc.offline.nets.sam2 import Decoded, Sam2

_SURELY = 30.0


class Seen:
    """Pictures (B, 3, S, S) as a promptable network sees them, to be asked about."""

    def __init__(self, net: Sam | Sam2, pictures: Tensor) -> None:
        self._net = net
        if isinstance(net, Sam):
            self._embedding = net.encode(pictures)
        else:
            features = net.encode(pictures)
            self._embedding = net.without_memory(features.embedding)
            self._high = features.high

    def answer(self, owner: Tensor, points: Tensor, labels: Tensor) -> Decoded:
        """owner: (N,) which picture each prompt is about. points: (N, P, 2) px, labels: (N, P).

        SAM has no object score, so its objects are there; its predicted IoUs are held to 0 to 1.
        """
        embedding = self._embedding[owner]
        if isinstance(self._net, Sam):
            answer = self._net.decode(embedding, points, labels)
            there = answer.ious.new_full((len(owner), 1), _SURELY)
            return Decoded(answer.masks, answer.ious.clamp(0, 1), there, answer.tokens)
        fine, middle = self._high
        return self._net.decode(embedding, (fine[owner], middle[owner]), points, labels)


def selected(answered: Decoded, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, h, h) and predicted IoUs (N,) that a user gets for clicks and boxes."""
    best = 1 + answered.ious[:, 1:].argmax(1)
    index = torch.where(labels[:, 0] == FOREGROUND, best, torch.zeros_like(best))
    row = torch.arange(len(index))
    return answered.masks[row, index], answered.ious[row, index]
