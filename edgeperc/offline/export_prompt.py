"""From a promptable network in torch to a model folder.

    report = export_network(card, net, Path("models/promptable"))
    report = export_trained(card, Path("out/promptable/weights.pt"), Path("models/promptable"))
    report = import_checkpoint(card, Path("sam2.1_hiera_tiny.pt"), Path("models/sam2.1-hiera-tiny"))

writes the files of `edgeperc.offline.prompt_parts`, `constants.npz`, `golden.npz` and `model.toml`.
Nothing is written if a file, or all of them together, answer otherwise than the network.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import torch

from edgeperc.config import FileEntry, ModelCard, PromptTable
from edgeperc.errors import ConfigError, ModelError
from edgeperc.offline.checkpoint import read_checkpoint
from edgeperc.offline.export import file_entry, new_folder, one_thread, to_toml
from edgeperc.offline.golden import golden
from edgeperc.offline.nets.sam import Sam
from edgeperc.offline.nets.sam2 import Sam2, Sam2Config
from edgeperc.offline.nets.sam_variants import load_published
from edgeperc.offline.onnx_part import write_part
from edgeperc.offline.prompt_parts import constants, parts, written_out
from edgeperc.offline.storage import Storage
from edgeperc.picture import LONGEST, STRETCH
from edgeperc.places import ModelFolder
from edgeperc.prompting.golden import agreement

AGREEMENT: dict[Storage, float] = {"single": 0.995, "half": 0.95, "byte": 0.9}
"""Share of the pixels of a golden mask that must be the same, likewise."""

_MOST_BYTES = 1_900_000_000
"""A file of more cannot be written in one piece."""


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
