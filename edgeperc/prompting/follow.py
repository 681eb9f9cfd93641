"""Objects followed through a stream of frames, in bounded memory.

The rules are SAM 2's (Ravi et al. 2024, section 4 and appendix D; facebookresearch/sam2,
`sam2_base.py`): a frame is seen in the light of what is remembered of an object, the decoder says
where it is, and that is remembered in turn. A prompt on an object that is followed corrects the
mask that it would have had on that frame.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeperc import masks
from edgeperc.errors import DataError, ModelError
from edgeperc.inference.providers import Providers
from edgeperc.masks import Rle
from edgeperc.packet import Frame, Packet
from edgeperc.picture import Picture
from edgeperc.places import ModelFolder
from edgeperc.prompting.bank import Bank, Remembered
from edgeperc.prompting.choose import ABSENT_LOGIT, best_of_three, stable_or_best
from edgeperc.prompting.enlarge import (
    OFF,
    ON,
    enlarge,
    to_logits,
    to_network,
    to_picture,
)
from edgeperc.prompting.image import LIMIT, reference
from edgeperc.prompting.memory import Constants, pixels_to_mask_input
from edgeperc.prompting.networks import Decoder, MemoryEncoder, prompt_table
from edgeperc.prompting.prompts import Prompt, Tokens, check_all, naming, no_tokens, tokens
from edgeperc.prompting.retrieval import open_memory
from edgeperc.prompting.routing import open_encoder
from edgeperc.prompting.seam import F32, Decoded, Encoder, Features, Memory, Wish
from edgeperc.result import Instances, Timings


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficient:
    """What of Efficient-SAM2 is used. None: as the card says.

    window_routing: windows of the picture in which nothing is expected are passed over.
    memory_keep_share: share of the tokens of an older frame that is remembered.
    """

    window_routing: bool | None = None
    memory_keep_share: float | None = None


@dataclass(slots=True)
class _Followed:
    """An object. last: what the decoder said of it on the latest frame."""

    bank: Bank
    last: Decoded | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """An object on a frame. logits: (4g, 4g). large: (S, S), None where it is the enlarged logits.
    mask: (H, W) where it was drawn.
    """

    decoded: Decoded
    logits: F32
    score: float
    object_logit: float
    pointer: F32
    large: F32 | None = None
    mask: NDArray[np.bool_] | None = None


class VideoSession:
    """Follows objects through a stream of frames of one size. Serves one thread.

    An object is remembered by its newest frames with a prompt and the last ones before this; how
    many of each, the card says. Raises ModelError if the model takes no prompts or knows no video,
    a file is missing or damaged, or its networks do not fit each other.
    """

    def __init__(
        self,
        model: ModelFolder,
        *,
        threads: int = 2,
        providers: Providers = (),
        efficient: Efficient = Efficient(),
    ) -> None:
        table = prompt_table(model.card)
        if table.kind != "video":
            raise ModelError(
                f"model '{model.card.name}' is for single pictures, it cannot follow objects",
                hint='a model for video says kind = "video" in [prompt] of its card',
            )
        encoder = open_encoder(
            model, routing=efficient.window_routing, threads=threads, providers=providers
        )
        constants, sizes = Constants.of(model, encoder.sizes)
        self._encoder: Encoder = encoder
        self._memory: Memory = open_memory(
            model,
            sizes,
            constants,
            keep_share=efficient.memory_keep_share,
            threads=threads,
            providers=providers,
        )
        self._decoder = Decoder(model, sizes, fine=True, threads=threads, providers=providers)
        self._memory_encoder = MemoryEncoder(model, sizes, threads=threads, providers=providers)
        self._constants, self._sizes, self._table = constants, sizes, table
        self._no_memory = constants.no_memory.reshape(1, -1, 1, 1)
        self._picture = Picture(model.card.input, smooth=True)
        self._unasked = no_tokens(table.points, padding=2)
        self._followed: dict[int, _Followed] = {}
        self._shape: tuple[int, ...] = ()
        self._frame = 0
        self._counts = {"frames": 0, "prompts": 0, "objects_lost": 0}
        self.ref = reference(model, encoder.provider, encoder.precision)

    @property
    def objects(self) -> tuple[int, ...]:
        """Ids of what is followed, in the order in which they came."""
        return tuple(self._followed)

    @property
    def max_points(self) -> int:
        """Points that a prompt may have; a box counts as two."""
        return self._table.points - 1

    @property
    def counters(self) -> Mapping[str, int]:
        """Since it was opened: frames stepped through, prompts; and what encoder and memory count.

        objects_lost: how often an object was there on a frame and not on the next.
        """
        return {**self._counts, **self._encoder.counters, **self._memory.counters}

    @property
    def held_bytes(self) -> int:
        """Bytes that are held for what is followed; with the same objects, it does not grow."""
        return sum(each.bank.bytes + _bytes(each.last) for each in self._followed.values())

    def __call__(self, packet: Packet, /) -> Instances:
        """Follow all objects into a frame. Raises ModelError for events, else as `step`."""
        if not isinstance(packet, Frame):
            raise ModelError(f"model '{self.ref.name}' takes frames, got events")
        return self.step(packet)

    def step(self, frame: Frame, prompts: Mapping[int, Prompt] = {}) -> Instances:
        """Follow all objects into the next frame.

        prompts: by object, about this very frame. A new id begins an object; one that is followed
        is corrected. Returns the objects in the order in which they came, those without a visible
        pixel with an empty mask. Raises DataError for a prompt or frame that does not fit, before
        anything has changed; ModelError if the session is closed.
        """
        started_ns = time.perf_counter_ns()
        self._check(frame, prompts)
        if not self._followed and not prompts:
            return self._instances(frame, {}, Timings())
        tensor = self._picture(frame.image)
        asked = {object_id: self._asked(object_id, each) for object_id, each in prompts.items()}
        represented_ns = time.perf_counter_ns()
        features = self._encoder(tensor, self._wish(prompts))
        found: dict[int, _Found] = {}
        entries: dict[int, Remembered] = {}
        for object_id in dict.fromkeys((*self._followed, *prompts)):
            each = self._look(
                features,
                self._followed.get(object_id),
                prompts.get(object_id),
                asked.get(object_id),
            )
            found[object_id] = each
            entries[object_id] = self._entry(features, each, prompted=object_id in prompts)
        self._keep(found, entries, prompts)
        self._shape = frame.image.shape
        self._frame += 1
        return self._instances(
            frame,
            found,
            Timings(
                represent_ns=represented_ns - started_ns,
                infer_ns=time.perf_counter_ns() - represented_ns,
            ),
        )

    def remove(self, object_id: int) -> None:
        """Follow an object no longer. Raises DataError if it is not followed."""
        if object_id not in self._followed:
            known = ", ".join(str(each) for each in self._followed) or "none"
            raise DataError(f"object {object_id} is not followed", hint=f"followed are: {known}")
        del self._followed[object_id]

    def reset(self) -> None:
        """Forget all objects; the next frame may have another size."""
        self._followed.clear()
        self._shape = ()

    def close(self) -> None:
        """Free the networks and forget all; may be called twice."""
        self.reset()
        for network in (self._encoder, self._memory, self._decoder, self._memory_encoder):
            network.close()

    # Before anything changes.

    def _check(self, frame: Frame, prompts: Mapping[int, Prompt]) -> None:
        height_px, width_px = frame.image.shape[:2]
        if frame.image.size == 0:
            raise DataError(f"a frame of {width_px} × {height_px} px has no pixels")
        if self._followed and frame.image.shape != self._shape:
            raise DataError(
                f"frames were {_size(self._shape)} and are now {_size(frame.image.shape)}",
                hint="reset the session, and point at the objects again",
            )
        check_all(prompts, width_px, height_px)

    def _asked(self, object_id: int, prompt: Prompt) -> Tokens | None:
        """A prompt as tokens; None where there is nothing but a mask. Raises DataError."""
        if not len(prompt.points) and prompt.box is None:
            return None
        with naming(object_id):
            return tokens(prompt, self._picture.zoom, count=self._table.points, padded=True)

    def _wish(self, prompts: Mapping[int, Prompt]) -> Wish:
        last = tuple(each.last for each in self._followed.values() if each.last is not None)
        return Wish(whole=bool(prompts) or not last, last=last)

    # What is where.

    def _look(
        self,
        features: Features,
        followed: _Followed | None,
        prompt: Prompt | None,
        asked: Tokens | None,
    ) -> _Found:
        """Where an object is, new or followed, with or without a prompt."""
        if prompt is not None and asked is None:
            return self._drawn(features, prompt)
        if followed is None:
            seen = features.embedding + self._no_memory
        else:
            seen = self._memory(features, followed.bank, self._frame)
        if prompt is None or asked is None:
            return self._chosen(self._decoder(seen, features.high, self._unasked), clear=False)
        start: F32 | None = None
        if prompt.mask is not None:
            start = to_logits(self._shares(prompt), self._sizes.mask)
        elif followed is not None:
            tracked = self._chosen(self._decoder(seen, features.high, self._unasked), clear=False)
            start = tracked.logits.clip(-LIMIT, LIMIT)
        decoded = self._decoder(seen, features.high, asked, start)
        clear = len(prompt.points) + 2 * (prompt.box is not None) > 1
        return self._chosen(decoded, clear=clear)

    def _chosen(self, decoded: Decoded, *, clear: bool) -> _Found:
        """One of the four masks, none where the object is not there. clear: of a prompt that leaves
        no doubt, whose pointer is that of the first mask even where another one is chosen.
        """
        assert decoded.pointers is not None
        index = stable_or_best(decoded) if clear else best_of_three(decoded)
        logits = decoded.masks[index]
        return _Found(
            decoded=decoded,
            logits=logits if decoded.object_logit > 0 else np.full_like(logits, ABSENT_LOGIT),
            score=float(decoded.ious[index]),
            object_logit=decoded.object_logit,
            pointer=decoded.pointers[0 if clear else index],
        )

    def _drawn(self, features: Features, prompt: Prompt) -> _Found:
        """A mask is its own answer; the decoder only says what to remember it by."""
        shares = self._shares(prompt)
        shown = pixels_to_mask_input(shares, self._constants)
        decoded = self._decoder(features.embedding, features.high, self._unasked, shown)
        assert decoded.pointers is not None
        return _Found(
            decoded=decoded,
            logits=to_logits(shares, self._sizes.mask),
            score=1.0,
            object_logit=ON,
            pointer=decoded.pointers[0],
            large=shares * (ON - OFF) + OFF,
            mask=prompt.mask,
        )

    def _shares(self, prompt: Prompt) -> F32:
        assert prompt.mask is not None
        return to_network(prompt.mask, self._table.picture_px, self._picture.zoom)

    # What is remembered.

    def _entry(self, features: Features, found: _Found, *, prompted: bool) -> Remembered:
        large = (
            enlarge(found.logits, self._table.picture_px) if found.large is None else found.large
        )
        return Remembered(
            frame=self._frame,
            tokens=self._memory_encoder(features, large, found.object_logit, prompted=prompted),
            pointer=found.pointer.copy(),  # a row of an array that goes
        )

    def _keep(
        self,
        found: Mapping[int, _Found],
        entries: Mapping[int, Remembered],
        prompts: Mapping[int, Prompt],
    ) -> None:
        for object_id, entry in entries.items():
            if object_id not in self._followed:
                self._followed[object_id] = _Followed(
                    Bank(
                        prompt_frames=self._table.prompt_frames,
                        memory_frames=self._table.memory_frames,
                        max_pointers=self._table.max_pointers,
                    )
                )
            followed, each = self._followed[object_id], found[object_id]
            was_there = followed.last is not None and followed.last.object_logit > 0
            self._counts["objects_lost"] += was_there and each.object_logit <= 0
            followed.bank.remember(entry, prompted=object_id in prompts)
            followed.last = each.decoded
        self._counts["frames"] += 1
        self._counts["prompts"] += len(prompts)

    # What is said.

    def _instances(self, frame: Frame, found: Mapping[int, _Found], timings: Timings) -> Instances:
        height_px, width_px = frame.image.shape[:2]
        rles = tuple(self._rle(each, width_px, height_px) for each in found.values())
        boxes = np.array([masks.box(rle) for rle in rles], np.float32).reshape(-1, 4)
        return Instances(
            stamp=frame.stamp,
            ids=np.array(list(found), np.int64),
            masks=rles,
            boxes=boxes,
            scores=np.array([each.score for each in found.values()], np.float32),
            visible=np.array([_sigmoid(each.object_logit) for each in found.values()], np.float32),
            picture_px=(width_px, height_px),
            model=self.ref,
            timings=timings,
        )

    def _rle(self, found: _Found, width_px: int, height_px: int) -> Rle:
        if found.mask is not None:
            return masks.encode(found.mask)
        if found.object_logit <= 0:
            return masks.encode(np.zeros((height_px, width_px), np.bool_))
        return masks.encode(to_picture(found.logits, width_px, height_px, self._picture.zoom))


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-max(min(logit, 60.0), -60.0)))


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} × {shape[0]} px {'RGB' if len(shape) == 3 else 'grey'}"


def _bytes(decoded: Decoded | None) -> int:
    if decoded is None or decoded.pointers is None:
        return 0
    return decoded.masks.nbytes + decoded.ious.nbytes + decoded.pointers.nbytes
