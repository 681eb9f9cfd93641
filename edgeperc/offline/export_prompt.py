"""From a promptable network in torch to a model folder.

    report = export_network(card, net, Path("models/promptable"))
    report = export_trained(card, Path("out/promptable/weights.pt"), Path("models/promptable"))
    report = import_checkpoint(card, Path("sam2.1_hiera_tiny.pt"), Path("models/sam2.1-hiera-tiny"))

writes encoder, decoder and, for video, memory encoder and memory attention as ONNX files of fixed
shapes, `constants.npz`, `golden.npz` and `model.toml`. A file is refused where an engine builder
would stumble over it, or where it answers otherwise than the network.
"""

from __future__ import annotations

import pickle
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor, nn

from edgeperc.config import FileEntry, ModelCard, PromptTable
from edgeperc.errors import ConfigError, ModelError
from edgeperc.infer import Session
from edgeperc.offline.checkpoint import read_checkpoint
from edgeperc.offline.export import OPSET, file_entry, new_folder, one_thread, to_toml
from edgeperc.offline.golden import golden
from edgeperc.offline.nets import taps
from edgeperc.offline.nets.memory import Rotation
from edgeperc.offline.nets.sam import Sam
from edgeperc.offline.nets.sam2 import Sam2, Sam2Config
from edgeperc.offline.nets.sam_variants import load_published
from edgeperc.offline.nets.taps import Attention
from edgeperc.offline.onnx_tidy import tidy, unfit
from edgeperc.offline.storage import Storage, stored
from edgeperc.picture import LONGEST, STRETCH
from edgeperc.places import ModelFolder
from edgeperc.prompting.golden import agreement
from edgeperc.prompting.memory import UNUSED
from edgeperc.prompting.networks import Sizes

TOLERANCE: dict[Storage, float] = {"single": 1e-3, "half": 5e-2, "byte": 0.2}
"""Largest difference of an output between file and network, in standard deviations of the output:
of rounding, and of weights that are kept in fewer bytes."""

AGREEMENT: dict[Storage, float] = {"single": 0.995, "half": 0.95, "byte": 0.9}
"""Share of the pixels of a golden mask that must be the same, likewise."""

_MOST_BYTES = 1_900_000_000
"""A file of more cannot be written in one piece."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file to be. net: takes `inputs`, which are examples, in order. outputs: names. open_axes:
    of inputs whose length the file leaves open.
    """

    role: str
    net: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    open_axes: Mapping[str, dict[int, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptReport:
    """What was written. differences: by role, how far an output of the file is from the network's
    at most, in standard deviations of that output. agreement: share of the pixels of the worst
    golden mask on which the files and the network agree.
    """

    parameters: int
    files: tuple[FileEntry, ...]
    differences: Mapping[str, float]
    agreement: float
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """A few lines for the terminal."""
        lines = [f"{self.parameters:,} parameters"]
        for entry in self.files:
            off = self.differences.get(entry.role)
            text = "" if off is None else f", off by {off:.2g} standard deviations at most"
            lines.append(f"{entry.path}: {entry.bytes:,} bytes{text}")
        lines.append(f"golden masks: {self.agreement:.2%} of the pixels agree")
        lines += [f"warning: {note}" for note in self.notes]
        return "\n".join(lines)


def export_trained(card: ModelCard, checkpoint: Path, out_dir: Path) -> PromptReport:
    """Turn what `edgeperc train` wrote into a model folder, its weights kept in a byte each.

    Raises ModelError if the file holds no such network, it does not fit the card, a file answers
    otherwise than the network, or the folder cannot be written.
    """
    return export_network(card, load_net(checkpoint), out_dir, storage="byte")


def import_checkpoint(
    card: ModelCard,
    checkpoint: Path,
    out_dir: Path,
    *,
    on_step: Callable[[str], None] = lambda what: None,
) -> PromptReport:
    """Turn published weights into a model folder. The report warns if they are not the card's.

    Weights of more than 2 GB are kept in half precision. on_step: is told what begins, as large
    networks take minutes. Raises ModelError if they are of another network than the card, else as
    `export_trained`.
    """
    on_step(f"reading {checkpoint.name}")
    net, storage, notes = published_net(card, checkpoint)
    report = export_network(card, net, out_dir, storage=storage, on_step=on_step)
    return replace(report, notes=notes)


def published_net(card: ModelCard, checkpoint: Path) -> tuple[Sam | Sam2, Storage, tuple[str, ...]]:
    """The network of published weights, how its files are kept, and a warning if they are not the
    card's. Raises ModelError.
    """
    weights, wanted = read_checkpoint(checkpoint), card.checkpoint
    net = load_published(weights, wanted.architecture if wanted else card.name)
    large = 4 * sum(parameter.numel() for parameter in net.parameters()) > _MOST_BYTES
    notes: tuple[str, ...] = ()
    if wanted and wanted.sha256 and weights.sha256 != wanted.sha256:
        notes = (f"{checkpoint.name} has sha256 {weights.sha256}, the card names {wanted.sha256}",)
    return net, "half" if large else "single", notes


def load_net(checkpoint: Path) -> Sam2:
    """The network that `edgeperc train` wrote, ready to answer. Raises ModelError."""
    try:
        held = torch.load(checkpoint, weights_only=True, map_location="cpu")
        config, state = held["config"], held["net"]
    except OSError as error:
        raise ModelError(f"{checkpoint}: {error.strerror}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ModelError(f"{checkpoint}: not what `edgeperc train` writes: {first_line}") from error
    try:
        net = Sam2(Sam2Config(**config))
        net.load_state_dict(state, strict=True)
    except (RuntimeError, ValueError, TypeError, ConfigError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ModelError(f"{checkpoint}: its weights do not fit its sizes: {first_line}") from error
    return net.eval()


def export_network(
    card: ModelCard,
    net: Sam | Sam2,
    out_dir: Path,
    *,
    storage: Storage = "single",
    open_memory: bool = False,
    on_step: Callable[[str], None] = lambda what: None,
) -> PromptReport:
    """Write the model folder of a network. storage: of the weights; computing is
    not. open_memory: the memory attention takes any number of frames, not always all of them.
    on_step: is told what begins.

    Raises ModelError as `export_trained`.
    """
    table = _checked_table(card, net)
    net.eval()
    with one_thread(), torch.no_grad(), written_out(net), new_folder(out_dir) as folder:
        files, differences = [], {}
        for part in parts(net, table, open_memory=open_memory):
            on_step(f"writing and comparing {part.role}.onnx")
            entry, off = write_part(part, folder, storage=storage)
            files.append(entry)
            differences[part.role] = off
        on_step("answering golden prompts by network and files")
        for role, arrays in (("constants", constants(net, table)), ("golden", golden(card, net))):
            if arrays:
                np.savez_compressed(folder / f"{role}.npz", **cast(Any, arrays))
                files.append(file_entry(folder / f"{role}.npz", role))
        complete = msgspec.structs.replace(card, files=tuple(files))
        agreed = agreement(ModelFolder(complete, folder))
        if min(agreed) < AGREEMENT[storage]:
            raise ModelError(
                f"the files answer otherwise than the network: {1 - min(agreed):.1%} of the pixels "
                f"of a golden mask differ"
            )
        (folder / "model.toml").write_text(to_toml(complete), encoding="utf-8")
    return PromptReport(
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        files=tuple(files),
        differences=differences,
        agreement=min(agreed),
    )


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


def write_part(part: Part, folder: Path, *, storage: Storage = "single") -> tuple[FileEntry, float]:
    """Write one file and hold it to its network; its entry, and how far an output is off at most.

    Raises ModelError if it has what engine builders stumble over, or is off by more than rounding.
    """
    path = folder / f"{part.role}.onnx"
    model, answers = traced(part, folder)
    onnx.save(stored(model, storage), str(path))
    del model  # of the largest network 2.5 GB, which the comparison wants for itself
    off = _difference(part, answers, path)
    if not off <= TOLERANCE[storage]:
        raise ModelError(
            f"the file of the {part.role} answers otherwise than the network: "
            f"an output is off by {off:.2g} standard deviations"
        )
    return file_entry(path, part.role), off


def traced(
    part: Part, folder: Path, *, opset: int = OPSET
) -> tuple[onnx.ModelProto, tuple[Tensor, ...]]:
    """A part as a graph, and what its network answers to the examples. folder: for scratch files.

    Raises ModelError if it has what engine builders stumble over.
    """
    part.net.eval()  # all of it: the exporter puts the mode of the whole back on every part
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        draft = Path(scratch) / f"{part.role}.onnx"  # of a large network several files
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in edgeperc.offline.export
            torch.onnx.export(
                part.net,
                tuple(part.inputs.values()),
                str(draft),
                dynamo=False,
                opset_version=opset,
                input_names=list(part.inputs),
                output_names=list(part.outputs),
                dynamic_axes={name: dict(axes) for name, axes in part.open_axes.items()},
            )
        model = tidy(onnx.load(str(draft)))
    answers = part.net(*part.inputs.values())
    answers = answers if isinstance(answers, tuple) else (answers,)
    _name_tensors(model, part, answers)
    if complaints := unfit(model, open_axes=bool(part.open_axes)):
        raise ModelError(f"the {part.role} cannot be written: it has {complaints[0]}")
    return model, answers


def sizes_of(net: Sam2, table: PromptTable) -> Sizes:
    """What the files of a network agree on."""
    config = net.config
    return Sizes(
        table=table, grid=config.grid, width=config.width, memory_width=config.memory_width
    )


def written_out(net: nn.Module) -> AbstractContextManager[None]:
    """Attention as products and softmax, so that every operator is an old and plain one."""
    return taps.written_out(each for each in net.modules() if isinstance(each, Attention))


def _checked_table(card: ModelCard, net: Sam | Sam2) -> PromptTable:
    """[prompt] of a card. Raises ModelError if it is not of this network."""
    table, config = card.prompt, net.config
    if card.task != "promptable" or table is None:
        raise ModelError(f"model '{card.name}': its card has no [prompt], as a promptable one has")
    if table.kind == "video" and isinstance(net, Sam):
        raise ModelError(f"model '{card.name}': SAM has no memory, its card must say \"image\"")
    way = LONGEST if isinstance(net, Sam) else STRETCH
    side = config.picture_px
    said: dict[str, tuple[Any, Any]] = {
        "[prompt] picture_px": (table.picture_px, side),
        "[input] kind": (card.input.kind, "frame"),
        "[input] represent": (card.input.represent, way),
        "[input] width_px": (card.input.width_px, side),
        "[input] height_px": (card.input.height_px, side),
    }
    if isinstance(config, Sam2Config):
        said["[prompt] memory_frames"] = (table.memory_frames, config.memory_frames)
        said["[prompt] max_pointers"] = (table.max_pointers, config.max_pointers)
    for key, (found, wanted) in said.items():
        if found != wanted:
            raise ModelError(
                f"model '{card.name}': {key} is {found}, the network '{config.name}' has {wanted}"
            )
    return table


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


def _name_tensors(model: onnx.ModelProto, part: Part, answers: Sequence[Tensor]) -> None:
    """State shapes of all inputs, those a network does not look at included, and of outputs."""
    del model.graph.value_info[:]
    del model.graph.input[:]
    del model.graph.output[:]
    for name, values in part.inputs.items():
        shape: list[int | str] = list(values.shape)
        for axis, length in part.open_axes.get(name, {}).items():
            shape[axis] = length
        model.graph.input.append(_float_tensor(name, shape))
    for name, values in zip(part.outputs, answers, strict=True):
        model.graph.output.append(_float_tensor(name, list(values.shape)))


def _float_tensor(name: str, shape: list[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def _difference(part: Part, answers: Sequence[Tensor], path: Path) -> float:
    """How far an output of the file is from the network's, in standard deviations of the output."""
    found = Session(path, threads=1).run(*(value.numpy() for value in part.inputs.values()))
    off = 0.0
    for answer, value in zip(answers, found, strict=True):
        wanted = answer.numpy()
        scale = max(float(wanted.std()), 1e-6) if wanted.size > 1 else max(abs(wanted.item()), 1.0)
        off = max(off, float(np.abs(value - wanted).max()) / scale)
    return off


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
