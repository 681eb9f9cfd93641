"""Follow objects through a video with SAM 2, the slow and plain way that faster ways are held to.

    video = TorchVideo(network)
    video.step(picture, {7: Clicks(points, labels)})     # object 7 is new
    found = video.step(next_picture)[7]                  # and is followed

Everything is remembered, for as long as the video lasts; what a frame looks at is chosen anew from
it. Sources: Ravi et al. 2024, section 4 and appendix D; repository facebookresearch/sam2,
`sam2_base.py`, read where the paper is silent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeperc.errors import DataError
from edgeperc.offline.nets.prompt_encoder import PADDING
from edgeperc.offline.nets.sam2 import Decoded, Features, Sam2

ABSENT_LOGIT = -1024.0
"""A mask's logits where the object is not there."""

STABLE_DELTA, STABLE = 0.05, 0.98
"""A mask is stable if its area at +delta is at least this share of that at -delta."""

PREVIOUS_LIMIT = 32.0
"""Logits of a mask that is corrected are held within this before they are shown again."""


@dataclass(frozen=True, slots=True)
class Clicks:
    """points: (P, 2) pixels of the network's picture; labels: (P,), 1 on the object, 0 off it, 2
    and 3 the upper left and lower right corner of a box.
    """

    points: Tensor
    labels: Tensor


@dataclass(frozen=True, slots=True)
class Drawn:
    """mask: (S, S) of 0 and 1. It is taken as it is."""

    mask: Tensor


Prompt: TypeAlias = Clicks | Drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An object on a frame. logits: (4g, 4g); large: (S, S) logits; iou: predicted; object_logit:
    above 0 where it is there; pointer: (width,); memory: (g*g, memory_width). prompted: whether the
    frame had a prompt for it.
    """

    logits: Tensor
    large: Tensor
    iou: float
    object_logit: float
    pointer: Tensor
    memory: Tensor
    prompted: bool


class TorchVideo:
    """Objects and all that was found of them, by frame.

    corrections: what clicks on an object already followed mean. "refine": the mask tracked into
    this frame is shown to the network together with them, as Meta's predictor does. "restart": they
    are all it gets to know, as in transformers' streaming. prompt_frames: how many frames with a
    prompt count as such, the newest; all if None. memory_type: what memories are rounded to.
    """

    def __init__(
        self,
        network: Sam2,
        *,
        corrections: Literal["refine", "restart"] = "refine",
        prompt_frames: int | None = None,
        memory_type: torch.dtype = torch.float32,
    ) -> None:
        self.network = network.eval()
        self.corrections = corrections
        self.prompt_frames = prompt_frames
        self.memory_type = memory_type
        self.frame = 0
        self.found: dict[int, dict[int, Found]] = {}

    @torch.no_grad()
    def step(
        self, picture: Tensor, prompts: Mapping[int, Prompt] | None = None
    ) -> dict[int, Found]:
        """Follow every object into the next frame. picture: (3, S, S), normalised; prompts: by
        object, for this frame. Returns what was found, by object. Raises DataError for a prompt
        without anything in it.
        """
        prompts = prompts or {}
        for object_id, prompt in prompts.items():
            if isinstance(prompt, Clicks) and not len(prompt.points):
                raise DataError(
                    f"the prompt for object {object_id} has no point, no box and no mask"
                )
        features = self.network.encode(picture[None])
        for object_id in prompts:
            self.found.setdefault(object_id, {})
        for object_id, past in self.found.items():
            past[self.frame] = self._look(features, past, prompts.get(object_id))
        self.frame += 1
        return {object_id: past[self.frame - 1] for object_id, past in self.found.items()}

    def remove(self, object_id: int) -> None:
        """Follow an object no longer."""
        del self.found[object_id]

    def _look(self, features: Features, past: dict[int, Found], prompt: Prompt | None) -> Found:
        if isinstance(prompt, Drawn):
            return self._take(features, prompt.mask)
        if prompt is None:
            return self._decode(features, self._conditioned(features, past), None)
        if not past or self.corrections == "restart":
            return self._decode(features, self.network.without_memory(features.embedding), prompt)
        conditioned = self._conditioned(features, past)
        tracked = self._decode(features, conditioned, None)
        return self._decode(features, conditioned, prompt, tracked.logits)

    def _decode(
        self,
        features: Features,
        conditioned: Tensor,
        prompt: Clicks | None,
        previous: Tensor | None = None,
    ) -> Found:
        """Answer clicks, or none. previous: (4g, 4g) logits of the mask that clicks correct."""
        points, labels = _padded(prompt, conditioned)
        if previous is not None:
            previous = previous.clamp(-PREVIOUS_LIMIT, PREVIOUS_LIMIT)[None, None]
        answer = self.network.decode(conditioned, features.high, points, labels, previous)
        clear = prompt is not None and len(prompt.points) > 1
        mask = _stable_or_best(answer) if clear else _best(answer)
        there = bool(answer.object_logits[0, 0] > 0)
        logits = (
            answer.masks[0, mask] if there else torch.full_like(answer.masks[0, 0], ABSENT_LOGIT)
        )
        return self._found(
            features,
            logits=logits,
            large=self._enlarged(logits),
            iou=float(answer.ious[0, mask]),
            object_logits=answer.object_logits,
            pointer=answer.pointers[0, 0 if clear else mask],
            prompted=prompt is not None,
        )

    def _take(self, features: Features, mask: Tensor) -> Found:
        """A drawn mask is the answer; the decoder only says what to remember it by."""
        network, pixels = self.network, mask.to(features.embedding.dtype)[None, None]
        large = pixels * 20 - 10
        size = 4 * network.config.grid
        small = F.interpolate(large, (size, size), mode="bilinear", antialias=True)
        points, labels = _padded(None, features.embedding)
        shown = network.mask_downsample(pixels)
        answer = network.decode(features.embedding, features.high, points, labels, shown)
        empty = not bool(mask.any())
        return self._found(
            features,
            logits=small[0, 0],
            large=large[0, 0],
            iou=1.0,
            object_logits=torch.full_like(answer.object_logits, -10.0 if empty else 10.0),
            pointer=network.no_obj_ptr[0] if empty else answer.pointers[0, 0],
            prompted=True,
        )

    def _found(
        self,
        features: Features,
        *,
        logits: Tensor,
        large: Tensor,
        iou: float,
        object_logits: Tensor,
        pointer: Tensor,
        prompted: bool,
    ) -> Found:
        network = self.network
        memory = network.encode_memory(
            features.embedding, large[None, None], object_logits, from_points=prompted
        )
        tokens = network.frame_tokens(memory)[0]
        return Found(
            logits=logits,
            large=large,
            iou=iou,
            object_logit=float(object_logits[0, 0]),
            pointer=pointer,
            memory=tokens.to(self.memory_type).to(tokens.dtype),
            prompted=prompted,
        )

    def _conditioned(self, features: Features, past: dict[int, Found]) -> Tensor:
        """The frame's embedding in the light of the object's past, (1, width, g, g)."""
        network = self.network
        frames = self._frames(past)
        pointers = self._pointers(past)
        ages = torch.tensor([float(age) for age, _ in pointers], device=features.embedding.device)
        memory = torch.cat(
            [found.memory for _, found in frames]
            + [network.pointer_tokens(found.pointer[None])[0] for _, found in pointers]
        )
        position = torch.cat(
            [network.frame_position(age) for age, _ in frames] + [network.pointer_position(ages)]
        )
        count = len(pointers) * network.config.pieces
        return network.attend_memory(features.embedding, memory[None], position[None], count)

    def _prompted(self, past: dict[int, Found]) -> list[int]:
        """Frames that count as prompted, oldest first."""
        frames = sorted(frame for frame, found in past.items() if found.prompted)
        return frames if self.prompt_frames is None else frames[-self.prompt_frames :]

    def _frames(self, past: dict[int, Found]) -> list[tuple[int, Found]]:
        """Frames to look at with their age, 0 for prompted ones; these first, then old to new."""
        prompted = self._prompted(past)
        ages = range(self.network.config.memory_frames - 1, 0, -1)
        return [(0, past[frame]) for frame in prompted] + self._tracked(past, prompted, ages)

    def _pointers(self, past: dict[int, Found]) -> list[tuple[int, Found]]:
        """Frames whose pointer to look at, with their age; prompted ones first, then new to old."""
        prompted = self._prompted(past)
        ages = range(1, self.network.config.max_pointers)
        first = [(self.frame - frame, past[frame]) for frame in prompted]
        return first + self._tracked(past, prompted, ages)

    def _tracked(
        self, past: dict[int, Found], prompted: list[int], ages: range
    ) -> list[tuple[int, Found]]:
        frames = [(age, self.frame - age) for age in ages]
        return [
            (age, past[frame]) for age, frame in frames if frame in past and frame not in prompted
        ]

    def _enlarged(self, logits: Tensor) -> Tensor:
        side = self.network.config.picture_px
        large = F.interpolate(logits[None, None], (side, side), mode="bilinear")
        return large[0, 0]


def _padded(prompt: Clicks | None, like: Tensor) -> tuple[Tensor, Tensor]:
    """Points and labels as the network learned with: one PADDING more, two where there are none."""
    points, labels = like.new_zeros(1, 1, 2), like.new_full((1, 1), PADDING)
    if prompt is None:
        return points.repeat(1, 2, 1), labels.repeat(1, 2)
    given = prompt.points.to(like)[None], prompt.labels.to(like)[None]
    return torch.cat([given[0], points], dim=1), torch.cat([given[1], labels], dim=1)


def _best(answer: Decoded) -> int:
    """Of the three masks for a prompt that leaves doubt, the one of the highest predicted IoU."""
    return 1 + int(answer.ious[0, 1:].argmax())


def _stable_or_best(answer: Decoded) -> int:
    """The mask for a clear prompt, unless its area hangs on where the threshold is."""
    logits = answer.masks[0, 0]
    inner, outer = (logits > STABLE_DELTA).sum(), (logits > -STABLE_DELTA).sum()
    return 0 if outer == 0 or inner / outer >= STABLE else _best(answer)
