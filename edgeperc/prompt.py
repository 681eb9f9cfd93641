"""Segment what is pointed at: in a picture, and through a stream of frames.

session = ImageSession(places.find_model("promptable"))
session.look(image)
answer = session.ask(Prompt(points=[(412, 230)]))

stream = VideoSession(places.find_model("promptable"))
stream.step(frame, {7: Prompt(box=(300, 120, 520, 400))})   # object 7 is new
found = stream.step(next_frame)                             # and is followed
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeperc.packet import Frame
from edgeperc.places import ModelFolder
from edgeperc.prompting.prompts import Prompt, from_detections

__all__ = ["Answer", "Efficient", "ImageSession", "Prompt", "VideoSession", "from_detections"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficient:
    """What of Efficient-SAM2 is used. None: as the card says; True or less than 1 need its files.

    window_routing: windows of the picture in which nothing is expected are passed over.
    memory_keep_share: share of the tokens of an older frame that is remembered.
    """

    window_routing: bool | None = None
    memory_keep_share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a prompt means, best first where there are several.

    masks: (K, H, W) bool. scores: (K,) float32 IoU as the network predicts it. logits:
    (K, 4g, 4g) float32 as the network has them.
    """

    masks: NDArray[np.bool_]
    scores: NDArray[np.float32]
    logits: NDArray[np.float32]


class ImageSession:
    """Answers prompts about one picture after the other. Serves one thread.

    Raises ModelError if the model is none for prompts, a file is missing or damaged, or its
    networks do not fit each other.
    """

    def __init__(self, model: ModelFolder, *, threads: int = 2) -> None:
        raise NotImplementedError

    def look(self, image: NDArray[np.uint8]) -> None:
        """Encode a picture (H, W) or (H, W, 3) RGB uint8; all that is asked next is about it."""

    def ask(
        self,
        prompt: Prompt,
        *,
        all_masks: bool = False,
        logits: NDArray[np.float32] | None = None,
    ) -> Answer:
        """What the prompt means. logits: (4g, 4g) of an earlier answer that this one corrects.

        One mask, the best of three where a single click leaves open what is meant; with all_masks,
        the three. Raises DataError for a prompt that does not fit, ModelError before `look`.
        """
        raise NotImplementedError

    def everything(
        self,
        *,
        points_per_side: int = 32,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Answer:
        """Masks of everything in the picture, without a prompt."""
        raise NotImplementedError

    def close(self) -> None:
        """Free the networks; may be called twice."""


class VideoSession:
    """Follows objects through a stream of frames, in bounded memory. Serves one thread."""

    def __init__(
        self, model: ModelFolder, *, threads: int = 2, efficient: Efficient = Efficient()
    ) -> None:
        raise NotImplementedError

    @property
    def objects(self) -> tuple[int, ...]:
        """The ids of what is followed."""
        raise NotImplementedError

    @property
    def counters(self) -> Mapping[str, int]:
        """How many frames, prompts, dense and routed encodings there were."""
        raise NotImplementedError

    def step(self, frame: Frame, prompts: Mapping[int, Prompt] = {}) -> object:
        """Follow all objects into a frame. prompts: of new objects, or corrections, on this frame.

        Returns Instances. Raises DataError for a prompt or a frame that does not fit, before
        anything changed.
        """

    def remove(self, object_id: int) -> None:
        """Follow an object no longer. Raises DataError if it is not followed."""

    def reset(self) -> None:
        """Forget all objects; the next frame may have another size."""

    def close(self) -> None:
        """Free the networks; may be called twice."""
