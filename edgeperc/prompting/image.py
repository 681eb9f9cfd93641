"""Prompts about one picture after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeperc.errors import DataError, ModelError
from edgeperc.inference.compressed import computed_in
from edgeperc.inference.providers import Providers
from edgeperc.picture import Picture
from edgeperc.places import ModelFolder
from edgeperc.prompting.choose import best_of_three, stable_or_best
from edgeperc.prompting.enlarge import to_logits, to_network, to_picture
from edgeperc.prompting.everything import USUAL, Everything, Rules, everything
from edgeperc.prompting.memory import read_constants
from edgeperc.prompting.networks import Decoder, DenseEncoder
from edgeperc.prompting.prompts import Prompt, Tokens, no_tokens, tokens
from edgeperc.prompting.seam import F32, Decoded, Features, Wish
from edgeperc.result import ModelRef

LIMIT = 32.0
"""Logits of a mask that is corrected are held within this. Source: facebookresearch/sam2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a prompt means; where there are several masks, the best first.

    masks: (K, H, W) bool. scores: (K,) float32 IoU with what is meant, as the network expects it.
    logits: (K, 4g, 4g) float32 as the network has them, for `ask` to correct.
    """

    masks: NDArray[np.bool_]
    scores: F32
    logits: F32


class ImageSession:
    """Answers prompts about one picture after the other. Serves one thread.

    Raises ModelError if the model takes no prompts, a file is missing or damaged, or its networks
    do not fit each other.
    """

    def __init__(self, model: ModelFolder, *, threads: int = 2, providers: Providers = ()) -> None:
        self._encoder = DenseEncoder(model, threads=threads, providers=providers)
        self._sizes, fine = self._encoder.sizes, self._encoder.fine
        self._decoder = Decoder(model, self._sizes, fine=fine, threads=threads, providers=providers)
        self._picture = Picture(model.card.input, smooth=True)
        self._no_memory = no_memory(model, self._sizes.width) if fine else None
        self._features: Features | None = None
        self._picture_px = (0, 0)  # width, height
        self.ref = reference(model, self._encoder.provider, self._encoder.precision)

    @property
    def max_points(self) -> int:
        """Points that a prompt may have; a box counts as two."""
        return self._sizes.table.points - 1

    def look(self, image: NDArray[np.uint8]) -> None:
        """Encode a picture (H, W) or (H, W, 3) RGB uint8; all that is asked next is about it.

        Raises DataError if it is none, ModelError if the session is closed.
        """
        check_image(image)
        features = self._encoder(self._picture(image), Wish())
        embedding = features.embedding
        if self._no_memory is not None:
            embedding = embedding + self._no_memory
        self._features = Features(embedding=embedding, high=features.high)
        self._picture_px = (image.shape[1], image.shape[0])

    def ask(self, prompt: Prompt, *, all_masks: bool = False, logits: F32 | None = None) -> Answer:
        """What the prompt means in the picture. logits: (4g, 4g) of an answer that it corrects.

        One mask: the best of three where a single click leaves open what is meant. With all_masks,
        the three. Raises DataError for a prompt that does not fit the picture or the model,
        ModelError before `look`.
        """
        self._looked()
        prompt.check(*self._picture_px)
        side = self._sizes.mask
        if logits is not None and logits.shape != (side, side):
            raise DataError(f"logits to correct are {logits.shape}, the model has {(side, side)}")
        if logits is None and prompt.mask is not None:
            shares = to_network(prompt.mask, self._sizes.table.picture_px, self._picture.zoom)
            logits = to_logits(shares, side)
        limited = None if logits is None else logits.astype(np.float32).clip(-LIMIT, LIMIT)
        decoded = self._decode(self._tokens(prompt), limited)
        if all_masks:
            chosen = 1 + np.argsort(-decoded.ious[1:], kind="stable")
        elif one_click(prompt) and logits is None:
            chosen = np.array([best_of_three(decoded)])
        else:
            chosen = np.array([stable_or_best(decoded) if self._features_high else 0])
        return Answer(
            masks=np.stack([self._to_picture(decoded.masks[index]) for index in chosen]),
            scores=decoded.ious[chosen],
            logits=decoded.masks[chosen],
        )

    def everything(
        self,
        *,
        points_per_side: int = 32,
        rules: Rules = USUAL,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Everything:
        """Masks of everything in the picture, without a prompt: a grid of clicks, and what of the
        answers is sure, stable, large enough and not there yet. on_progress: clicks done, of all.

        Raises DataError for a grid of no points, ModelError before `look`.
        """
        self._looked()
        if points_per_side < 1:
            raise DataError(f"points_per_side is {points_per_side}, must be at least 1")
        return everything(
            lambda point: self._decode(self._tokens(Prompt(points=point))),
            self._to_picture,
            self._picture_px,
            points_per_side=points_per_side,
            rules=rules,
            on_progress=on_progress,
        )

    def close(self) -> None:
        """Free the networks; may be called twice."""
        self._features = None
        self._encoder.close()
        self._decoder.close()

    @property
    def _features_high(self) -> bool:
        return self._no_memory is not None

    def _looked(self) -> Features:
        if self._features is None:
            raise ModelError("there is no picture to ask about", hint="call look(image) first")
        return self._features

    def _tokens(self, prompt: Prompt) -> Tokens:
        count = self._sizes.table.points
        if not len(prompt.points) and prompt.box is None:
            return no_tokens(count, padding=2 if self._features_high else 0)
        padded = self._features_high or prompt.box is None
        return tokens(prompt, self._picture.zoom, count=count, padded=padded)

    def _decode(self, asked: Tokens, logits: F32 | None = None) -> Decoded:
        features = self._looked()
        return self._decoder(features.embedding, features.high, asked, logits)

    def _to_picture(self, logits: F32) -> NDArray[np.bool_]:
        return to_picture(logits, *self._picture_px, self._picture.zoom)


def one_click(prompt: Prompt) -> bool:
    """Whether there is nothing but a click, which leaves open how much of a thing is meant."""
    return len(prompt.points) == 1 and prompt.box is None and prompt.mask is None


def check_image(image: NDArray[np.uint8]) -> None:
    """Raise DataError unless it is a picture of some pixels."""
    if image.dtype != np.uint8 or (image.ndim != 2 and image.shape[2:] != (3,)):
        raise DataError(
            f"a picture is {image.dtype} {image.shape}, must be uint8 (H, W) or (H, W, 3)"
        )
    if image.size == 0:
        raise DataError(f"a picture of {image.shape[1]} × {image.shape[0]} px has no pixels")


def no_memory(model: ModelFolder, width: int) -> F32:
    """What is added to an embedding that nothing is remembered for, (1, D, 1, 1)."""
    held = read_constants(model).get("no_memory", np.empty(0, np.float32))
    if held.shape != (width,):
        raise ModelError(
            f"model '{model.card.name}': constant 'no_memory' is {held.shape}, "
            f"the encoder needs {(width,)}"
        )
    return held.reshape(1, -1, 1, 1)


def reference(model: ModelFolder, provider: str, precision: str) -> ModelRef:
    """Who answers: the encoder's file stands for all of them."""
    return ModelRef(
        name=model.card.name,
        sha256=next(entry.sha256 for entry in model.card.files if entry.role == "encoder"),
        engine="onnxruntime",
        provider=provider,
        precision=computed_in(model.folder, precision),
    )
