"""A memory that keeps only what drew attention of its older frames: Efficient-SAM2's retrieval.

    memory = PrunedMemory(model, sizes, constants, keep_share=0.05, threads=2)
    conditioned = memory(features, bank, frame)

When a frame is the newest of the memory, each layer scores its tokens; the strongest are noted in
the bank, and when the frame is older they alone take part. Frames with a prompt, the newest frame
and all pointers always do. Pruning starts when the memory is full, if the file takes any number of
frames; a file of fixed shapes has no room for whole older frames and prunes from the first one on.
Source: Zhang et al., Efficient-SAM2, ICLR 2026, section 3.3; jingjing0419/Efficient-SAM2.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgeperc.errors import ModelError
from edgeperc.inference.providers import Providers
from edgeperc.places import ModelFolder
from edgeperc.prompting.bank import Bank, Remembered
from edgeperc.prompting.memory import UNUSED, Constants, DenseMemory
from edgeperc.prompting.networks import Network, Sizes
from edgeperc.prompting.seam import F32, Features


def kept_tokens(keep_share: float, tokens: int) -> int:
    """How many tokens of an older frame are kept: 204 of 4096 for a share of 0.05."""
    return max(1, int(keep_share * tokens + 1e-6))


class PrunedMemory:
    """Memory attention to all of some frames and to the kept tokens of the others.

    keep_share: of the tokens of an older frame; the file has room for so many at most. Raises
    ModelError if the file is missing or damaged, does not fit the others or has not that room.
    """

    def __init__(
        self,
        model: ModelFolder,
        sizes: Sizes,
        constants: Constants,
        *,
        keep_share: float,
        threads: int,
        providers: Providers = (),
    ) -> None:
        self._sizes, self._constants = sizes, constants
        self._network = Network(model, "memory_retrieval", threads, providers)
        layers, room, width = self._network.session.input_shapes["older"]
        self._network.expect(
            {
                "embedding": sizes.embedding,
                "memory": (1, "tokens", sizes.memory_width),
                "memory_position": (1, "tokens", sizes.memory_width),
                "bias": (1, "tokens"),
                "older": (layers, room, sizes.memory_width),
                "older_position": (layers, room, width),
                "older_places": (layers, room, 2),
                "older_bias": (layers, room),
            },
            {"conditioned": sizes.embedding, "scores": (layers, sizes.grid**2)},
        )
        assert isinstance(layers, int)
        assert isinstance(room, int)
        self._keep = kept_tokens(keep_share, sizes.grid**2)
        self._older_frames = sizes.table.memory_frames - 2
        if self._keep * self._older_frames > room:
            raise ModelError(
                f"model '{model.card.name}': its memory has room for "
                f"{room // self._older_frames} tokens of an older frame, memory_keep_share = "
                f"{keep_share:g} needs {self._keep}",
                hint="export it for a larger share, or choose a smaller one",
            )
        self._positions = constants.position + constants.temporal[:, None]
        self._places = _places(sizes.grid)
        self._older = np.zeros((layers, room, width), np.float32)
        self._older_position = np.zeros((layers, room, width), np.float32)
        self._older_places = np.zeros((layers, room, 2), np.float32)
        self._older_bias = np.empty((layers, room), np.float32)
        fixed = self._network.session.input_shapes["memory"][1]
        self._whole_frames = None
        if isinstance(fixed, int):
            self._whole_frames = (fixed - sizes.pointer_tokens) // sizes.grid**2
        self._counts = {"memory_reads": 0, "pruned_reads": 0}

    @property
    def counters(self) -> Mapping[str, int]:
        """memory_reads: how often a memory was looked at; pruned_reads: with tokens left out."""
        return dict(self._counts)

    def __call__(self, features: Features, bank: Bank, frame: int, /) -> F32:
        """Returns (1, D, g, g). Notes in the bank what to keep of its newest frame."""
        whole, older = self._split(bank, frame)
        self._pack_older(older)
        out = self._network.run(
            features.embedding,
            *self._pack_whole(whole, bank, frame),
            self._older,
            self._older_position,
            self._older_places,
            self._older_bias,
        )
        newest, _ = whole[-1]
        newest.kept = _strongest(out["scores"], self._keep)
        self._counts["memory_reads"] += 1
        self._counts["pruned_reads"] += bool(older)
        return out["conditioned"]

    def close(self) -> None:
        """Free the network; may be called twice."""
        self._network.session.close()

    def _split(
        self, bank: Bank, frame: int
    ) -> tuple[list[tuple[Remembered, int]], list[tuple[Remembered, int]]]:
        """Frames that take part whole, the newest last, and frames of which tokens are kept."""
        there = sorted(bank.places(frame), key=lambda each: each[0].frame)
        prompted = [each for each in there[:-1] if each[1] == 0]
        older = [each for each in there[:-1] if each[1] != 0]
        if self._whole_frames is not None:
            return [*prompted, there[-1]], older
        if not self._full(bank, frame):
            return there, []
        scored = [each for each in older if each[0].kept is not None]
        unscored = [each for each in older if each[0].kept is None]
        return [*prompted, *unscored, there[-1]], scored

    def _full(self, bank: Bank, frame: int) -> bool:
        """Whether the object is known for as long as the memory reaches back."""
        first = min(entry.frame for entry in (*bank.prompted, *bank.tracked))
        return frame - first >= self._sizes.table.memory_frames

    def _pack_whole(
        self, whole: list[tuple[Remembered, int]], bank: Bank, frame: int
    ) -> tuple[F32, F32, F32]:
        """memory, memory_position and bias: whole frames, then pointers."""
        sizes, places = self._sizes, self._sizes.grid**2
        frames = self._whole_frames or len(whole)
        count = frames * places + sizes.pointer_tokens
        memory = np.zeros((1, count, sizes.memory_width), np.float32)
        position, bias = np.zeros_like(memory), np.full((1, count), UNUSED, np.float32)
        for slot, (entry, offset) in enumerate(whole, start=frames - len(whole)):
            each = slice(slot * places, (slot + 1) * places)
            memory[0, each], position[0, each] = entry.tokens, self._positions[offset - 1]
            bias[0, each] = 0
        pointers, frames_ago = zip(*bank.pointers(frame), strict=True)
        splits = sizes.width // sizes.memory_width
        filled = slice(frames * places, frames * places + splits * len(pointers))
        ages = self._constants.ages(np.array(frames_ago, np.float32), sizes.table.max_pointers)
        memory[0, filled] = np.reshape(pointers, (-1, sizes.memory_width))
        position[0, filled] = ages.repeat(splits, axis=0)
        bias[0, filled] = 0
        return memory, position, bias

    def _pack_older(self, older: list[tuple[Remembered, int]]) -> None:
        """Fill the buffers of kept tokens."""
        self._older_bias.fill(UNUSED)
        for slot, (entry, offset) in enumerate(older):
            kept = self._evenly() if entry.kept is None else entry.kept
            each = slice(slot * self._keep, (slot + 1) * self._keep)
            assert entry.tokens is not None
            self._older[:, each] = entry.tokens[kept]
            self._older_position[:, each] = self._positions[offset - 1][kept]
            self._older_places[:, each] = self._places[kept]
            self._older_bias[:, each] = 0

    def _evenly(self) -> NDArray[np.int64]:
        """For a frame that was never looked at as the newest one: tokens spread evenly."""
        spread = np.linspace(0, self._sizes.grid**2 - 1, self._keep).astype(np.int64)
        return np.tile(spread, (len(self._older), 1))


def open_memory(
    model: ModelFolder,
    sizes: Sizes,
    constants: Constants,
    *,
    keep_share: float | None,
    threads: int,
    providers: Providers = (),
) -> DenseMemory | PrunedMemory:
    """The memory of a model. keep_share: of an older frame's tokens, 1 is all; None is as its card
    says.
    """
    share = sizes.table.memory_keep_share if keep_share is None else keep_share
    if share >= 1:
        return DenseMemory(model, sizes, constants, threads=threads, providers=providers)
    return PrunedMemory(
        model, sizes, constants, keep_share=share, threads=threads, providers=providers
    )


def _strongest(scores: F32, count: int) -> NDArray[np.int64]:
    """The tokens of each layer that drew most attention, in order of their places."""
    chosen = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    return np.sort(chosen, axis=1)


def _places(grid: int) -> F32:
    """Column and row of each token, (g * g, 2)."""
    rows, columns = np.divmod(np.arange(grid**2), grid)
    return np.stack([columns, rows], axis=1).astype(np.float32)
