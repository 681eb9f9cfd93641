"""SAM 2, SAM 2.1 and our own small networks of the same parts, asked about single pictures.

The memory is not looked at: a picture alone never reaches it, so it stays in full precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from edgeperc.offline.compress.adapters import Sample
from edgeperc.offline.compress.adapters.prompts import noisy, prompted, scored
from edgeperc.offline.examples import Example
from edgeperc.offline.nets.sam2 import Sam2

KEEP_FP = (
    "image_encoder.trunk.patch_embed",
    "image_encoder.trunk.pyramid.start",
    # Sixteen channels, depthwise; one of them reaches 100 where most stay below 3.
    "image_encoder.trunk.pyramid.dark4.0.0",
    "sam_prompt_encoder",
    "sam_mask_decoder.output_upscaling",
    "sam_mask_decoder.output_hypernetworks_mlps",
    "sam_mask_decoder.refine",
    "sam_mask_decoder.iou_prediction_head",
    "sam_mask_decoder.pred_obj_score_head",
    "mask_downsample",
    "obj_ptr_proj",
    "obj_ptr_tpos_proj",
    "memory_attention",
    "memory_encoder",
)


class Sam2Subject:
    """A promptable network of SAM 2's parts."""

    keep_fp: tuple[str, ...] = KEEP_FP

    def __init__(self, net: Sam2) -> None:
        self.net: nn.Module = net.eval()
        self.name = net.config.name
        self.picture_px = (net.config.picture_px, net.config.picture_px)

    def samples(self, source: Sequence[Example], *, seed: int = 0) -> list[Sample]:
        """A click and a box for each of up to four objects of each picture."""
        return prompted(source, self.picture_px[0], represent="stretch", seed=seed)

    def noise(self, count: int, *, seed: int = 0) -> list[Sample]:
        """Noise with clicks on a grid."""
        return noisy(count, self.picture_px[0], seed)

    def run(self, net: nn.Module, sample: Sample) -> dict[str, Tensor]:
        """Answer masks (B, 4, S/4, S/4) logits, ious (B, 4), object_logits (B, 1) and
        pointers (B, 4, C).
        """
        network: Any = net
        count = len(sample["points"])
        features = network.encode(sample["picture"])
        fine, middle = (each.expand(count, -1, -1, -1) for each in features.high)
        embedding = network.without_memory(features.embedding).expand(count, -1, -1, -1)
        decoded = network.decode(embedding, (fine, middle), sample["points"], sample["labels"])
        return {
            "masks": decoded.masks,
            "ious": decoded.ious,
            "object_logits": decoded.object_logits,
            "pointers": decoded.pointers,
        }

    def score(self, net: nn.Module, held_out: Sequence[Sample]) -> dict[str, float]:
        """See `score_masks`."""
        return scored(self, net, held_out)
