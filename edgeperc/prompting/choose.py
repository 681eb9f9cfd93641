"""Which of the decoder's four masks is the answer.

A prompt that leaves open what is meant gets the best of three, by the IoU that the network
predicts; another gets the one for the whole prompt, unless it is not stable: then the best of three
after all. Source: Kirillov et al. 2023, section 3; Ravi et al. 2024, appendix D;
facebookresearch/sam2, `_dynamic_multimask_via_stability`.
"""

from __future__ import annotations

import numpy as np

from edgeperc.prompting.seam import F32, Decoded

DELTA, STABLE = 0.05, 0.98
"""A mask is stable if this share of its area is left when logits above DELTA count, not -DELTA."""

ABSENT_LOGIT = -1024.0
"""Logits of an object that is not there. Source: facebookresearch/sam2, `NO_OBJ_SCORE`."""


def best_of_three(decoded: Decoded) -> int:
    """Index of the mask with the highest predicted IoU, of the three for parts and wholes."""
    return 1 + int(decoded.ious[1:].argmax())


def stable_or_best(decoded: Decoded) -> int:
    """Index of the mask for the whole prompt, or of the best of three if it is not stable."""
    steady = stability(decoded.masks[0], DELTA) >= STABLE
    return 0 if steady else best_of_three(decoded)


def stability(logits: F32, delta: float) -> float:
    """Pixels above delta over those above -delta; 1 where there are none."""
    surely, perhaps = np.count_nonzero(logits > delta), np.count_nonzero(logits > -delta)
    return surely / perhaps if perhaps else 1.0
