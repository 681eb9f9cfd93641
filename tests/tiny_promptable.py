"""Small promptable networks of random weights, as model folders."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from edgeperc import places
from edgeperc.config import Input, ModelCard, PromptTable
from edgeperc.offline.export_prompt import export_network
from edgeperc.offline.nets.sam import Sam, SamConfig, VitConfig
from edgeperc.offline.nets.sam2 import Sam2, Sam2Config
from edgeperc.offline.storage import Storage
from edgeperc.packet import Frame, Stamp
from edgeperc.places import ModelFolder

from .sam2_oracle import lively

TINY = Sam2Config(
    name="tiny",
    picture_px=64,
    embed=8,
    heads=1,
    stages=(1, 1, 2, 1),
    global_blocks=(3,),
    windows=(8, 4, 3, 2),  # 3 does not divide 4: the edge is padded
    background_px=(7, 7),
    width=128,
    memory_layers=2,
    feed_forward=32,
    decoder_feed_forward=32,
    decoder_heads=4,
    iou_hidden=32,
)
KEPT = tempfile.TemporaryDirectory(prefix="edgeperc-tests-")
"""Folders that `exported` wrote."""


def tiny_sam2(seed: int = 0, *, presence: float = 0.5, **options: Any) -> Sam2:
    """A network whose answers hang on all that it is told."""
    torch.set_num_threads(1)
    return lively(replace(TINY, **options), seed, presence=presence)


def tiny_sam(seed: int = 0) -> Sam:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    config = SamConfig(
        name="tiny-sam",
        encoder=VitConfig(
            embed=16, depth=2, heads=2, global_blocks=(1,), picture_px=64, window=3, width=64
        ),
        decoder_heads=4,
        decoder_feed_forward=32,
    )
    net = Sam(config).eval()
    with torch.no_grad():
        for name, values in net.named_parameters():
            if values.dim() < 2 or "pos" in name:
                values.add_(0.2 * torch.randn(values.shape))
    return net


def card_of(
    net: Sam | Sam2, kind: Literal["image", "video"] | None = None, **table: Any
) -> ModelCard:
    side, first = net.config.picture_px, isinstance(net, Sam)
    return ModelCard(
        name=net.config.name,
        task="promptable",
        summary="Random weights",
        licence="Apache-2.0",
        source="tests",
        classes=(),
        input=Input(
            kind="frame",
            represent="longest" if first else "stretch",
            width_px=side,
            height_px=side,
            mean=(123.675, 116.28, 103.53),
            std=(58.395, 57.12, 57.375),
        ),
        prompt=PromptTable(kind=kind or ("image" if first else "video"), picture_px=side, **table),
    )


def exported(
    net: Sam | Sam2,
    folder: Path,
    kind: Literal["image", "video"] | None = None,
    *,
    storage: Storage = "single",
    open_memory: bool = False,
    **table: Any,
) -> ModelFolder:
    """The model folder of a network. table: keys of [prompt]. Files are written once for all who
    ask for the same, and copied.
    """
    card = card_of(net, kind, **table)
    key = sha256(repr((card, net.config, storage, open_memory)).encode())
    for name, values in net.state_dict().items():
        key.update(name.encode() + values.numpy().tobytes())
    kept = Path(KEPT.name) / key.hexdigest() / card.name
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        export_network(card, net, kept, storage=storage, open_memory=open_memory)
    shutil.copytree(kept, folder, dirs_exist_ok=True)
    return places.find_model(str(folder))


def film(frames: int, width_px: int = 90, height_px: int = 50) -> list[NDArray[np.uint8]]:
    """Blobs that drift, and some noise."""
    rng = np.random.default_rng(3)
    coarse = rng.uniform(0, 255, (height_px // 8 + 2, width_px // 8 + 2, 3))
    scene = coarse.repeat(8, axis=0).repeat(8, axis=1)[:height_px, :width_px]
    pictures = []
    for index in range(frames):
        moved = np.roll(scene, 3 * index, axis=1) + rng.normal(0, 12, scene.shape)
        pictures.append(moved.clip(0, 255).astype(np.uint8))
    return pictures


def frame(image: NDArray[np.uint8], seq: int = 0) -> Frame:
    stamp = Stamp(source="wide", seq=seq, start_ns=seq * 1000, end_ns=seq * 1000 + 10)
    return Frame(stamp=stamp, image=image)
