"""A tiny network that fuses frames with events and that nobody trained, as a model folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import torch

from edgeperc.config import FileEntry, FrameInput, Input, ModelCard
from edgeperc.offline.export import to_toml
from edgeperc.offline.export_fusion import export_onnx, frame_channels, input_size
from edgeperc.offline.nets.mambaseg import VARIANTS, MambaSeg

CLASSES = ("flat", "background", "object", "vegetation", "human", "vehicle")
CARD = ModelCard(
    name="tiny-fusion",
    task="semantic",
    summary="random weights",
    licence="-",
    source="this test",
    classes=CLASSES,
    input=Input(
        kind="events",
        represent="voxel-grid",
        width_px=346,
        height_px=260,
        bins=2,
        window_us=50_000,
    ),
    frames=FrameInput(mean=(127.5,), std=(63.75,)),
    files=(FileEntry(path="tiny.onnx"),),
)
TINY = replace(
    VARIANTS["mambaseg-nano"], bins=2, widths=(4, 4, 8, 8), depths=(1, 1, 1, 1), head_width=8
)


def write_model(folder: Path, card: ModelCard = CARD) -> Path:
    """Write random weights and a card; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    card = msgspec.structs.replace(card, files=(FileEntry(path="tiny.onnx"),))
    sizes = replace(
        TINY,
        bins=card.input.bins,
        classes=len(card.classes),
        frame_channels=frame_channels(card),
    )
    torch.manual_seed(0)
    export_onnx(MambaSeg(sizes).eval(), folder / "tiny.onnx", *input_size(card))
    (folder / "model.toml").write_text(to_toml(card), encoding="utf-8")
    return folder
