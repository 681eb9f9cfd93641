"""What is remembered of one object: of so many frames at most, however long it is followed.

    bank = Bank(prompt_frames=2, memory_frames=7, max_pointers=16)
    bank.remember(Remembered(frame=7, tokens=tokens, pointer=pointer), prompted=True)
    for entry, offset in bank.places(8): ...
    for pointer, distance in bank.pointers(8): ...

Which frames are looked at is the rule of SAM 2 (Ravi et al. 2024, facebookresearch/sam2): all that
had a prompt, the six before this one, and the pointers of those that had a prompt and of the
fifteen before this one. Ours keeps the newest `prompt_frames` of those with a prompt.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True, kw_only=True)
class Remembered:
    """A frame as one object's memory has it.

    tokens: (g * g, 64) float32 of the memory encoder, None when the frame is too old for them.
    pointer: (D,) float32. kept: (layers, K) int64, the tokens that are still worth attention, where
    a memory that prunes has chosen them.
    """

    frame: int
    tokens: NDArray[np.float32] | None
    pointer: NDArray[np.float32]
    kept: NDArray[np.int64] | None = None


class Bank:
    """The frames of one object, oldest first: `prompted` had a prompt, `tracked` had none."""

    def __init__(self, *, prompt_frames: int, memory_frames: int, max_pointers: int) -> None:
        self.prompt_frames = prompt_frames
        self.recent_frames = memory_frames - 1
        self.recent_pointers = max_pointers - 1
        self.prompted: list[Remembered] = []
        self.tracked: list[Remembered] = []

    def remember(self, entry: Remembered, *, prompted: bool) -> None:
        """Take in the newest frame and forget what is too old."""
        (self.prompted if prompted else self.tracked).append(entry)
        while len(self.prompted) > self.prompt_frames:
            self.tracked.append(self.prompted.pop(0))  # from now on a frame like others
            self.tracked.sort(key=lambda each: each.frame)
        reach = max(self.recent_frames, self.recent_pointers)
        self.tracked = [each for each in self.tracked if entry.frame - each.frame < reach]
        for each in self.tracked:
            if entry.frame - each.frame >= self.recent_frames:
                each.tokens = each.kept = None

    def places(self, frame: int) -> Iterator[tuple[Remembered, int]]:
        """Frames whose tokens are looked at from `frame`, and how many frames ago each was.

        Those with a prompt come first and count as 0 frames ago; then the others, oldest first.
        """
        for entry in self.prompted:
            yield entry, 0
        for entry in self.tracked:
            if 0 < frame - entry.frame <= self.recent_frames and entry.tokens is not None:
                yield entry, frame - entry.frame

    def pointers(self, frame: int) -> Iterator[tuple[NDArray[np.float32], int]]:
        """Pointers that are looked at from `frame`, and how many frames ago each was.

        Those with a prompt come first, oldest first; then the others, newest first.
        """
        for entry in self.prompted:
            yield entry.pointer, frame - entry.frame
        for entry in reversed(self.tracked):
            if 0 < frame - entry.frame <= self.recent_pointers:
                yield entry.pointer, frame - entry.frame

    @property
    def bytes(self) -> int:
        """Bytes of all arrays that are held."""
        arrays = [
            values
            for entry in (*self.prompted, *self.tracked)
            for values in (entry.tokens, entry.pointer, entry.kept)
            if values is not None
        ]
        return sum(values.nbytes for values in arrays)
