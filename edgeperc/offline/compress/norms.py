"""Which layers read a norm and nothing else does: where a norm may be rescaled channel by channel.

    for norm in norms_of(net).values():
        norm.name, norm.consumers, norm.padded

The pairs come from what the modules are, without tracing: each class in `PAIRS` tells for its own
parts which norm is read by which layers, and a network of other parts adds its class there. Left
out is a norm that anything else reads: `norm1` to `norm4` of the decoder's two-way blocks,
`memory_attention.norm` and the last norm of a neck, to which something is added; norms before a
GELU or a neuron, which do not commute with a scale; the decoder's last norm in SAM, whose tokens
are handed out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, cast

from torch import nn

from edgeperc.offline.nets import hiera, sltnet, tinyvit, vit
from edgeperc.offline.nets.efficient import Bypass
from edgeperc.offline.nets.memory import FuserBlock, MemoryLayer
from edgeperc.offline.nets.sam2 import Sam2


class Pair(NamedTuple):
    """A norm and its readers, by their names in a module. padded: windows of it are."""

    norm: str
    consumers: tuple[str, ...]
    padded: bool = False


@dataclass(frozen=True, slots=True)
class Norm:
    """A norm of a network, and every layer that reads it.

    consumers: dotted names. padded: a reader sees zeros beside what the norm hands on, where
    windows or a convolution reach beyond the picture. These stay zeros whatever is done to the
    norm, so that its channels may be scaled, but not shifted.
    """

    name: str
    module: nn.Module
    consumers: tuple[str, ...]
    padded: bool


def norms_of(net: nn.Module) -> dict[str, Norm]:
    """All norms that only linear layers and convolutions read, by their dotted names."""
    found = {}
    for at, module in net.named_modules():
        for pair in _pairs(module):
            name, consumers = _join(at, pair.norm), tuple(_join(at, c) for c in pair.consumers)
            padded = pair.padded or any(pads(module.get_submodule(c)) for c in pair.consumers)
            found[name] = Norm(name, module.get_submodule(pair.norm), consumers, padded)
    return found


def pads(layer: nn.Module) -> bool:
    """Whether a layer reads zeros beyond the edge of what it is given."""
    return isinstance(layer, nn.Conv2d) and layer.padding not in ((0, 0), "valid")


def _pairs(module: nn.Module) -> Iterator[Pair]:
    for kind, pairs in PAIRS.items():
        if isinstance(module, kind):
            yield from pairs(module)


def _join(*names: str) -> str:
    return ".".join(name for name in names if name)


def _vit(encoder: vit.ImageEncoderViT) -> Iterator[Pair]:
    for index, each in enumerate(encoder.blocks):
        block, at = cast(vit.Block, each), f"blocks.{index}"
        # Windows are padded behind the norm: what is beyond the edge is a key of zero plus bias.
        padded = bool(block.window and block.grid % block.window)
        yield Pair(f"{at}.norm1", (f"{at}.attn.qkv",), padded)
        yield Pair(f"{at}.norm2", (f"{at}.mlp.lin1",))
    yield from _neck(encoder)


def _hiera(trunk: hiera.Hiera) -> Iterator[Pair]:
    side = trunk.side
    for index, each in enumerate(trunk.blocks):
        block, at = cast(hiera.Block, each), f"blocks.{index}"
        padded = bool(block.window and side % block.window)
        # Where channels are gained, the shortcut is a projection of the norm.
        shortcut = (f"{at}.proj",) if hasattr(block, "proj") else ()
        yield Pair(f"{at}.norm1", (f"{at}.attn.qkv", *shortcut), padded)
        yield Pair(f"{at}.norm2", (f"{at}.mlp.layers.0",))
        side = side // 2 if block.pooled else side


def _neck(_: nn.Module) -> Iterator[Pair]:
    yield Pair("neck.1", ("neck.2",))


def _memory(_: MemoryLayer) -> Iterator[Pair]:
    parts = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    yield Pair("norm1", parts)
    yield Pair("norm2", ("cross_attn_image.q_proj",))
    yield Pair("norm3", ("linear1",))


def _tokens(net: Sam2) -> Iterator[Pair]:
    """The decoder's tokens at the end: heads read them, one of which makes the object's pointer."""
    at = "sam_mask_decoder"
    count = len(net.sam_mask_decoder.output_hypernetworks_mlps)
    heads = [f"{at}.output_hypernetworks_mlps.{index}" for index in range(count)]
    heads += [f"{at}.iou_prediction_head", f"{at}.pred_obj_score_head", "obj_ptr_proj"]
    readers = tuple(f"{head}.layers.0" for head in heads)
    yield Pair(f"{at}.transformer.norm_final_attn", readers)


def _one(norm: str, consumer: str) -> Callable[[nn.Module], Iterator[Pair]]:
    return lambda _: iter([Pair(norm, (consumer,))])


PAIRS: dict[type[nn.Module], Callable[..., Iterator[Pair]]] = {
    vit.ImageEncoderViT: _vit,
    hiera.Hiera: _hiera,
    tinyvit.TinyViT: _neck,
    # Padded before its norm: what is beyond the edge moves with the norm.
    tinyvit.WindowAttention: _one("norm", "qkv"),
    tinyvit.Mlp: _one("norm", "fc1"),
    MemoryLayer: _memory,
    FuserBlock: _one("norm", "pwconv1"),
    Bypass: _one("norm", "down_project"),
    Sam2: _tokens,
    # The batch norm before a depthwise convolution, which does not pad: the others feed neurons.
    sltnet.RepConv: _one("2", "3"),
}
"""Class of a module -> the pairs among its parts."""
