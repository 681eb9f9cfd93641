"""Add Efficient-SAM2's files to the model folder of a promptable network for video.

    report = add_efficient(Path("models/promptable"), net, bypass, keep_share=0.05)
    report = export_trained(card, Path("out/bypass/weights.pt"), Path("models/promptable"))

Window routing takes `encoder_head`, `encoder_middle`, `encoder_tail`, and a decoder that also says
where it looked (`saliency`); memory retrieval takes `memory_retrieval`. The middle's number of
windows is open: onnxruntime takes any; for TensorRT, build it with an optimisation profile for each
of a few numbers and give these to `RoutedEncoder(buckets=...)`. The retrieval keeps a fixed number
of tokens; of whole frames it takes any number, or, static, as many as are never pruned.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import msgspec
import torch
from torch import Tensor, nn

from edgeperc.config import ModelCard, PromptTable, load
from edgeperc.errors import ModelError
from edgeperc.offline import export_prompt
from edgeperc.offline.export import new_folder, one_thread, to_toml
from edgeperc.offline.export_prompt import PromptReport, export_network, load_net, published_net
from edgeperc.offline.nets.efficient import (
    Bypass,
    Head,
    Middle,
    SaliencyTaps,
    Tail,
    bypass_of,
    route_of,
)
from edgeperc.offline.nets.efficient_memory import PrunedAttention, kept_tokens
from edgeperc.offline.nets.sam2 import Sam2
from edgeperc.offline.onnx_part import Part, write_part
from edgeperc.offline.prompt_parts import parts, sizes_of, written_out
from edgeperc.offline.storage import Storage
from edgeperc.prompting.memory import UNUSED

KEEP_SHARE = 0.05
"""Of an older frame's tokens, as published."""


def export_trained(card: ModelCard, checkpoint: Path, out_dir: Path) -> PromptReport:
    """As `edgeperc.offline.export_prompt`, with the files of Efficient-SAM2 for video.

    Window routing is there if `edgeperc train bypass` wrote the checkpoint. Raises ModelError.
    """
    table = card.prompt
    if table is None or table.kind != "video":
        return export_prompt.export_trained(card, checkpoint, out_dir)
    bypass = load_bypass(checkpoint)
    if table.window_routing and bypass is None:
        raise ModelError(
            f"model '{card.name}' says window_routing = true, {checkpoint} has no adapter for it",
            hint="train one: edgeperc train bypass",
        )
    plain = msgspec.structs.replace(table, window_routing=False, memory_keep_share=1.0)
    plain_card = msgspec.structs.replace(card, prompt=plain)
    with new_folder(out_dir) as folder:
        report = export_prompt.export_trained(plain_card, checkpoint, folder)
        share = table.memory_keep_share if table.memory_keep_share < 1 else KEEP_SHARE
        added = add_efficient(
            folder, load_net(checkpoint), bypass, keep_share=share, storage="byte"
        )
        complete = load(folder / "model.toml", ModelCard)
        (folder / "model.toml").write_text(
            to_toml(msgspec.structs.replace(complete, prompt=table)), encoding="utf-8"
        )
    return replace(
        report, files=complete.files, differences={**report.differences, **added.differences}
    )


def import_checkpoint(
    card: ModelCard,
    checkpoint: Path,
    out_dir: Path,
    *,
    bypass: Path,
    on_step: Callable[[str], None] = lambda what: None,
) -> PromptReport:
    """As that of `export_prompt`, with the files of Efficient-SAM2 and a published adapter.

    bypass: `bypass_bottleneck_base.pth` or `bypass_bottleneck_large.pth`. The card switches nothing
    of it on: a pipeline does. Raises ModelError, also if the adapter is of another network.
    """
    on_step(f"reading {checkpoint.name} and {bypass.name}")
    net, storage, notes = published_net(card, checkpoint)
    if not isinstance(net, Sam2) or card.prompt is None or card.prompt.kind != "video":
        raise ModelError(
            f"model '{card.name}' does not follow objects: it has no use for an adapter",
            hint="leave --bypass out",
        )
    routing = published_bypass(net, bypass)
    with new_folder(out_dir) as folder:
        report = export_network(card, net, folder, storage=storage, on_step=on_step)
        on_step("writing and comparing what passes over windows and tokens")
        added = add_efficient(folder, net, routing, storage=storage)
        files = load(folder / "model.toml", ModelCard).files
    return replace(
        report,
        parameters=report.parameters + added.parameters,
        files=files,
        differences={**report.differences, **added.differences},
        notes=notes,
    )


def add_efficient(
    folder: Path,
    net: Sam2,
    bypass: Bypass | None,
    *,
    keep_share: float | None = KEEP_SHARE,
    storage: Storage = "single",
    static: bool = False,
) -> PromptReport:
    """Write the files into a model folder that `export_network` made of `net`, and into its card.

    bypass: None leaves window routing out. keep_share: None leaves memory retrieval out. static:
    the retrieval takes a fixed number of whole frames, so that it prunes from the first one on. The
    card's window_routing and memory_keep_share stay as they are. Raises ModelError as there, and
    if the folder is of no video network.
    """
    card = load(folder / "model.toml", ModelCard)
    if card.prompt is None or card.prompt.kind != "video":
        raise ModelError(f"{folder}: is no model that follows objects")
    files = {entry.role: entry for entry in card.files}
    differences = {}
    with one_thread(), torch.no_grad(), written_out(net.eval()), new_folder(folder) as scratch:
        for part in efficient_parts(net, card.prompt, bypass, keep_share=keep_share, static=static):
            files[part.role], differences[part.role] = write_part(part, scratch, storage=storage)
        complete = msgspec.structs.replace(card, files=tuple(files.values()))
        (scratch / "model.toml").write_text(to_toml(complete), encoding="utf-8")
    return PromptReport(
        parameters=sum(p.numel() for p in bypass.parameters()) if bypass else 0,
        files=tuple(files[role] for role in differences),
        differences=differences,
        agreement=1.0,
    )


def efficient_parts(
    net: Sam2,
    table: PromptTable,
    bypass: Bypass | None,
    *,
    keep_share: float | None = KEEP_SHARE,
    static: bool = False,
) -> Iterator[Part]:
    """The files, one at a time. Attention must be written out, see `written_out`."""
    generator = torch.Generator().manual_seed(0)
    side = table.picture_px
    picture = torch.randn(1, 3, side, side, generator=generator)
    if bypass is not None:
        yield from routing_parts(net, bypass.eval(), picture)
        yield salient_decoder(net, table)
    if keep_share is not None:
        embedding = net.encode(picture).embedding
        yield retrieval_part(net, table, embedding, keep_share=keep_share, static=static)


def load_bypass(checkpoint: Path) -> Bypass | None:
    """The adapter that a checkpoint of `edgeperc train bypass` has. Raises ModelError."""
    net = load_net(checkpoint)
    state = torch.load(checkpoint, weights_only=True, map_location="cpu").get("bypass")
    return None if state is None else adapter(net, state, checkpoint)


def published_bypass(net: Sam2, checkpoint: Path) -> Bypass:
    """The adapter of a published file, `bypass_bottleneck_{base,large}.pth`. Raises ModelError."""
    try:
        state = torch.load(checkpoint, weights_only=True, map_location="cpu")
    except OSError as error:
        raise ModelError(f"{checkpoint}: {error.strerror}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ModelError(f"{checkpoint}: no weights: {error}") from error
    return adapter(net, state, checkpoint)


def adapter(net: Sam2, state: object, where: Path) -> Bypass:
    """An adapter of a network with these weights. Raises ModelError if they are of another one."""
    bypass = bypass_of(net.config)
    try:
        bypass.load_state_dict(cast(dict[str, Tensor], state), strict=True)
    except (RuntimeError, TypeError, AttributeError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{where}: no adapter of '{net.config.name}': {first_line}",
            hint=f"it must have {4 * net.config.embed} channels",
        ) from error
    return bypass.eval()


def routing_parts(net: Sam2, bypass: Bypass, picture: Tensor) -> Iterator[Part]:
    """The encoder in three files: before, in and behind the blocks that leave windows out."""
    route = route_of(net.config)
    head = Head(net)
    yield Part(
        role="encoder_head",
        net=head,
        inputs={"picture": picture},
        outputs=("tokens", "high0", "high1"),
    )
    tokens = head(picture)[0]
    size, width = route.window, tokens.shape[-1]
    valid = route.valid()[-3:]
    yield Part(
        role="encoder_middle",
        net=Middle(net),
        inputs={"tokens": torch.randn(3, size, size, width), "valid": valid},
        outputs=("encoded",),
        open_axes={name: {0: "windows"} for name in ("tokens", "valid", "encoded")},
    )
    chosen = torch.zeros(1, route.grid, route.grid, 1)
    chosen[:, : route.window] = 1
    yield Part(
        role="encoder_tail",
        net=Tail(net, bypass),
        inputs={"tokens": tokens, "chosen": chosen},
        outputs=("embedding",),
    )


def salient_decoder(net: Sam2, table: PromptTable) -> Part:
    """The decoder of the folder, with one more output."""
    plain = next(part for part in parts(net, table) if part.role == "decoder")
    return replace(plain, net=_Salient(plain.net, net), outputs=(*plain.outputs, "saliency"))


class _Salient(nn.Module):
    """A decoder that also says where it looked."""

    def __init__(self, decoder: nn.Module, net: Sam2) -> None:
        super().__init__()
        self.decoder, self.net = decoder, net

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        taps = SaliencyTaps(self.net.sam_mask_decoder)
        answer = self.decoder(*inputs)
        saliency = taps.read()
        taps.remove()
        return (*answer, saliency)


def retrieval_part(
    net: Sam2, table: PromptTable, embedding: Tensor, *, keep_share: float, static: bool = False
) -> Part:
    """The memory attention that is given kept tokens. static: see `add_efficient`."""
    generator = torch.Generator().manual_seed(1)
    sizes = sizes_of(net, table)
    places, width = sizes.grid**2, sizes.memory_width
    whole = (table.prompt_frames + 1) * places + sizes.pointer_tokens
    room = (table.memory_frames - 2) * kept_tokens(keep_share, places)
    layers = net.config.memory_layers

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    bias = torch.zeros(1, whole)
    bias[:, -sizes.pointer_tokens // 2 :] = UNUSED
    older_bias = torch.zeros(layers, room)
    older_bias[:, -room // 5 :] = UNUSED
    return Part(
        role="memory_retrieval",
        net=PrunedAttention(net, sizes.pointer_tokens),
        inputs={
            "embedding": embedding,
            "memory": noise(1, whole, width),
            "memory_position": noise(1, whole, width),
            "bias": bias,
            "older": noise(layers, room, width),
            "older_position": noise(layers, room, width),
            "older_places": torch.randint(
                sizes.grid, (layers, room, 2), generator=generator
            ).float(),
            "older_bias": older_bias,
        },
        outputs=("conditioned", "scores"),
        open_axes={}
        if static
        else {name: {1: "tokens"} for name in ("memory", "memory_position", "bias")},
    )
