"""What `edgeperc bench` compares with: the plain network in eager torch, and its work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeperc.config import FileEntry, ModelCard
from edgeperc.offline.export import export_onnx
from edgeperc.offline.fold import fold
from edgeperc.offline.nets.sltnet import BNLIF, LMSB, ConvBNLIF, SLTNet
from edgeperc.offline.prune import prune
from edgeperc.offline.spiking_export import export_spiking
from edgeperc.offline.train import settle_statistics
from edgeperc.places import ModelFolder

Grid = NDArray[np.float32]


def eager(classes: int, bins: int, threads: int) -> Callable[[Grid], None]:
    """The unfolded module, with random weights: in eager mode they do not matter to its speed."""
    torch.set_num_threads(threads)
    net = SLTNet(classes, bins=bins).eval()

    @torch.inference_mode()
    def run(grid: Grid) -> None:
        net(torch.from_numpy(grid)[None]).argmax(1)

    return run


def products(classes: int, shape: tuple[int, int, int]) -> int:
    """Multiplications of the unfolded network's convolutions for one (bins, h, w) input."""
    counts: list[int] = []

    def count(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d)
        # A weight meets every pixel of the output; transposed, every pixel of the input.
        met = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        counts.append(layer.weight.numel() * met[0, 0].numel())

    net = SLTNet(classes, bins=shape[0]).eval()
    for layer in net.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d):
            layer.register_forward_hook(count)
    with torch.inference_mode():
        net(torch.zeros(1, *shape))
    return sum(counts)


def random_model(card: ModelCard, folder: Path, grids: Sequence[Grid]) -> ModelFolder:
    """A stand-in for the card's network, as a folder: random weights, silent LMSBs.

    Its batch norms have seen these inputs. Like the published weights' it has LMSBs that can never
    fire, which the export removes.
    """
    torch.manual_seed(0)
    torch.set_num_threads(1)
    folder.mkdir(parents=True)
    bins, height, width = grids[0].shape
    net = SLTNet(len(card.classes), bins=bins)
    pairs = zip(grids[::2], grids[1::2], strict=False)  # a batch norm needs more than one picture
    settle_statistics(net, ([torch.from_numpy(np.stack(pair))] for pair in pairs))
    for block in net.modules():
        if isinstance(block, LMSB):
            layers: tuple[Any, ...] = (*block.reduce, *block.expand)
            for bn in (layer.bn for layer in layers if isinstance(layer, BNLIF | ConvBNLIF)):
                nn.init.zeros_(bn.weight)
                nn.init.zeros_(bn.bias)
    folded, _ = prune(fold(net))
    onnx = FileEntry(path=f"{card.name}.onnx")
    export_onnx(folded, folder / onnx.path, height, width)
    files = (onnx, *export_spiking(folded, folder, card.name, height, width))
    return ModelFolder(msgspec.structs.replace(card, files=files), folder)
