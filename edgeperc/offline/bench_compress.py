"""Encoders of the published sizes, in float and in integers, for `edgeperc bench compress`.

python -m edgeperc.offline.bench_compress vitb FOLDER

Random weights, grids from the least to the largest value of one picture of noise: speed alone.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from edgeperc.offline.compress.adapters import Sample
from edgeperc.offline.compress.adapters.opening import subject_for
from edgeperc.offline.compress.artifact_promptable import table_of
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.export_qdq import prepared
from edgeperc.offline.compress.int8_graph import in_integers, observed, with_opset
from edgeperc.offline.compress.quantize import quantize
from edgeperc.offline.compress.simulate import Simulated
from edgeperc.offline.compress.sites import fits
from edgeperc.offline.export import one_thread
from edgeperc.offline.nets.sam import VARIANTS as SAM_VARIANTS
from edgeperc.offline.nets.sam import Sam
from edgeperc.offline.nets.sam2 import VARIANTS, Sam2
from edgeperc.offline.nets.vit import VitConfig
from edgeperc.offline.onnx_part import traced, write_part
from edgeperc.offline.prompt_parts import parts, written_out

SIDE_PX = 512
"""Of ViT-B and Hiera-T. MobileSAM's is 1024, its own."""
SMALL = 0.02
"""Standard deviation of what begins as zeros: places, and biases of attention."""


def network(name: str) -> Sam | Sam2:
    """A network with random weights, none of them zero."""
    torch.manual_seed(0)
    net: Sam | Sam2
    if name == "vitb":
        config = SAM_VARIANTS["sam-vit-b"]
        assert isinstance(config.encoder, VitConfig)
        net = Sam(replace(config, encoder=replace(config.encoder, picture_px=SIDE_PX)))
    elif name == "mobilesam":
        net = Sam(SAM_VARIANTS["mobile-sam"])
    else:
        net = Sam2(replace(VARIANTS["sam2.1-hiera-tiny"], picture_px=SIDE_PX))
    with torch.no_grad():
        for key, values in net.named_parameters():
            if any(part in key for part in ("rel_pos", "attention_biases", "pos_embed")):
                values.normal_(0, SMALL)
    return net.eval()


def build(name: str, folder: Path) -> None:
    """Write float.onnx, int8.onnx and facts.json."""
    folder.mkdir(parents=True, exist_ok=True)
    net = network(name)
    with one_thread(), torch.no_grad():
        with written_out(net):
            write_part(next(parts(net, table_of(net))), folder)
        (folder / "encoder.onnx").replace(folder / "float.onnx")
        sim = _quantized(net)
        with prepared(sim.net) as (copied, rows), written_out(copied):
            part = next(parts(copied, table_of(net)))  # type: ignore[arg-type]
            model, _ = traced(part, folder, opset=20)
            picture = {"picture": part.inputs["picture"].numpy()}
            model, counts = in_integers(model, rows, observed(model, [picture]))
        onnx.save(with_opset(model, 21), str(folder / "int8.onnx"))
    facts = {"picture_px": net.config.picture_px, **counts}
    (folder / "facts.json").write_text(json.dumps(facts))


class _Encoder:
    """What of a subject the quantize pass needs, where only the picture is looked at."""

    def run(self, net: nn.Module, sample: Sample) -> dict[str, Tensor]:
        """Answer the embedding."""
        network: Any = net
        found = network.encode(sample["picture"])
        return {"masks": found if isinstance(found, Tensor) else found.embedding}


def _quantized(net: Sam | Sam2) -> Simulated:
    subject, sim = subject_for(net), Simulated(net)
    samples = subject.noise(1)
    encoder: Any = _Encoder()
    ctx = Context(subject=encoder, sim=sim, samples=samples, held_out=samples)
    at = [
        site
        for name, site in sim.sites.items()
        if name.startswith("image_encoder") and not any(fits(name, p) for p in subject.keep_fp)
    ]
    quantize(  # as preset w8a8, but for limits that need no search
        ctx,
        at,
        weight="uniform8c-minmax",
        act="uniform8-minmax",
        conv_out="uniform8c-minmax",
        matmul="centred8-minmax",
        softmax="uniform8-minmax",
    )
    sim.fold()
    return sim


if __name__ == "__main__":
    build(sys.argv[1], Path(sys.argv[2]))
