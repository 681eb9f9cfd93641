"""From a checkpoint to a model folder: fold, prune, export to ONNX, compare, write.

    import_checkpoint(card, Path("sltnet_ddd17.pth"), Path("models/sltnet-ddd17"))

writes `<name>.onnx`, the spiking engine's file, `report.md`, `report.json` and `model.toml`.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import onnx
import torch
from torch import nn

from edgeperc.config import FileEntry, ModelCard
from edgeperc.errors import ModelError
from edgeperc.offline.checkpoint import Weights, read_checkpoint
from edgeperc.offline.compare import compare, doubts, probes
from edgeperc.offline.fold import fold
from edgeperc.offline.nets.sltnet import SLTNet
from edgeperc.offline.nets.sltnet_folded import FoldedSLTNet, SpikingConv, SpikingConvTranspose
from edgeperc.offline.nets.sltnet_keys import load_sltnet
from edgeperc.offline.prune import never_fired, prune
from edgeperc.offline.report import ImportReport
from edgeperc.offline.spiking_export import export_spiking
from edgeperc.represent import RECIPES

OPSET = 17

_STEEPNESS = 2.0**64
_SMALLEST_WEIGHT = 2.0**-41
_FOLDED = (
    "batch norms into the convolutions before them, or into one scale and shift per channel",
    "firing thresholds into the biases: a neuron fires above zero",
    "each RepConv (1x1, BN, depthwise 3x3, 1x1, BN, BN) into one 3x3 convolution",
    "q, k and v into one convolution",
    "the 1x1 of each LMSB into the 3x1 after it",
    "the time axis, which has one step, and the early head, which only training uses",
)


def import_checkpoint(card: ModelCard, checkpoint: Path, out_dir: Path) -> ImportReport:
    """Turn published weights into a model folder. The report warns if they are not the card's.

    Raises ModelError if the file is no SLTNet checkpoint, does not fit the card, or the exported
    network's labels differ from the original's by more than rounding explains.
    """
    weights = read_checkpoint(checkpoint)
    expected = card.checkpoint.sha256 if card.checkpoint else ""
    notes = []
    if expected and weights.sha256 != expected:
        notes.append(f"{checkpoint.name} has sha256 {weights.sha256}, the card names {expected}")
    return _export(card, weights, out_dir, notes)


def export_trained(card: ModelCard, checkpoint: Path, out_dir: Path) -> ImportReport:
    """Turn what `edgeperc train` wrote into a model folder. Raises ModelError as above."""
    return _export(card, read_checkpoint(checkpoint), out_dir, [])


def export_onnx(net: FoldedSLTNet, path: Path, height: int, width: int) -> None:
    """Write one static graph: `voxel` (1, bins, h, w) float32 -> `logits` (1, classes, h, w)."""
    stem: Any = net.stem
    example = torch.zeros(1, stem[0].in_channels, height, width)
    with warnings.catch_warnings(), torch.no_grad():
        # It is deprecated, and warns of sizes that become constants, which is what we want. The
        # newer exporter needs one more package.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            steepen(net),
            (example,),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["voxel"],
            output_names=["logits"],
        )


@torch.no_grad()
def steepen(net: FoldedSLTNet) -> FoldedSLTNet:
    """A copy whose spikes are clipped potentials, for runtimes that fuse a clip into a convolution.

    Weights and biases of spiking layers are multiplied by 2**64, so that clip(u, 0, 1) is the
    spike. Why that is exact where inputs are spikes: a float32 of 2**-41 or more is a multiple of
    2**-64 (smaller ones, far below rounding, are set to zero); so is any float32 sum of such
    numbers; 2**64 times it is an integer, and an integer clipped to 0..1 is 0 or 1. Where inputs
    are real numbers, a spike is a fraction only if its potential lies within 2**-64 of zero.

    Not for float16, which ends at 65504.
    """
    net = copy.deepcopy(net)
    for layer in net.modules():
        if isinstance(layer, SpikingConv | SpikingConvTranspose):
            layer.steep = True
            for values in layer.parameters():
                values[values.abs() < _SMALLEST_WEIGHT] = 0
                values.mul_(_STEEPNESS)
    return net


@torch.no_grad()
def _export(card: ModelCard, weights: Weights, out_dir: Path, notes: list[str]) -> ImportReport:
    net = load_sltnet(weights)
    bins, height, width = _input_shape(card, net)
    folded = fold(net)
    pruned, removed = prune(folded)
    with one_thread(), new_folder(out_dir) as folder:
        path = folder / f"{card.name}.onnx"
        export_onnx(pruned, path, height, width)
        files = [file_entry(path, "network")]
        try:
            files += export_spiking(pruned, folder, card.name, height, width)
        except ModelError as error:
            notes.append(f"no file for the spiking engine: {error}")
        grids = dict(probes(bins, height, width))
        checks = tuple(compare(net, folded, pruned, path, grids))
        notes += doubts(checks)
        report = ImportReport(
            name=card.name,
            checkpoint_sha256=weights.sha256,
            checkpoint_bytes=weights.bytes,
            recorded=weights.record,
            folded=_FOLDED,
            removed=tuple(removed),
            silent=never_fired(pruned, grids.values()),
            parameters=(_size(net), _size(folded), _size(pruned)),
            checks=checks,
            nodes=len(onnx.load(path).graph.node),
            files=tuple(files),
            warnings=tuple(notes),
        )
        (folder / "report.md").write_text(report.markdown(), encoding="utf-8")
        encoded = msgspec.json.format(msgspec.json.encode(report))
        (folder / "report.json").write_bytes(encoded + b"\n")
        complete = msgspec.structs.replace(card, files=report.files)
        (folder / "model.toml").write_text(to_toml(complete), encoding="utf-8")
    return report


def _input_shape(card: ModelCard, net: SLTNet) -> tuple[int, int, int]:
    """(bins, height, width) that the card's recipe makes. Raises ModelError if `net` differs."""
    if card.input.represent not in RECIPES:
        raise ModelError(f"{card.name}: unknown representation '{card.input.represent}'")
    recipe = RECIPES[card.input.represent]
    shape = recipe(card.input.width_px, card.input.height_px, card.input).shape
    stem: Any = net.stem
    bins, classes = stem[0].conv.in_channels, net.classifier.out_channels
    if (bins, classes) != (shape[0], len(card.classes)):
        raise ModelError(
            f"checkpoint has {bins} bins and {classes} classes, "
            f"the card '{card.name}' says {shape[0]} and {len(card.classes)}"
        )
    return shape


def file_entry(path: Path, role: str) -> FileEntry:
    """The [[files]] table of a file beside its card."""
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return FileEntry(path=path.name, role=role, sha256=digest, bytes=len(content))


def _size(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@contextmanager
def one_thread() -> Iterator[None]:
    """More would spin, waiting for each other, in layers as small as these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# Writing.


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that becomes it at the end, or nothing if that fails.

    Into a folder that exists the files are moved one by one, the card last: until then the old
    card names what is there, by sha256. Raises ModelError if the folder cannot be written.
    """
    if target.exists() and not target.is_dir():
        raise ModelError(f"{target}: cannot be written: it is a file")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise ModelError(f"{target}: cannot be written: {error.strerror}") from None
    try:
        yield folder
        folder.chmod(0o755)
        if target.is_dir():
            for file in sorted(folder.iterdir(), key=lambda file: file.name == "model.toml"):
                file.replace(target / file.name)
        else:
            folder.rename(target)
    except OSError as error:
        raise ModelError(f"{target}: cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def to_toml(card: ModelCard) -> str:
    """A model card as TOML, without the keys that are at their defaults."""
    lines, tables = [], []
    for key, value in _set_keys(card):
        if isinstance(value, msgspec.Struct):
            tables += ["", f"[{key}]", *_pairs(value)]
        elif isinstance(value, tuple) and value and isinstance(value[0], msgspec.Struct):
            for row in value:
                tables += ["", f"[[{key}]]", *_pairs(row)]
        else:
            lines.append(f"{key} = {_value(value)}")
    return "\n".join([*lines, *tables, ""])


def _set_keys(struct: msgspec.Struct) -> Iterator[tuple[str, Any]]:
    for field in msgspec.structs.fields(struct):
        value = getattr(struct, field.name)
        if value != field.default:
            yield field.encode_name, value


def _pairs(struct: msgspec.Struct) -> list[str]:
    return [f"{key} = {_value(value)}" for key, value in _set_keys(struct)]


def _value(value: Any) -> str:
    # A JSON string, number or array of strings is TOML, too.
    text = json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
    return text.replace("\x7f", "\\u007f")  # the one control character that JSON lets through
