"""Which files a promptable network becomes, and what each of them computes.

    for part in parts(net, card.prompt):
        write_part(part, folder)

Encoder and decoder and, for video, memory encoder and memory attention, all of fixed shapes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeperc.config import PromptTable
from edgeperc.offline.nets import taps
from edgeperc.offline.nets.memory import Rotation
from edgeperc.offline.nets.sam import Sam
from edgeperc.offline.nets.sam2 import Sam2
from edgeperc.offline.nets.taps import Attention
from edgeperc.offline.onnx_part import Part
from edgeperc.prompting.memory import UNUSED
from edgeperc.prompting.networks import Sizes


def parts(net: Sam | Sam2, table: PromptTable, *, open_memory: bool = False) -> Iterator[Part]:
    """The files of a network, one at a time, each with the outputs of those before as examples."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    side, count = table.picture_px, table.points
    picture = {"picture": noise(1, 3, side, side)}
    high_names = ("high0", "high1") if isinstance(net, Sam2) else ()
    encoder = _Encoder(net)
    yield Part(role="encoder", net=encoder, inputs=picture, outputs=("embedding", *high_names))
    embedding, *high = encoder(*picture.values())
    grid = embedding.shape[-1]
    labels = torch.tensor([1.0, 0.0, 2.0, 3.0, -1.0] + [-2.0] * count)[:count]
    prompt = {
        "embedding": embedding,
        **dict(zip(high_names, high, strict=True)),
        "points": torch.rand(1, count, 2, generator=generator) * side,
        "labels": labels[None],
        "mask_input": noise(1, 1, 4 * grid, 4 * grid),
        "has_mask": torch.ones(1),
    }
    answers = ("object_logits", "pointers") if high else ()
    yield Part(
        role="decoder", net=_Decoder(net), inputs=prompt, outputs=("masks", "ious", *answers)
    )
    if table.kind == "image" or isinstance(net, Sam):
        return
    yield Part(
        role="memory_encoder",
        net=_MemoryEncoder(net),
        inputs={
            "embedding": embedding,
            "mask_logits": noise(1, 1, side, side),
            "object_logits": torch.full((1, 1), -1.0),
            "from_points": torch.zeros(1),
        },
        outputs=("memory",),
    )
    sizes = sizes_of(net, table)
    tokens = sizes.frames * grid**2 + sizes.pointer_tokens
    bias = torch.zeros(1, tokens)
    bias[:, -sizes.pointer_tokens // 2 :] = UNUSED
    yield Part(
        role="memory_attention",
        net=_MemoryAttention(net, sizes.pointer_tokens),
        inputs={
            "embedding": embedding,
            "memory": noise(1, tokens, sizes.memory_width),
            "memory_position": noise(1, tokens, sizes.memory_width),
            "bias": bias,
        },
        outputs=("conditioned",),
        open_axes={name: {1: "tokens"} for name in ("memory", "memory_position", "bias")}
        if open_memory
        else {},
    )


def sizes_of(net: Sam2, table: PromptTable) -> Sizes:
    """What the files of a network agree on."""
    config = net.config
    return Sizes(
        table=table, grid=config.grid, width=config.width, memory_width=config.memory_width
    )


def written_out(net: nn.Module) -> AbstractContextManager[None]:
    """Attention as products and softmax, so that every operator is an old and plain one."""
    return taps.written_out(each for each in net.modules() if isinstance(each, Attention))


def constants(net: Sam | Sam2, table: PromptTable) -> dict[str, NDArray[Any]]:
    """What of the weights is wanted outside the ONNX files: `edgeperc.prompting.memory.Constants`.

    No more than the first of them for single pictures, nothing of SAM.
    """
    if isinstance(net, Sam):
        return {}
    values: dict[str, Tensor] = {"no_memory": net.no_mem_embed.reshape(-1)}
    if table.kind == "video":
        values["position"] = cast(Tensor, net.memory_position)
        values["temporal"] = net.maskmem_tpos_enc[:, 0, 0]
        values["mask_weight"] = net.mask_downsample.weight[0, 0]
        values["mask_bias"] = cast(Tensor, net.mask_downsample.bias)[0]
        if net.config.version_21:
            values["pointer_weight"] = net.obj_ptr_tpos_proj.weight
            values["pointer_bias"] = net.obj_ptr_tpos_proj.bias
    return {name: value.detach().numpy() for name, value in values.items()}


class _Encoder(nn.Module):
    """picture -> embedding, high0, high1."""

    def __init__(self, net: Sam | Sam2) -> None:
        super().__init__()
        self.net = net

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        if isinstance(self.net, Sam):
            return (self.net.encode(picture),)
        features = self.net.encode(picture)
        return (features.embedding, *features.high)


class _Decoder(nn.Module):
    """embedding, high0, high1, points, labels, mask_input, has_mask -> what `decode` answers."""

    def __init__(self, net: Sam | Sam2) -> None:
        super().__init__()
        self.net = net

    def forward(self, embedding: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        *high, points, labels, mask, has_mask = rest
        if isinstance(self.net, Sam):
            answer = self.net.decode(embedding, points, labels, mask, has_mask)
            return answer.masks, answer.ious
        fine, middle = high
        return tuple(
            self.net.decode(embedding, (fine, middle), points, labels, mask, has_mask=has_mask)
        )


class _MemoryEncoder(nn.Module):
    """embedding, mask_logits, object_logits, from_points -> memory."""

    def __init__(self, net: Sam2) -> None:
        super().__init__()
        self.net = net

    def forward(self, embedding: Tensor, mask: Tensor, object_logits: Tensor, hard: Tensor) -> Any:
        return self.net.encode_memory(embedding, mask, object_logits, from_points=hard)


class _MemoryAttention(nn.Module):
    """embedding, memory, memory_position, bias -> conditioned.

    As `Sam2.attend_memory`, but for the rotation of the keys, whose table is kept once and not
    once for each frame.
    """

    def __init__(self, net: Sam2, pointer_tokens: int) -> None:
        super().__init__()
        self.net = net
        self.pointer_tokens = pointer_tokens

    def forward(
        self, embedding: Tensor, memory: Tensor, memory_position: Tensor, bias: Tensor
    ) -> Tensor:
        attention = self.net.memory_attention
        key_turn = cast(Rotation, FrameRotation(attention.turn, self.pointer_tokens))
        x = (embedding + 0.1 * cast(Tensor, self.net.position)).flatten(2).transpose(1, 2)
        for layer in attention.layers:
            x = layer(x, memory, memory_position, attention.turn, key_turn, bias[:, None, None])
        seen: Tensor = attention.norm(x)
        return seen.transpose(1, 2).reshape(embedding.shape)


class FrameRotation:
    """Turns the tokens of any number of frames by the table of one, and the pointers not at all."""

    def __init__(self, turn: Rotation, pointer_tokens: int) -> None:
        self.turn, self.pointer_tokens = turn, pointer_tokens

    def rotate(self, x: Tensor) -> Tensor:
        """x: (1, heads, N, C)."""
        heads, places, channels = int(x.shape[1]), *self.turn.cos.shape
        frames = x[:, :, : -self.pointer_tokens].reshape(1, heads, -1, places, channels)
        turned = self.turn.rotate(frames).reshape(1, heads, -1, channels)
        return torch.cat([turned, x[:, :, -self.pointer_tokens :]], dim=2)
