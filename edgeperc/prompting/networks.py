"""The files of a promptable model in onnxruntime, each held to the sizes of the others.

    sizes = Sizes.of(card)
    encoder = DenseEncoder(model, sizes, threads=2)
    decoder = Decoder(model, sizes, threads=2)

Every class raises ModelError on opening if its file is missing, damaged, or has other inputs and
outputs than the rest of the folder needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from edgeperc.config import ModelCard, PromptTable
from edgeperc.errors import ModelError
from edgeperc.inference.providers import Providers
from edgeperc.inference.session import Session
from edgeperc.places import ModelFolder
from edgeperc.prompting.prompts import Tokens
from edgeperc.prompting.seam import F32, Decoded, Features, Wish

Shapes: TypeAlias = Mapping[str, tuple[int | str, ...]]

_ADAPTER = "train one: edgeperc train bypass, and export it; or leave window_routing off"
_MISSING = {
    **dict.fromkeys(("encoder_head", "encoder_middle", "encoder_tail"), _ADAPTER),
    "memory_retrieval": "export the model again, or keep all: memory_keep_share = 1.0",
}
"""What to do for a file that not every model has."""

STRIDE_PX = 16
"""Network px in a place of the grid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What the networks of a folder agree on. width: channels D of the embedding, in a grid of
    grid x grid places. memory_width: channels of a token of the memory.
    """

    table: PromptTable
    grid: int
    width: int
    memory_width: int = 64

    @property
    def mask(self) -> int:
        """Side of a mask of the decoder."""
        return 4 * self.grid

    @property
    def frames(self) -> int:
        """Frames of which a memory has room."""
        return self.table.prompt_frames + self.table.memory_frames - 1

    @property
    def pointers(self) -> int:
        """Pointers of which a memory has room."""
        return self.table.prompt_frames + self.table.max_pointers - 1

    @property
    def pointer_tokens(self) -> int:
        """Tokens of all those pointers."""
        return self.pointers * (self.width // self.memory_width)

    @property
    def high(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the finer features of SAM 2."""
        return {
            "high0": (1, self.width // 8, 4 * self.grid, 4 * self.grid),
            "high1": (1, self.width // 4, 2 * self.grid, 2 * self.grid),
        }

    @property
    def embedding(self) -> tuple[int, ...]:
        """Shape of the embedding."""
        return (1, self.width, self.grid, self.grid)


def prompt_table(card: ModelCard) -> PromptTable:
    """[prompt] of a card. Raises ModelError if it has none."""
    if card.task != "promptable" or card.prompt is None:
        raise ModelError(f"model '{card.name}' does {card.task}, it takes no prompts")
    return card.prompt


@dataclass(slots=True)
class Network:
    """One file of a folder, by its role; inputs in order, outputs by name."""

    model: ModelFolder
    role: str
    threads: int
    providers: Providers = ()
    session: Session = field(init=False)

    def __post_init__(self) -> None:
        path = self.model.file(self.role)
        if path is None:
            raise ModelError(
                f"model '{self.model.card.name}' has no file of role '{self.role}'",
                hint=_MISSING.get(self.role, 'export it again, from a card of kind "video"'),
            )
        self.session = Session(path, threads=self.threads, providers=self.providers)

    def expect(self, inputs: Shapes, outputs: Shapes) -> None:
        """Raise ModelError unless these are the inputs, in order, and among the outputs."""
        found = self.session.input_shapes
        if list(found) != list(inputs):
            raise ModelError(
                f"{self._where}: its inputs are {', '.join(found)}, expected {', '.join(inputs)}"
            )
        for name, shape in (*inputs.items(), *outputs.items()):
            there = found.get(name) or self.session.output_shapes.get(name)
            if there is None:
                raise ModelError(f"{self._where}: it has no output '{name}'")
            fits = len(there) == len(shape) and all(
                not isinstance(n, int) or not isinstance(m, int) or n == m
                for n, m in zip(there, shape, strict=True)
            )
            if not fits:
                raise ModelError(
                    f"{self._where}: '{name}' is {there}, the other files need {shape}",
                    hint="the files of this folder are from different exports; export it again",
                )

    def run(self, *inputs: F32) -> dict[str, F32]:
        """Outputs by name. Raises ModelError if a shape does not fit or it is closed."""
        return dict(zip(self.session.output_shapes, self.session.run(*inputs), strict=True))

    @property
    def has_output(self) -> frozenset[str]:
        """Names of the outputs."""
        return frozenset(self.session.output_shapes)

    @property
    def _where(self) -> str:
        return f"model '{self.model.card.name}', file of role '{self.role}'"


class DenseEncoder:
    """The image encoder, all of it for every picture. `sizes`: what its file says of the rest."""

    def __init__(self, model: ModelFolder, *, threads: int, providers: Providers = ()) -> None:
        table = prompt_table(model.card)
        self._network = Network(model, "encoder", threads, providers)
        side = table.picture_px
        self._network.expect({"picture": (1, 3, side, side)}, {"embedding": (1, "D", "g", "g")})
        shape = self._network.session.output_shapes["embedding"]
        if shape[2:] != (side // STRIDE_PX,) * 2 or not isinstance(shape[1], int):
            raise ModelError(
                f"model '{model.card.name}': its encoder answers with {shape} for {side} px"
            )
        self.sizes = Sizes(table=table, grid=side // STRIDE_PX, width=shape[1])
        self.fine = "high0" in self._network.has_output
        """Whether there are finer features, as of SAM 2."""
        if self.fine:
            self._network.expect({"picture": (1, 3, side, side)}, self.sizes.high)
        self._frames = 0
        self.provider = self._network.session.provider
        self.precision = self._network.session.precision

    @property
    def counters(self) -> Mapping[str, int]:
        """dense_frames: how many pictures were encoded."""
        return {"dense_frames": self._frames}

    def __call__(self, tensor: F32, wish: Wish, /) -> Features:
        """tensor: (3, S, S)."""
        self._frames += 1
        out = self._network.run(tensor[None])
        high = tuple(out[name] for name in self.sizes.high) if self.fine else ()
        return Features(embedding=out["embedding"], high=high)

    def close(self) -> None:
        """Free the network; may be called twice."""
        self._network.session.close()


class Decoder:
    """Prompt encoder and mask decoder."""

    def __init__(
        self,
        model: ModelFolder,
        sizes: Sizes,
        *,
        fine: bool,
        threads: int,
        providers: Providers = (),
    ) -> None:
        self._network = Network(model, "decoder", threads, providers)
        count, side = sizes.table.points, sizes.mask
        self._no_mask = np.zeros((1, 1, side, side), np.float32)
        self._has_mask = (np.zeros(1, np.float32), np.ones(1, np.float32))
        self._network.expect(
            {
                "embedding": sizes.embedding,
                **(sizes.high if fine else {}),
                "points": (1, count, 2),
                "labels": (1, count),
                "mask_input": self._no_mask.shape,
                "has_mask": (1,),
            },
            {
                "masks": (1, 4, side, side),
                "ious": (1, 4),
                **({"object_logits": (1, 1), "pointers": (1, 4, sizes.width)} if fine else {}),
            },
        )

    def __call__(
        self, embedding: F32, high: tuple[F32, ...], tokens: Tokens, logits: F32 | None = None
    ) -> Decoded:
        """embedding: (1, D, g, g), conditioned or not. logits: (4g, 4g) that come with a prompt."""
        given = self._no_mask if logits is None else logits[None, None]
        out = self._network.run(
            embedding,
            *high,
            tokens.points,
            tokens.labels,
            given,
            self._has_mask[logits is not None],
        )
        saliency = out.get("saliency")
        return Decoded(
            masks=out["masks"][0],
            ious=out["ious"][0],
            object_logit=float(out["object_logits"][0, 0]) if high else float("inf"),
            pointers=out["pointers"][0] if high else None,
            saliency=None if saliency is None else saliency[0],
        )

    def close(self) -> None:
        """Free the network; may be called twice."""
        self._network.session.close()


class MemoryEncoder:
    """A frame and the mask of an object in it, to the tokens that are remembered."""

    def __init__(
        self, model: ModelFolder, sizes: Sizes, *, threads: int, providers: Providers = ()
    ) -> None:
        self._network = Network(model, "memory_encoder", threads, providers)
        side, grid = sizes.table.picture_px, sizes.grid
        self._network.expect(
            {
                "embedding": sizes.embedding,
                "mask_logits": (1, 1, side, side),
                "object_logits": (1, 1),
                "from_points": (1,),
            },
            {"memory": (1, sizes.memory_width, grid, grid)},
        )

    def __call__(
        self, features: Features, logits: F32, object_logit: float, *, prompted: bool
    ) -> F32:
        """logits: (S, S) of the mask. prompted: the mask answers a prompt. Returns (g * g, 64)."""
        out = self._network.run(
            features.embedding,
            logits[None, None],
            np.full((1, 1), object_logit, np.float32),
            np.full(1, prompted, np.float32),
        )
        memory = out["memory"][0]
        return np.ascontiguousarray(memory.reshape(len(memory), -1).T)

    def close(self) -> None:
        """Free the network; may be called twice."""
        self._network.session.close()
