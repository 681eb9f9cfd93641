"""One part of a promptable network in a process of its own, run once for each line it reads.

    python -m edgeperc.bench.sam_worker dense_encoder FOLDER 1

Two sessions of onnxruntime in one process slow each other down; so each part has one to itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from edgeperc.bench import machine
from edgeperc.config import FileEntry, Input, ModelCard, PromptTable, load
from edgeperc.inference.session import Session
from edgeperc.places import ModelFolder
from edgeperc.prompting.bank import Bank, Remembered
from edgeperc.prompting.memory import Constants, DenseMemory
from edgeperc.prompting.networks import DenseEncoder, Sizes
from edgeperc.prompting.retrieval import PrunedMemory, kept_tokens
from edgeperc.prompting.routing import RoutedEncoder
from edgeperc.prompting.seam import F32, Decoded, Encoder, Features, Wish

Call = Callable[[], object]

WINDOW_SHARE = 0.25
"""Of the windows; the share for which jingjing0419/Efficient-SAM2 counts operations, FLOPs.py."""

KEEP_SHARE = 0.05


def windows_at_share(windows: int) -> int:
    """So many windows are encoded: 6 of 25, 4 of 16."""
    return max(1, round(WINDOW_SHARE * windows))


def card_of(picture_px: int, files: Iterable[FileEntry], *, video: bool) -> ModelCard:
    """The card of a network that is only timed; seven frames in memory, one of them prompted."""
    return ModelCard(
        name="bench",
        task="promptable",
        summary="random weights",
        licence="",
        source="",
        classes=(),
        input=Input(kind="frame", represent="stretch", width_px=picture_px, height_px=picture_px),
        prompt=PromptTable(
            kind="video" if video else "image", picture_px=picture_px, prompt_frames=1
        ),
        files=tuple(files),
    )


def call_of(kind: str, folder: Path, threads: int) -> Call:
    """What is timed. kind: an encoder, a memory, or the role of a file."""
    if kind == "gemm":
        return machine.gemm_gflops
    model = ModelFolder(load(folder / "model.toml", ModelCard), folder)
    if kind == "dense_encoder":
        return _encoder(DenseEncoder(model, threads=threads), Wish())
    if kind == "routed_encoder":
        return _routed(RoutedEncoder(model, threads=threads))
    if kind in ("dense_memory", "pruned_memory"):
        return _memory(model, kind, threads)
    return _plain(Session(folder / f"{kind}.onnx", threads=threads))


def serve(call: Call) -> None:
    """Answer each line of standard input with what the call returned, if that is a number."""
    for _ in sys.stdin:
        answer = call()
        print(answer if isinstance(answer, float) else "", flush=True)


def _encoder(encoder: Encoder, wish: Wish) -> Call:
    sizes = encoder.sizes  # type: ignore[attr-defined]
    tensor = _noise(3, sizes.table.picture_px, sizes.table.picture_px)
    return lambda: encoder(tensor, wish)


def _routed(encoder: RoutedEncoder) -> Call:
    """In the state of tracking: the frame after a prompt is behind it."""
    sizes = encoder.sizes
    tensor = np.zeros((3, sizes.table.picture_px, sizes.table.picture_px), np.float32)
    side = 4 * encoder.window
    across = -(-sizes.grid // encoder.window)
    masks = np.full((4, sizes.mask, sizes.mask), -1.0, np.float32)
    count = windows_at_share(across**2)
    for index in range(count):
        row, column = divmod(index, across)
        masks[1, row * side + 4, column * side + 4] = 1.0
    last = Decoded(masks=masks, ious=np.ones(4, np.float32), object_logit=10.0)
    for wish in (Wish(), Wish(whole=False, last=(last,))):
        encoder(tensor, wish)
    call = _encoder(encoder, Wish(whole=False, last=(last,)))
    call()  # the zeros before it are another scene
    before = encoder.counters["windows"]
    call()
    assert encoder.counters["windows"] - before == count
    return call


def _memory(model: ModelFolder, kind: str, threads: int) -> Call:
    """A full bank: a prompted frame, five older ones, the newest, and all pointers."""
    assert model.card.prompt is not None
    table = model.card.prompt
    sizes = Sizes(table=table, grid=table.picture_px // 16, width=256)
    places, width = sizes.grid**2, sizes.memory_width
    constants = Constants(
        position=_noise(places, width),
        temporal=_noise(table.memory_frames, width),
        no_memory=_noise(sizes.width),
        mask_weight=_noise(4, 4),
        mask_bias=np.zeros((), np.float32),
    )
    bank = Bank(
        prompt_frames=table.prompt_frames,
        memory_frames=table.memory_frames,
        max_pointers=table.max_pointers,
    )
    rng = np.random.default_rng(1)
    count = kept_tokens(KEEP_SHARE, places)
    for number in range(table.max_pointers + 1):
        kept = np.stack([np.sort(rng.choice(places, count, replace=False)) for _ in range(4)])
        entry = Remembered(
            frame=number, tokens=_noise(places, width), pointer=_noise(sizes.width), kept=kept
        )
        bank.remember(entry, prompted=number == 0)
    memory = (
        DenseMemory(model, sizes, constants, threads=threads)
        if kind == "dense_memory"
        else PrunedMemory(model, sizes, constants, keep_share=KEEP_SHARE, threads=threads)
    )
    features = Features(embedding=_noise(*sizes.embedding))
    return lambda: memory(features, bank, table.max_pointers + 1)


def _plain(session: Session) -> Call:
    inputs = [
        _noise(*(length for length in shape if isinstance(length, int)))
        for shape in session.input_shapes.values()
    ]
    return lambda: session.run(*inputs)


def _noise(*shape: int) -> F32:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


if __name__ == "__main__":
    serve(call_of(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
