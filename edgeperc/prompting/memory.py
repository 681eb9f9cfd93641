"""The memory of an object as the network attends to it: tokens of frames, then of pointers.

    memory = DenseMemory(model, sizes, constants, threads=2)
    conditioned = memory(features, bank, frame)

Positions of tokens are those of SAM 2: where on the grid (sine), how many frames ago (learned), and
for pointers how many frames ago (sine, projected; SAM 2.1 only). Source: facebookresearch/sam2,
`sam2_base.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from edgeperc.errors import ModelError
from edgeperc.inference.providers import Providers
from edgeperc.places import ModelFolder
from edgeperc.prompting.bank import Bank
from edgeperc.prompting.networks import Network, Sizes
from edgeperc.prompting.seam import F32, Features

UNUSED = -1e4
"""Added to the logits of tokens that are not there; its exponential is 0 in float32."""

_TEMPERATURE = 10_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """What of a network's weights is wanted outside its files.

    position: (g * g, 64) of the grid. temporal: (memory_frames, 64), row k - 1 for k frames ago and
    the last for frames with a prompt. no_memory: (D,) is added to an embedding that nothing is
    remembered for. mask_weight: (4, 4), with mask_bias, from pixels of a mask to a mask input.
    pointer_weight: (64, D), with pointer_bias (64,), for the age of a pointer; SAM 2 has none.
    """

    position: F32
    temporal: F32
    no_memory: F32
    mask_weight: F32
    mask_bias: F32
    pointer_weight: F32 | None = None
    pointer_bias: F32 | None = None

    @staticmethod
    def of(model: ModelFolder, sizes: Sizes) -> tuple[Constants, Sizes]:
        """Read the file of role `constants`; sizes with the memory's width. Raises ModelError."""
        held = read_constants(model)
        try:
            constants = Constants(**held)
        except TypeError as error:
            raise ModelError(f"model '{model.card.name}': its constants: {error}") from None
        sizes = replace(sizes, memory_width=constants.position.shape[-1])
        wanted = {
            "position": (sizes.grid**2, sizes.memory_width),
            "temporal": (sizes.table.memory_frames, sizes.memory_width),
            "no_memory": (sizes.width,),
            "mask_weight": (4, 4),
            "mask_bias": (),
            "pointer_weight": (sizes.memory_width, sizes.width),
            "pointer_bias": (sizes.memory_width,),
        }
        for name, values in held.items():
            if values.shape != wanted[name]:
                raise ModelError(
                    f"model '{model.card.name}': constant '{name}' is {values.shape}, "
                    f"the other files need {wanted[name]}"
                )
        return constants, sizes

    def ages(self, frames_ago: F32, max_pointers: int) -> F32:
        """Positions (N, 64) of pointers that are so many frames old (N,)."""
        if self.pointer_weight is None or self.pointer_bias is None:
            return np.zeros((len(frames_ago), self.position.shape[1]), np.float32)
        half = self.pointer_weight.shape[1] // 2
        step = _TEMPERATURE ** (2 * (np.arange(half) // 2) / half)
        angles = frames_ago[:, None] / (max_pointers - 1) / step
        sines = np.concatenate((np.sin(angles), np.cos(angles)), axis=1).astype(np.float32)
        ages: F32 = sines @ self.pointer_weight.T + self.pointer_bias
        return ages


def read_constants(model: ModelFolder) -> dict[str, F32]:
    """The arrays of the file of role `constants`, none where there is no such file.

    Raises ModelError if it cannot be read.
    """
    path = model.file("constants")
    if path is None:
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name].astype(np.float32) for name in file.files}
    except (OSError, ValueError, EOFError) as error:
        raise ModelError(f"{path}: not the constants of a model: {error}") from None


class DenseMemory:
    """Memory attention to all tokens. Owns the buffers that it packs them in.

    A file whose number of tokens is fixed is given all of them, those that are not there with a
    bias of UNUSED; one whose number is open is given the frames that are there.
    """

    def __init__(
        self,
        model: ModelFolder,
        sizes: Sizes,
        constants: Constants,
        *,
        threads: int,
        providers: Providers = (),
    ) -> None:
        self._sizes, self._constants = sizes, constants
        self._network = Network(model, "memory_attention", threads, providers)
        places, width = sizes.grid**2, sizes.memory_width
        count = sizes.frames * places + sizes.pointer_tokens
        self._network.expect(
            {
                "embedding": sizes.embedding,
                "memory": (1, count, width),
                "memory_position": (1, count, width),
                "bias": (1, count),
            },
            {"conditioned": sizes.embedding},
        )
        self._open = not isinstance(self._network.session.input_shapes["memory"][1], int)
        self._memory = np.zeros((1, count, width), np.float32)
        self._position = np.zeros((1, count, width), np.float32)
        self._bias = np.empty((1, count), np.float32)
        self._positions = constants.position + constants.temporal[:, None]
        self._calls = 0

    @property
    def counters(self) -> Mapping[str, int]:
        """memory_reads: how often a memory was looked at."""
        return {"memory_reads": self._calls}

    def __call__(self, features: Features, bank: Bank, frame: int, /) -> F32:
        """Returns (1, D, g, g)."""
        self._calls += 1
        count = self._pack(bank, frame)
        return self._network.run(
            features.embedding,
            self._memory[:, :count],
            self._position[:, :count],
            self._bias[:, :count],
        )["conditioned"]

    def close(self) -> None:
        """Free the network; may be called twice."""
        self._network.session.close()

    def _pack(self, bank: Bank, frame: int) -> int:
        """Fill the buffers; how many tokens the network is to see."""
        places, stop = self._sizes.grid**2, 0
        self._bias.fill(UNUSED)
        for entry, offset in bank.places(frame):
            each = slice(stop, stop + places)
            self._memory[0, each] = entry.tokens
            self._position[0, each] = self._positions[offset - 1]
            self._bias[0, each] = 0
            stop += places
        if not self._open:
            stop = self._sizes.frames * places
        pointers, frames_ago = zip(*bank.pointers(frame), strict=True)
        splits = self._sizes.width // self._sizes.memory_width
        filled = slice(stop, stop + splits * len(pointers))
        ages = self._constants.ages(
            np.array(frames_ago, np.float32), self._sizes.table.max_pointers
        )
        self._memory[0, filled] = np.reshape(pointers, (-1, self._sizes.memory_width))
        self._position[0, filled] = ages.repeat(splits, axis=0)
        self._bias[0, filled] = 0
        return stop + self._sizes.pointer_tokens


def pixels_to_mask_input(pixels: F32, constants: Constants) -> F32:
    """A mask (S, S) as the (S / 4, S / 4) that the decoder takes. Source: `mask_downsample`."""
    side = len(pixels) // 4
    blocks = pixels.reshape(side, 4, side, 4)
    given: F32 = np.einsum("yaxb,ab->yx", blocks, constants.mask_weight) + constants.mask_bias
    return given.astype(np.float32)
