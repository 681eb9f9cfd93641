"""SAM and MobileSAM: a picture is looked at once, then any number of prompts get their masks.

    net = Sam(VARIANTS["sam-vit-b"]).eval()
    embedding = net.encode(picture)                          # (1, 256, 64, 64)
    masks, ious, *_ = net.decode(embedding, points, labels)

Names of parameters are those of Meta's files, so that these load strictly. Sources: Kirillov et
al. 2023 (SAM, arXiv 2304.02643); Zhang et al. 2023 (MobileSAM, arXiv 2306.14289); repositories
facebookresearch/segment-anything and ChaoningZhang/MobileSAM.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from edgeperc.offline.nets.mask_decoder import MaskDecoder, Masks
from edgeperc.offline.nets.prompt_encoder import PromptEncoder, absent_bias
from edgeperc.offline.nets.tinyvit import TinyViT, TinyVitConfig
from edgeperc.offline.nets.vit import ImageEncoderViT, VitConfig


@dataclass(frozen=True, kw_only=True)
class SamConfig:
    """An encoder, which sets the sizes of picture and embedding, and what its decoder adds."""

    name: str
    encoder: VitConfig | TinyVitConfig
    decoder_heads: int = 8
    decoder_feed_forward: int = 2048

    @property
    def picture_px(self) -> int:
        """Side of the square that the network sees."""
        return self.encoder.picture_px

    @property
    def width(self) -> int:
        """Channels of the embedding."""
        return self.encoder.width


VARIANTS = {
    each.name: each
    for each in (
        SamConfig(
            name="sam-vit-b",
            encoder=VitConfig(embed=768, depth=12, heads=12, global_blocks=(2, 5, 8, 11)),
        ),
        SamConfig(
            name="sam-vit-l",
            encoder=VitConfig(embed=1024, depth=24, heads=16, global_blocks=(5, 11, 17, 23)),
        ),
        SamConfig(
            name="sam-vit-h",
            encoder=VitConfig(embed=1280, depth=32, heads=16, global_blocks=(7, 15, 23, 31)),
        ),
        SamConfig(name="mobile-sam", encoder=TinyVitConfig()),
    )
}
"""The published networks, by the names of their model cards."""


class Sam(nn.Module):
    """Encoder, prompt encoder and mask decoder."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.config = config
        self.image_encoder: nn.Module = (
            ImageEncoderViT(config.encoder)
            if isinstance(config.encoder, VitConfig)
            else TinyViT(config.encoder)
        )
        self.prompt_encoder = PromptEncoder(width=config.width, picture_px=config.picture_px)
        self.mask_decoder = MaskDecoder(
            width=config.width,
            heads=config.decoder_heads,
            feed_forward=config.decoder_feed_forward,
            version=1,
        )

    def encode(self, picture: Tensor) -> Tensor:
        """picture: (B, 3, S, S) float32, its longer side S px, normalised, then zeros at the right
        and below. Returns (B, width, g, g), g = S / 16.
        """
        embedding: Tensor = self.image_encoder(picture)
        return embedding

    def decode(
        self,
        embedding: Tensor,
        points: Tensor,
        labels: Tensor,
        mask_input: Tensor | None = None,
        has_mask: Tensor | None = None,
    ) -> Masks:
        """points: (B, P, 2) px of the network's picture. labels: (B, P), see PromptEncoder.tokens;
        SAM wants a PADDING point after points without a box. mask_input: (B, 1, 4g, 4g) logits of
        an earlier answer; has_mask: (B,) 1 where it counts. Returns masks (B, 4, 4g, 4g) logits,
        the first for prompts that leave no doubt, and IoUs (B, 4).
        """
        prompts = self.prompt_encoder
        answer: Masks = self.mask_decoder(
            embedding + prompts.dense(mask_input, has_mask),
            prompts.pe_layer.grid(embedding.shape[-1]),
            prompts.tokens(points, labels),
            absent_bias(labels, embedding.dtype),
        )
        return answer
