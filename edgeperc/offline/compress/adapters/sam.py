"""SAM and MobileSAM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from edgeperc.offline.compress.adapters import Sample
from edgeperc.offline.compress.adapters.prompts import noisy, prompted, scored
from edgeperc.offline.examples import Example
from edgeperc.offline.nets.sam import Sam

KEEP_FP = (
    "image_encoder.patch_embed",
    "prompt_encoder",
    "mask_decoder.output_upscaling",
    "mask_decoder.output_hypernetworks_mlps",
    "mask_decoder.iou_prediction_head",
)


class SamSubject:
    """A promptable network for single pictures."""

    keep_fp: tuple[str, ...] = KEEP_FP

    def __init__(self, net: Sam) -> None:
        self.net: nn.Module = net.eval()
        self.name = net.config.name
        self.picture_px = (net.config.picture_px, net.config.picture_px)

    def samples(self, source: Sequence[Example], *, seed: int = 0) -> list[Sample]:
        """A click and a box for each of up to four objects of each picture."""
        return prompted(source, self.picture_px[0], represent="longest", seed=seed)

    def noise(self, count: int, *, seed: int = 0) -> list[Sample]:
        """Noise with clicks on a grid."""
        return noisy(count, self.picture_px[0], seed)

    def run(self, net: nn.Module, sample: Sample) -> dict[str, Tensor]:
        """Answer masks (B, 4, S/4, S/4) logits and ious (B, 4)."""
        network: Any = net
        embedding = network.encode(sample["picture"]).expand(len(sample["points"]), -1, -1, -1)
        decoded = network.decode(embedding, sample["points"], sample["labels"])
        return {"masks": decoded.masks, "ious": decoded.ious}

    def score(self, net: nn.Module, held_out: Sequence[Sample]) -> dict[str, float]:
        """See `score_masks`."""
        return scored(self, net, held_out)
