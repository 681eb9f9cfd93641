"""SAM 2 and SAM 2.1, and small networks of the same parts.

    network = Sam2(VARIANTS["sam2.1-hiera-tiny"])
    network.load_state_dict(torch.load(path, weights_only=True)["model"], strict=True)

One picture in four steps: `encode` the picture, `attend_memory` if the object was seen before (else
`without_memory`), `decode` prompts to masks, `encode_memory` to remember the mask chosen. Which
frames are remembered is `edgeperc.offline.nets.sam2_video`'s. Names of parameters are those of
Meta's files. Sources: Ravi et al. 2024; repository facebookresearch/sam2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from edgeperc.errors import ConfigError
from edgeperc.offline.nets.hiera import Hiera, ImageEncoder
from edgeperc.offline.nets.mask_decoder import MaskDecoder, Mlp
from edgeperc.offline.nets.memory import (
    MASK_SCALE,
    MASK_SHIFT,
    MemoryAttention,
    MemoryEncoder,
    sine_offset,
    sine_position,
)
from edgeperc.offline.nets.prompt_encoder import PromptEncoder, absent_bias


@dataclass(frozen=True, slots=True, kw_only=True)
class Sam2Config:
    """Sizes of a network.

    picture_px: side of the square picture. embed, heads: of the first stage; they double with each.
    stages: blocks of each; global_blocks: which of all look at the whole picture; windows: side in
    tokens of each stage's windows; background_px: size of the learned background of the position.
    stem: () for Meta's patches, else the widths of two convolutions, the last equal to embed.
    pyramid, prompt_maps: parts that Meta's networks do not have, see `Pyramid` and `PromptMaps`.
    width: of neck, decoder and memory attention. memory_width: of what is kept. memory_frames: how
    many are looked back to, the prompted one among them. version_21: SAM 2.1's three additions.
    """

    name: str
    picture_px: int = 1024
    embed: int
    heads: int
    stages: tuple[int, ...]
    global_blocks: tuple[int, ...]
    windows: tuple[int, ...]
    background_px: tuple[int, int] = (7, 7)
    q_pool_stages: int = 3
    stem: tuple[int, ...] = ()
    pyramid: bool = False
    prompt_maps: bool = False
    width: int = 256
    memory_width: int = 64
    memory_layers: int = 4
    memory_heads: int = 1
    feed_forward: int = 2048
    decoder_feed_forward: int = 2048
    decoder_heads: int = 8
    iou_hidden: int = 256
    fuser_layers: int = 2
    layer_scale: float = 1e-6
    dropout: float = 0.0
    memory_frames: int = 7
    max_pointers: int = 16
    version_21: bool = True

    def __post_init__(self) -> None:
        if self.picture_px % 32:
            raise ConfigError(
                f"{self.name}: picture_px is {self.picture_px}, must be a multiple of 32"
            )
        if self.width % self.memory_width:
            raise ConfigError(
                f"{self.name}: width {self.width} must be a multiple of memory_width "
                f"{self.memory_width}, an object's pointer is cut into pieces of that width"
            )
        if self.stem and self.stem[-1] != self.embed:
            raise ConfigError(
                f"{self.name}: the stem ends with {self.stem[-1]}, embed is {self.embed}"
            )
        if self.picture_px // 4 % self.windows[0]:
            raise ConfigError(
                f"{self.name}: the first windows of {self.windows[0]} do not tile "
                f"{self.picture_px // 4} patches"
            )

    @property
    def grid(self) -> int:
        """Side of the embedding."""
        return self.picture_px // 16

    @property
    def pieces(self) -> int:
        """Memory tokens an object's pointer is cut into."""
        return self.width // self.memory_width


_TINY = Sam2Config(
    name="sam2.1-hiera-tiny",
    embed=96,
    heads=1,
    stages=(1, 2, 7, 2),
    global_blocks=(5, 7, 9),
    windows=(8, 4, 14, 7),
)
_SIZES = (
    _TINY,
    replace(_TINY, name="sam2.1-hiera-small", stages=(1, 2, 11, 2), global_blocks=(7, 10, 13)),
    replace(
        _TINY,
        name="sam2.1-hiera-base-plus",
        embed=112,
        heads=2,
        stages=(2, 3, 16, 3),
        global_blocks=(12, 16, 20),
        background_px=(14, 14),
    ),
    replace(
        _TINY,
        name="sam2.1-hiera-large",
        embed=144,
        heads=2,
        stages=(2, 6, 36, 4),
        global_blocks=(23, 33, 43),
        windows=(8, 4, 16, 8),
    ),
)
VARIANTS: dict[str, Sam2Config] = {
    config.name: config
    for size in _SIZES
    for config in (
        replace(size, name=size.name.replace("sam2.1", "sam2"), version_21=False),
        size,
    )
}
"""Meta's networks, by the names of their files."""


class Features(NamedTuple):
    """A picture's features. embedding: (B, width, g, g), g = S/16; high: (B, width/8, 4g, 4g) and
    (B, width/4, 2g, 2g), as the decoder takes them.
    """

    embedding: Tensor
    high: tuple[Tensor, Tensor]


class Decoded(NamedTuple):
    """An answer to prompts. masks: (B, 4, 4g, 4g) logits; ious: (B, 4) in 0 to 1; object_logits:
    (B, 1), above 0 where the object is there; pointers: (B, 4, width), each mask's object in
    brief, the learned "no object" where it is not there. Mask 0 is the one for a clear prompt.
    """

    masks: Tensor
    ious: Tensor
    object_logits: Tensor
    pointers: Tensor


class Sam2(nn.Module):
    """The whole network; every step takes a batch."""

    def __init__(self, config: Sam2Config) -> None:
        super().__init__()
        self.config = config
        width = config.width
        trunk = Hiera(
            picture_px=config.picture_px,
            embed=config.embed,
            heads=config.heads,
            stages=config.stages,
            global_blocks=config.global_blocks,
            windows=config.windows,
            background_px=config.background_px,
            q_pool_stages=config.q_pool_stages,
            stem=config.stem,
            pyramid=config.pyramid,
        )
        self.image_encoder = ImageEncoder(trunk, width)
        self.sam_prompt_encoder = PromptEncoder(
            width=width, picture_px=config.picture_px, maps=config.prompt_maps
        )
        self.sam_mask_decoder = MaskDecoder(
            width=width,
            heads=config.decoder_heads,
            feed_forward=config.decoder_feed_forward,
            iou_hidden=config.iou_hidden,
            version=2,
            refine=config.prompt_maps,
        )
        self.memory_attention = MemoryAttention(
            width=width,
            memory_width=config.memory_width,
            side=config.grid,
            layers=config.memory_layers,
            heads=config.memory_heads,
            feed_forward=config.feed_forward,
            dropout=config.dropout,
        )
        self.memory_encoder = MemoryEncoder(
            width=width,
            memory_width=config.memory_width,
            layers=config.fuser_layers,
            layer_scale=config.layer_scale,
        )
        self.mask_downsample = nn.Conv2d(1, 1, 4, stride=4)
        self.obj_ptr_proj = Mlp((width, width, width, width))
        self.maskmem_tpos_enc = _learned(config.memory_frames, 1, 1, config.memory_width)
        self.no_mem_embed = _learned(1, 1, width)
        self.no_mem_pos_enc = _learned(1, 1, width)
        self.no_obj_ptr = _learned(1, width)
        if config.version_21:
            self.no_obj_embed_spatial = _learned(1, config.memory_width)
            self.obj_ptr_tpos_proj = nn.Linear(width, config.memory_width)
        position = sine_position(width, config.grid)[None]
        memory_position = sine_position(config.memory_width, config.grid).flatten(1).T.contiguous()
        self.register_buffer("position", position, persistent=False)
        self.register_buffer("memory_position", memory_position, persistent=False)

    def encode(self, picture: Tensor) -> Features:
        """picture: (B, 3, S, S) float32, less the mean and divided by the deviation."""
        fine, middle, embedding = self.image_encoder(picture)
        decoder = self.sam_mask_decoder
        return Features(embedding, (decoder.conv_s0(fine), decoder.conv_s1(middle)))

    def without_memory(self, embedding: Tensor) -> Tensor:
        """What `decode` takes on a picture, or on the frame an object is first prompted."""
        return embedding + self.no_mem_embed.reshape(1, -1, 1, 1)

    def decode(
        self,
        embedding: Tensor,
        high: tuple[Tensor, Tensor],
        points: Tensor,
        labels: Tensor,
        mask_input: Tensor | None = None,
        *,
        has_mask: Tensor | None = None,
        token_bias: Tensor | None = None,
    ) -> Decoded:
        """embedding: (B, width, g, g) of `without_memory` or `attend_memory`. points: (B, P, 2)
        pixels of the network's picture, labels: (B, P), see `PromptEncoder.tokens`; the networks
        learned with one PADDING point behind all others, and with two where there is no other.
        mask_input: (B, 1, 4g, 4g) logits; has_mask: (B,) 1 where it counts, everywhere if None.
        token_bias: (B, P) added to the logits of points as keys; from ABSENT labels if None.
        """
        prompts = self.sam_prompt_encoder
        bias = absent_bias(labels, embedding.dtype) if token_bias is None else token_bias
        if self.config.prompt_maps:
            embedding, high = prompts.maps(embedding, high, points, labels)
        masks = self.sam_mask_decoder(
            embedding + prompts.dense(mask_input, has_mask),
            prompts.pe_layer.grid(self.config.grid),
            prompts.tokens(points, labels),
            bias,
            high,
        )
        there = (masks.object_logits > 0).to(embedding.dtype)[..., None]
        pointers = there * self.obj_ptr_proj(masks.tokens) + (1 - there) * self.no_obj_ptr
        return Decoded(masks.masks, masks.ious, masks.object_logits, pointers)

    def encode_memory(
        self,
        embedding: Tensor,
        mask_logits: Tensor,
        object_logits: Tensor,
        *,
        from_points: bool | Tensor,
    ) -> Tensor:
        """What is kept of a frame. embedding: (B, width, g, g) of `encode`; mask_logits:
        (B, 1, S, S); object_logits: (B, 1). from_points: the mask answers a prompt, so it is kept
        as 0 or 1 instead of as a probability; a bool, or (B,) of 0 and 1. Returns
        (B, memory_width, g, g).
        """
        mask = _from_points(mask_logits, from_points) * MASK_SCALE + MASK_SHIFT
        memory = cast(Tensor, self.memory_encoder(embedding, mask))
        if not self.config.version_21:
            return memory
        gone = (object_logits <= 0).to(memory.dtype)[..., None, None]
        return memory + gone * self.no_obj_embed_spatial[..., None, None]

    def attend_memory(
        self,
        embedding: Tensor,
        memory: Tensor,
        memory_position: Tensor,
        pointer_count: int,
        bias: Tensor | None = None,
    ) -> Tensor:
        """The frame in the light of what is remembered. embedding: (B, width, g, g) of `encode`;
        memory, memory_position: (B, N, memory_width), all frames' tokens, then `pointer_count`
        tokens of pointers; bias: (B, N), added to the logits. Returns (B, width, g, g).
        """
        x = (embedding + 0.1 * cast(Tensor, self.position)).flatten(2).transpose(1, 2)
        x = cast(Tensor, self.memory_attention(x, memory, memory_position, pointer_count, bias))
        return x.transpose(1, 2).reshape(embedding.shape)

    def frame_tokens(self, memory: Tensor) -> Tensor:
        """A frame's memory (B, memory_width, g, g) as tokens, (B, g*g, memory_width)."""
        return memory.flatten(2).transpose(1, 2)

    def frame_position(self, frames_ago: int) -> Tensor:
        """Position of a frame's tokens, (g*g, memory_width). frames_ago: 1 to memory_frames - 1, or
        0 for a prompted frame however old.
        """
        return cast(Tensor, self.memory_position) + self.maskmem_tpos_enc[frames_ago - 1, 0]

    def pointer_tokens(self, pointer: Tensor) -> Tensor:
        """An object's pointer (B, width) cut into tokens, (B, pieces, memory_width)."""
        return pointer.reshape(-1, self.config.pieces, self.config.memory_width)

    def pointer_position(self, frames_ago: Tensor) -> Tensor:
        """Position of pointers' tokens. frames_ago: (N,) float. Returns (N * pieces, memory_width);
        zeros in SAM 2, which does not tell old pointers from new.
        """
        config = self.config
        if not config.version_21:
            return frames_ago.new_zeros(len(frames_ago) * config.pieces, config.memory_width)
        code = sine_offset(frames_ago / (config.max_pointers - 1), config.width)
        return cast(Tensor, self.obj_ptr_tpos_proj(code)).repeat_interleave(config.pieces, dim=0)


def _learned(*shape: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(*shape), std=0.02))


def _from_points(logits: Tensor, from_points: bool | Tensor) -> Tensor:
    """Probability that a pixel belongs, hard where the mask answers a prompt."""
    if isinstance(from_points, Tensor):
        share = from_points.reshape(-1, 1, 1, 1).to(logits.dtype)
        return share * (logits > 0).to(logits.dtype) + (1 - share) * logits.sigmoid()
    return (logits > 0).to(logits.dtype) if from_points else logits.sigmoid()
