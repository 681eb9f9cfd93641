"""Weights of a checkpoint that must fit a network to the last key."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgeperc.errors import ModelError


def fitting(key: str, value: Tensor, own: Tensor) -> Tensor:
    """A checkpoint's tensor in the shape of the network's own.

    Axes of length 1 may differ: published layers are 1 x 1 convolutions, or ones of a line, where
    ours are products, and the other way round. Raises ModelError for another shape, and for values
    that are not finite.
    """
    if value.squeeze().shape != own.squeeze().shape:
        raise ModelError(f"checkpoint: {key} is {tuple(value.shape)}, must be {tuple(own.shape)}")
    if not torch.isfinite(value).all():
        raise ModelError(f"checkpoint: {key} holds values that are not finite")
    return value.reshape(own.shape)


def require_none(keys: Sequence[str], what: str, *, hint: str) -> None:
    """Raises ModelError if there are such keys. what: "lacks", or what else is wrong with them."""
    if keys:
        more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        raise ModelError(f"checkpoint {what} {keys[0]}{more}", hint=hint)
