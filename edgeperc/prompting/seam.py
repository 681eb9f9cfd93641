"""What passes between the networks of a session, and the two places where a faster way fits in.

    features = encoder(tensor, wish)                # DenseEncoder, or one that leaves windows out
    conditioned = memory(features, bank, frame)     # DenseMemory, or one that leaves tokens out

D channels on a grid of g × g places; the picture has 16 g px a side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeperc.prompting.bank import Bank

F32: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What the encoder says about a picture.

    embedding: (1, D, g, g) before any memory. high: (1, D/8, 4g, 4g) and (1, D/4, 2g, 2g); none
    for the first SAM.
    """

    embedding: F32
    high: tuple[F32, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """One answer of the decoder: a mask for the whole prompt, then three for parts and wholes.

    masks: (4, 4g, 4g) logits. ious: (4,) as the network predicts them. object_logit: above 0 the
    object is there; infinite where the network does not say. pointers: (4, D), None for the first
    SAM. saliency: (g, g) share of the attention of the prompt's tokens, where the file has it.
    """

    masks: F32
    ious: F32
    object_logit: float = float("inf")
    pointers: F32 | None = None
    saliency: F32 | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is known of a frame before it is encoded.

    whole: everything must be looked at, as there is a prompt on this frame, or nothing was tracked
    into the frame before. last: what the decoder said of each object on the frame before.
    """

    whole: bool = True
    last: tuple[Decoded, ...] = ()


class Encoder(Protocol):
    """Picture to features. `counters` names and counts what it did, such as dense frames."""

    @property
    def counters(self) -> Mapping[str, int]:
        """Counts since it was opened."""

    def __call__(self, tensor: F32, wish: Wish, /) -> Features:
        """tensor: (3, S, S), of value during the call only. Raises ModelError."""

    def close(self) -> None:
        """Free the network; may be called twice."""


class Memory(Protocol):
    """What is remembered of an object, attended to from the features of a frame."""

    @property
    def counters(self) -> Mapping[str, int]:
        """Counts since it was opened."""

    def __call__(self, features: Features, bank: Bank, frame: int, /) -> F32:
        """bank: of one object, with at least one frame. frame: number of the frame of `features`.

        Returns (1, D, g, g). Raises ModelError.
        """

    def close(self) -> None:
        """Free the network; may be called twice."""
