"""Networks of the published sizes with random weights, for `edgeperc bench sam`.

    python -m edgeperc.offline.bench_networks build encoder_bplus FOLDER
    python -m edgeperc.offline.bench_networks torch vitb 1

The first writes a model folder of one part of a network, and how many operations it takes; the
second runs an encoder in eager torch once for each line it reads.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from edgeperc.bench.sam_worker import KEEP_SHARE, card_of, serve, windows_at_share
from edgeperc.offline.export import one_thread, to_toml
from edgeperc.offline.export_efficient import (
    retrieval_part,
    routing_parts,
    salient_decoder,
)
from edgeperc.offline.nets.efficient import bypass_of, route_of
from edgeperc.offline.nets.sam import VARIANTS as SAM_VARIANTS
from edgeperc.offline.nets.sam import Sam
from edgeperc.offline.nets.sam2 import VARIANTS, Sam2
from edgeperc.offline.onnx_part import Part, write_part
from edgeperc.offline.prompt_parts import parts, written_out

SAM2_NAMES = {
    "hiera_t": "sam2.1-hiera-tiny",
    "bplus": "sam2.1-hiera-base-plus",
    "l": "sam2.1-hiera-large",
}
SAM_NAMES = {"vitb": "sam-vit-b", "mobilesam": "mobile-sam"}


def network(name: str) -> Sam | Sam2:
    """A network with random weights. `memory` has a trunk that is next to nothing."""
    torch.manual_seed(0)
    if name in SAM_NAMES:
        return Sam(SAM_VARIANTS[SAM_NAMES[name]]).eval()
    if name == "memory":
        small = replace(
            VARIANTS["sam2.1-hiera-tiny"], embed=8, stages=(1, 1, 2, 1), global_blocks=()
        )
        return Sam2(small).eval()
    return Sam2(VARIANTS[SAM2_NAMES[name]]).eval()


def build(name: str, folder: Path) -> None:
    """Write `<part>_<network>` or `memory`: its files, a card, and operations.json in GFLOP."""
    folder.mkdir(parents=True, exist_ok=True)
    kind, _, which = name.partition("_")
    net = network(which or kind)
    operations, files = {}, []
    with one_thread(), torch.no_grad(), written_out(net):
        for part in _parts(kind, net):
            operations[part.role] = gflop(part)
            files.append(write_part(part, folder)[0])
    card = card_of(net.config.picture_px, files, video=isinstance(net, Sam2))
    (folder / "model.toml").write_text(to_toml(card), encoding="utf-8")
    (folder / "operations.json").write_text(json.dumps(operations))


def gflop(part: Part) -> float:
    """Operations of products and convolutions, a multiplication and an addition as two."""
    net = copy.deepcopy(part.net).to("meta")
    inputs = [value.to("meta") for value in part.inputs.values()]
    with FlopCounterMode(display=False) as counter:
        net(*inputs)
    return float(counter.get_total_flops() * 1e-9)


def _parts(kind: str, net: Sam | Sam2) -> Iterator[Part]:
    table = card_of(net.config.picture_px, [], video=isinstance(net, Sam2)).prompt
    assert table is not None
    side = table.picture_px
    picture = torch.randn(1, 3, side, side)
    if kind == "encoder":
        yield next(parts(net, table))
        return
    net = cast(Sam2, net)
    if kind == "routed":
        bypass = bypass_of(net.config).eval()
        for part in routing_parts(net, bypass, picture):
            yield _at_share(part, net) if part.role == "encoder_middle" else part
        return
    for part in parts(net, table):
        if part.role == "decoder":
            yield replace(salient_decoder(net, table), role="decoder_salient")
        if part.role != "encoder":
            yield part
    embedding = torch.randn(1, net.config.width, net.config.grid, net.config.grid)
    yield retrieval_part(net, table, embedding, keep_share=KEEP_SHARE)


def _at_share(part: Part, net: Sam2) -> Part:
    """The middle with as many windows as the bench runs it with, to count its operations."""
    route = route_of(net.config)
    count = windows_at_share(route.windows)
    size, width = route.window, 4 * net.config.embed
    inputs = {"tokens": torch.randn(count, size, size, width), "valid": route.valid()[:count]}
    return replace(part, inputs=inputs)


class _Encode(nn.Module):
    def __init__(self, net: Sam | Sam2) -> None:
        super().__init__()
        self.net = net

    def forward(self, picture: Tensor) -> object:
        return self.net.encode(picture)


def eager(name: str, threads: int) -> None:
    """Run an encoder for each line of standard input."""
    torch.set_num_threads(threads)
    net = _Encode(network(name))
    side = net.net.config.picture_px
    picture = torch.randn(1, 3, side, side)

    def call() -> None:
        with torch.inference_mode():
            net(picture)

    serve(call)


if __name__ == "__main__":
    if sys.argv[1] == "build":
        build(sys.argv[2], Path(sys.argv[3]))
    else:
        eager(sys.argv[2], int(sys.argv[3]))
