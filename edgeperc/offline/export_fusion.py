"""A trained MambaSeg to a model folder: fold, export, compare, write.

    export_trained(card, Path("weights.pt"), Path("models/mambaseg-nano"))

One ONNX file, in which each scan is a node of our domain with a function of plain operators behind
it: it loads in any runtime, and ours cuts it at these nodes.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import onnx
import torch

from edgeperc.config import ModelCard
from edgeperc.errors import ModelError
from edgeperc.offline.checkpoint import read_checkpoint
from edgeperc.offline.cross_scan_onnx import with_portable_scans
from edgeperc.offline.export import file_entry, new_folder, one_thread, to_toml
from edgeperc.offline.nets.mambaseg import MambaSeg, folded
from edgeperc.offline.nets.mambaseg_keys import load_mambaseg
from edgeperc.offline.scan_onnx import expand_scans
from edgeperc.represent import RECIPES
from edgeperc.scan.graph import CutGraph, WholeGraph

OPSET = 17
INPUTS = ("frame", "events")


@dataclass(frozen=True)
class Agreement:
    """Largest difference of the logits from torch's, as a share of their largest, and labels.

    cut, whole: the two ways to run the file. same_labels: share of pixels on which all three agree.
    """

    cut: float
    whole: float
    same_labels: float


@dataclass(frozen=True)
class FusionReport:
    """What an export did. parameters: as trained, and in the file."""

    name: str
    parameters: tuple[int, int]
    nodes: int
    bytes: int
    agreement: Agreement

    def summary(self) -> str:
        """A few lines for the terminal."""
        before, after = self.parameters
        same = self.agreement
        return (
            f"{self.name}: {before:,} parameters, {after:,} after folding the head, "
            f"{self.nodes} nodes, {self.bytes / 1e6:.1f} MB\n"
            f"logits differ from torch's by {same.cut:.1e} (cut at the scans) and "
            f"{same.whole:.1e} (whole file) of the largest; {same.same_labels:.2%} of labels equal"
        )


def export_trained(card: ModelCard, checkpoint: Path, out_dir: Path) -> FusionReport:
    """Turn what `edgeperc train` wrote into a model folder. Raises ModelError as below."""
    return import_checkpoint(card, checkpoint, out_dir)


def import_checkpoint(card: ModelCard, checkpoint: Path, out_dir: Path) -> FusionReport:
    """Turn weights, ours or of the published layout, into a model folder.

    Raises ModelError if they do not fit the card, or the file does not compute what they do.
    """
    height, width = input_size(card)
    net = load_mambaseg(read_checkpoint(checkpoint), input_px=(height, width))
    expected = len(card.classes), card.input.bins, frame_channels(card)
    given = net.config.classes, net.config.bins, net.config.frame_channels
    if given != expected:
        raise ModelError(
            f"the checkpoint has {given[0]} classes, {given[1]} bins and {given[2]} channels of "
            f"the frame; the card '{card.name}' says {expected[0]}, {expected[1]} and {expected[2]}"
        )
    with one_thread(), new_folder(out_dir) as folder:
        path = folder / f"{card.name}.onnx"
        export_onnx(net, path, height, width)
        agreement = agree(net, path, height, width)
        if agreement.same_labels < 0.99:
            raise ModelError(
                f"{card.name}: the exported file labels {agreement.same_labels:.1%} of the pixels "
                "as torch does",
                hint="this is a fault of the export, not of the weights",
            )
        model = onnx.load(path)
        report = FusionReport(
            name=card.name,
            parameters=(_size(net), _size(folded(net))),
            nodes=len(model.graph.node),
            bytes=path.stat().st_size,
            agreement=agreement,
        )
        complete = msgspec.structs.replace(card, files=(file_entry(path, "network"),))
        (folder / "model.toml").write_text(to_toml(complete), encoding="utf-8")
    return report


def export_onnx(net: MambaSeg, path: Path, height: int, width: int) -> None:
    """Write one static graph: `frame` (1, C, h, w) and `events` (1, bins, h, w) float32 to
    `logits` (1, classes, h, w).
    """
    config = net.config
    example = (
        torch.zeros(1, config.frame_channels, height, width),
        torch.zeros(1, config.bins, height, width),
    )
    with warnings.catch_warnings(), torch.no_grad():
        # It is deprecated, and warns of sizes that become constants, which is what we want. The
        # newer exporter needs one more package.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            folded(net),
            example,
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=list(INPUTS),
            output_names=["logits"],
            custom_opsets={"edgeperc": 1},
        )
    model = with_portable_scans(onnx.load(path))
    onnx.save(with_shapes(model), path)


def with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Note the shape of each tensor, which only the plain form of the scans reveals."""
    plain = onnx.shape_inference.infer_shapes(onnx.inliner.inline_local_functions(model))
    made = {name for node in model.graph.node for name in node.output}
    known = [value for value in plain.graph.value_info if value.name in made]
    del model.graph.value_info[:]
    model.graph.value_info.extend(known)
    return model


def save_plain(path: Path, target: Path) -> None:
    """Write the same network without functions, for parsers that know none."""
    model = expand_scans(onnx.inliner.inline_local_functions(onnx.load(path)))
    onnx.save(model, target)


@torch.no_grad()
def agree(net: MambaSeg, path: Path, height: int, width: int, *, seed: int = 0) -> Agreement:
    """Run noise through torch and both ways to run the file."""
    rng = np.random.default_rng(seed)
    shapes = [(1, n, height, width) for n in (net.config.frame_channels, net.config.bins)]
    inputs = [rng.standard_normal(shape, np.float32) for shape in shapes]
    expected = net.eval()(*map(torch.from_numpy, inputs)).numpy()
    found = []
    for way in (CutGraph, WholeGraph):
        graph = way(path, threads=1)
        found.append(graph(*inputs))
        graph.close()
    largest = float(np.abs(expected).max())
    errors = [float(np.abs(each - expected).max()) / largest for each in found]
    labels = [each.argmax(1) for each in (expected, *found)]
    same = np.mean((labels[0] == labels[1]) & (labels[0] == labels[2]))
    return Agreement(errors[0], errors[1], float(same))


def input_size(card: ModelCard) -> tuple[int, int]:
    """Height and width of the network's inputs. Raises ModelError for an unknown recipe."""
    if card.input.represent not in RECIPES:
        raise ModelError(f"{card.name}: unknown representation '{card.input.represent}'")
    recipe = RECIPES[card.input.represent]
    return recipe(card.input.width_px, card.input.height_px, card.input).shape[1:]


def frame_channels(card: ModelCard) -> int:
    """Channels of the frame. Raises ModelError if the card has none."""
    if card.frames is None:
        raise ModelError(f"{card.name}: the card has no [frames], which a fusion network needs")
    return 1 if card.frames.channels == "grey" else 3


def _size(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())
