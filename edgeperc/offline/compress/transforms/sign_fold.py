"""Bimodal integration (BIG): a key of two humps becomes one of one, by the signs of its channels.

In the decoder's look from tokens at the picture, some channels of the key are all positive and
others all negative, so that its values have two humps, and half of a grid's codes lie between them.
The sign of a channel may be turned in query and key alike: their product does not know. Source: Lv
et al. 2024 (PTQ4SAM, arXiv 2405.03144), section 3.3. There, one picture decides; here up to eight
do, by majority, and where they disagree is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import find_peaks
from scipy.stats import gaussian_kde
from torch import Tensor
from torch.nn.utils import parametrize

from edgeperc.errors import ConfigError, ModelError
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.passes import PassResult
from edgeperc.offline.compress.sites import Site
from edgeperc.offline.nets.mask_decoder import DecoderAttention

PICTURES = 8
POINTS = 128
"""Where the density of the key's values is looked at, from the least to the largest."""

APART, LEAST = 32, 0.01
"""Humps are so many points apart, and so high, as a share of the sum of all points."""

VALUES = 16384
"""Of a picture's key, every n-th, which the density is of."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What pictures say of a key. signs: (C,) of 1 and -1, all 1 where it is not folded.

    bimodal: how many of `pictures` see two humps. doubtful: channels whose sign is not the same in
    all of these.
    """

    signs: Tensor
    pictures: int
    bimodal: int
    doubtful: int

    @property
    def folds(self) -> bool:
        """Whether any sign is turned."""
        return bool((self.signs < 0).any())


def sign_fold(ctx: Context, at: Sequence[Site], *, pictures: int = PICTURES) -> PassResult:
    """Fold the keys of the decoder's attentions among whose parts `at` chooses any.

    Raises ConfigError if it chooses none.
    """
    names = [
        name
        for name, module in ctx.net.named_modules()
        if isinstance(module, DecoderAttention) and _within(name, at)
    ]
    if not names:
        raise ConfigError(
            "sign_fold: 'at' chooses no attention of the mask decoder",
            hint='as PTQ4SAM does: at = "*token_to_image*"',
        )
    readings = ctx.capture(
        [f"{name}.k_proj" for name in names], ctx.samples[:pictures], inputs=False
    )
    notes, details = [], {}
    for name in names:
        decision = decide(readings[f"{name}.k_proj"])
        if decision.folds:
            fold(cast(DecoderAttention, ctx.net.get_submodule(name)), decision.signs)
        notes.append(f"{name}: {_told(decision)}")
        details[name] = {
            "folded": decision.folds,
            "bimodal": decision.bimodal,
            "pictures": decision.pictures,
            "doubtful_channels": decision.doubtful,
        }
    return PassResult(notes=notes, details={"attentions": details})


def decide(keys: Sequence[Tensor]) -> Decision:
    """Whether to fold, and with which signs. keys: (B, M, C) of each picture."""
    seen = [bimodal(key) for key in keys]
    means = torch.stack([key.reshape(-1, key.shape[-1]).mean(0) for key in keys])
    positive = means >= 0
    doubtful = int((positive.any(0) & ~positive.all(0)).sum())
    signs = torch.ones_like(means[0])
    if 2 * sum(seen) > len(seen):
        signs[means.mean(0) < 0] = -1
    return Decision(signs, len(seen), sum(seen), doubtful)


def bimodal(key: Tensor) -> bool:
    """Whether the values have two humps: the density has exactly two peaks."""
    flat = key.detach().flatten()
    values: NDArray[np.float64] = flat[:: -(-flat.numel() // VALUES)].double().numpy()
    if np.ptp(values) == 0:
        return False
    density = gaussian_kde(values)(np.linspace(values.min(), values.max(), POINTS))
    peaks, _ = find_peaks(density, height=LEAST * density.sum(), distance=APART)
    return len(peaks) == 2


@torch.no_grad()
def fold(attention: DecoderAttention, signs: Tensor) -> None:
    """Turn channels of query and key, in place. signs: (inner,) of 1 and -1.

    Raises ModelError where a projection's weight is quantized already.
    """
    projections = (attention.q_proj, attention.k_proj)
    if any(parametrize.is_parametrized(layer, "weight") for layer in projections):
        raise ModelError(
            "signs cannot be folded into projections that are quantized",
            hint="sign_fold goes before quantize",
        )
    for layer in projections:
        layer.weight.mul_(signs[:, None])
        layer.bias.mul_(signs)


def _within(name: str, at: Sequence[Site]) -> bool:
    return any(site.name.startswith(f"{name}.") for site in at)


def _told(decision: Decision) -> str:
    turned = int((decision.signs < 0).sum())
    agreed = f"{decision.bimodal} of {decision.pictures} pictures see two humps"
    if not decision.folds:
        return f"left as it is, {agreed}"
    return (
        f"{turned} of {len(decision.signs)} channels turned, {agreed}; pictures disagree on "
        f"{decision.doubtful} channels"
    )
